"""A tiny SavedModel with the signatures of our exports, and a running server of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from serving.local import LocalServer

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
    """A base path with version 3 beside two folders that must not be served: 2 is older, 9.tmp is no number."""
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


@pytest.fixture(scope="session")
def server(model_base_path: Path):
    with LocalServer(model_base_path, "tiny") as running:
        yield running


@pytest.fixture(scope="session")
def target(server: LocalServer) -> str:
    return f"localhost:{server.port}"
