from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from serving.loaded_model import LoadedModel
from serving.request_limits import RequestLimits
from serving.warmup import load_warm_model, replay_warmup

LIMITS = RequestLimits(max_input_values=1000, max_batch_size=100)


def predict_log(steps: np.ndarray) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.model_spec.signature_name = "version"
    log.predict_log.request.inputs["steps"].CopyFrom(tf.make_tensor_proto(steps))
    return log


def example_log(kind: str, item: bytes) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    request = getattr(log, f"{kind}_log").request
    request.model_spec.signature_name = kind
    feature = request.input.example_list.examples.add().features.feature
    feature["user"].bytes_list.value.append(b"u1")
    feature["item"].bytes_list.value.append(item)
    feature["time"].int64_list.value.append(1000)
    return log


@pytest.fixture
def path(tmp_path, scorer_saver):
    return scorer_saver[0](tmp_path, 1)


def test_every_kind_of_log_is_replayed(path, scorer_saver):
    logs = [predict_log(np.array([3])), example_log("classify", b"i1"), example_log("regress", b"i1")]
    scorer_saver[1](path, logs)
    assert replay_warmup(LoadedModel("scorer", 1, path, LIMITS)) == 3


def test_model_without_a_warmup_file_needs_none(path):
    assert replay_warmup(LoadedModel("scorer", 1, path, LIMITS)) == 0


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (predict_log(np.array(["a"], object)), "record 1 fails: Input `steps` of signature `version` must be int64"),
        (example_log("regress", b"apple"), "record 1 fails: Signature `regress` failed"),
        (prediction_log_pb2.PredictionLog(), "record 1 fails: its kind is None"),
    ],
    ids=["predict", "regress", "nothing"],
)
def test_version_whose_warmup_fails_is_not_served(path, scorer_saver, log, message):
    scorer_saver[1](path, [predict_log(np.array([3])), log])
    with pytest.raises(ValueError, match=message):
        load_warm_model("scorer", 1, path, LIMITS)


def test_damaged_warmup_file(path, scorer_saver):
    scorer_saver[1](path, [predict_log(np.array([3]))])
    file = path / "assets.extra" / "tf_serving_warmup_requests"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(ValueError, match="must hold PredictionLogs.*record 0 fails"):
        load_warm_model("scorer", 1, path, LIMITS)
