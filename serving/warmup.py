"""The warm-up requests of a SavedModel, replayed before the first request of a caller."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import prediction_log_pb2

from serving.inference import classify, multi_infer, predict, regress
from serving.loaded_model import LoadedModel
from serving.request_error import RequestError
from serving.request_limits import RequestLimits

WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


def load_warm_model(name: str, version: int, path: Path, limits: RequestLimits) -> LoadedModel:
    """Loads a version and replays its warm-up. Arguments and errors are those of `LoadedModel` and `replay_warmup`."""
    model = LoadedModel(name, version, path, limits)
    replay_warmup(model)
    return model


def replay_warmup(model: LoadedModel) -> int:
    """Runs every request of the model's warm-up file, a TFRecord file of PredictionLogs, and returns how many.

    As in TensorFlow Serving, a request that fails fails the version: it would fail for callers too.

    Raises:
        ValueError: The file cannot be read, or a request fails.
    """
    path = model.path / WARMUP_FILE
    num_replayed = 0
    try:
        if path.is_file():
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                _replay(model, prediction_log_pb2.PredictionLog.FromString(record))
                num_replayed += 1
    except (RequestError, DecodeError, tf.errors.OpError) as error:
        raise ValueError(
            "The warm-up file must hold PredictionLogs that the model answers. "
            f"Received: {path}, whose record {num_replayed} fails: {error} Export the model again."
        ) from error
    return num_replayed


def _replay(model: LoadedModel, log: prediction_log_pb2.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        predict(model, log.predict_log.request)
    elif kind == "classify_log":
        request = log.classify_log.request
        classify(model, request.model_spec.signature_name, request.input)
    elif kind == "regress_log":
        request = log.regress_log.request
        regress(model, request.model_spec.signature_name, request.input)
    elif kind == "multi_inference_log":
        multi_infer(model, log.multi_inference_log.request)
    else:
        raise DecodeError(f"its kind is {kind}, not a log of Predict, Classify, Regress or MultiInference.")
