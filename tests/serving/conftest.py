"""Tiny SavedModels with the signatures of our exports, and a running server of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from serving.local_server import LocalServer
from serving.server_configs import build_model_config

EXAMPLE_SPEC = {
    "user": tf.io.FixedLenFeature([], tf.string),
    "item": tf.io.FixedLenFeature([], tf.string),
    "time": tf.io.FixedLenFeature([], tf.int64),
    "store": tf.io.FixedLenFeature([], tf.string, default_value=""),
}
SCORER_METHODS = {"classify": "tensorflow/serving/classify", "regress": "tensorflow/serving/regress"}
DEFAULT_STRIDE = tf.constant(2, tf.int64)


class TinyRanker(tf.Module):
    """Candidate `i7` has the probability 0.7; every candidate has one neighbour and one padding (K = 2, N = 2)."""

    def _probabilities(self, candidates: tf.Tensor, store: tf.Tensor) -> dict[str, tf.Tensor]:
        mask = tf.not_equal(candidates, "")  # [B, C]
        digits = tf.strings.substr(tf.where(mask, candidates, "i0"), 1, 9)
        is_open = tf.cast(tf.not_equal(store, "closed"), tf.float32)[:, tf.newaxis]
        return {"probabilities": tf.strings.to_number(digits) / 10.0 * is_open, "mask": mask}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, "user"),
            tf.TensorSpec([None, None], tf.string, "candidates"),
            tf.TensorSpec([None], tf.int64, "time"),
            tf.TensorSpec([None], tf.string, "store"),
        ]
    )
    def rank(self, user, candidates, time, store):
        return self._probabilities(candidates, store)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, "user"),
            tf.TensorSpec([None, None], tf.string, "candidates"),
            tf.TensorSpec([None], tf.int64, "time"),
            tf.TensorSpec([None], tf.string, "store"),
        ]
    )
    def explain(self, user, candidates, time, store):
        none = tf.zeros_like(candidates)  # [B, C], of "".
        twin = tf.strings.join([user, "-twin"])[:, tf.newaxis] + none
        earlier = (time - 60)[:, tf.newaxis] + tf.zeros_like(candidates, tf.int64)
        number = tf.zeros_like(candidates, tf.float32)
        return {
            **self._probabilities(candidates, store),
            "neighbour_user": tf.stack([twin, none], -1),  # [B, C, K]
            "neighbour_item": tf.stack([candidates, none], -1),
            "neighbour_time": tf.stack([earlier, tf.zeros_like(earlier)], -1),
            "neighbour_score": tf.stack([number + 2.5, number], -1),
            "attention": tf.stack([number + 1.0, number], -1),
            "neighbour_next_items": tf.stack(  # [B, C, K, N]
                [tf.stack([candidates + "-next", none], -1), tf.stack([none, none], -1)], -2
            ),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
    def score_examples(self, examples):
        return {"probabilities": tf.cast(tf.strings.length(examples), tf.float32)[:, tf.newaxis]}

    @tf.function(input_signature=[tf.TensorSpec([1], tf.int64, "steps"), tf.TensorSpec([], tf.int64, "stride")])
    def count(self, steps, stride=DEFAULT_STRIDE):
        """Takes a time that grows with `steps`; has a fixed size, a default, and an output of half precision."""
        counted = tf.while_loop(lambda n: n < steps[0], lambda n: (n + 1,), (tf.constant(0, tf.int64),))[0]
        return {"counted": counted * stride, "half": tf.cast(counted, tf.float16)}


@pytest.fixture(scope="session")
def model_base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base path of the TinyRanker: version 3 beside two folders that must not be served, 2, which is older, and 9.tmp, no number."""
    base_path = tmp_path_factory.mktemp("models") / "tiny"
    model = TinyRanker()
    tf.saved_model.save(
        model,
        str(base_path / "3"),
        signatures={
            "rank_known_user": model.rank,
            "explain": model.explain,
            "serving_default": model.score_examples,
            "count": model.count,
        },
    )
    (base_path / "2").mkdir()
    (base_path / "9.tmp").mkdir()
    return base_path


class TinyScorer(tf.Module):
    """Item `i7` has the probability 0.7, or 0 in a closed store; `version` says which version answers."""

    def __init__(self, version: int) -> None:
        self._version = tf.Variable(version, dtype=tf.int64)

    def _score(self, inputs: tf.Tensor) -> tf.Tensor:
        examples = tf.io.parse_example(inputs, EXAMPLE_SPEC)
        is_open = tf.cast(tf.not_equal(examples["store"], "closed"), tf.float32)
        return tf.strings.to_number(tf.strings.substr(examples["item"], 1, 9)) / 10.0 * is_open

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def classify(self, inputs):
        scores = self._score(inputs)
        classes = tf.tile(tf.constant([["negative", "positive"]]), [tf.size(inputs), 1])
        return {"classes": classes, "scores": tf.stack([1.0 - scores, scores], axis=-1)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def regress(self, inputs):
        return {"outputs": self._score(inputs)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, "steps")])
    def version(self, steps):
        """Takes a time that grows with `steps`."""
        counted = tf.while_loop(lambda n: n < steps[0], lambda n: (n + 1,), (tf.constant(0, tf.int64),))[0]
        return {"version": tf.zeros_like(steps) + self._version + 0 * counted}


def save_scorer(base_path: Path, version: int) -> Path:
    """Saves a TinyScorer as a version that appears in one rename; returns its folder."""
    aside, path = base_path / f"{version}.tmp", base_path / str(version)
    model = TinyScorer(version)
    signatures = {"classify": model.classify, "regress": model.regress, "version": model.version}
    tf.saved_model.save(model, str(aside), signatures=signatures)
    saved_model = saved_model_pb2.SavedModel.FromString((aside / "saved_model.pb").read_bytes())
    for name, method in SCORER_METHODS.items():
        saved_model.meta_graphs[0].signature_def[name].method_name = method
    (aside / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    aside.rename(path)
    return path


def write_warmup(path: Path, logs: list[prediction_log_pb2.PredictionLog]) -> None:
    """Writes the warm-up file of a version folder."""
    (path / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(path / "assets.extra" / "tf_serving_warmup_requests")) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


@pytest.fixture(scope="session")
def scorer_base_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base path with version 1 of the TinyScorer."""
    base_path = tmp_path_factory.mktemp("models") / "scorer"
    base_path.mkdir()
    save_scorer(base_path, 1)
    return base_path


@pytest.fixture(scope="session")
def scorer_saver():
    """The functions `save_scorer` and `write_warmup`, for tests that add versions."""
    return save_scorer, write_warmup


@pytest.fixture(scope="session")
def server(model_base_path: Path, scorer_base_path: Path):
    """A server of the models tiny and scorer."""
    configs = [build_model_config("tiny", model_base_path), build_model_config("scorer", scorer_base_path)]
    with LocalServer(configs) as running:
        yield running


@pytest.fixture(scope="session")
def target(server: LocalServer) -> str:
    return f"localhost:{server.port}"
