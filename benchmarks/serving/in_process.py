"""A process that loads the model and calls its signatures, without any server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from benchmarks.serving.request_list import read_requests
from benchmarks.serving.worker import serve_jobs

_WARM_UP_CALLS = 5


def prepare(model_dir: str, num_threads: int) -> tuple[Callable[..., dict[str, Any]], dict[str, Any]]:
    """Loads a model.

    Args:
        model_dir: the version's folder.
        num_threads: of an operation; operations run one after the other.

    Returns:
        What calls it, and the seconds that loading took.
    """
    tf.config.threading.set_intra_op_parallelism_threads(num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    began = time.perf_counter()
    signatures = tf.saved_model.load(model_dir).signatures
    load_seconds = time.perf_counter() - began
    prepared: dict[str, list[tuple[Any, dict[str, np.ndarray]]]] = {}

    def call(requests_path: str, seconds: float, first_request: int = 0) -> dict[str, Any]:
        """Calls a signature on one request after the other: from arrays of ids and times to an array of probabilities."""
        if requests_path not in prepared:
            parsed = [predict_pb2.PredictRequest.FromString(data) for data in read_requests(requests_path)]
            prepared[requests_path] = [
                (signatures[request.model_spec.signature_name], to_arrays(request)) for request in parsed
            ]
            for function, arrays in prepared[requests_path][:_WARM_UP_CALLS]:
                rank(function, arrays)
        calls, end = prepared[requests_path], time.perf_counter() + seconds
        milliseconds: list[float] = []
        while (began := time.perf_counter()) < end or not milliseconds:
            rank(*calls[(first_request + len(milliseconds)) % len(calls)])
            milliseconds.append(1e3 * (time.perf_counter() - began))
        return {"milliseconds": milliseconds}

    return call, {"load_seconds": load_seconds}


def to_arrays(request: predict_pb2.PredictRequest) -> dict[str, np.ndarray]:
    """The inputs of a request, strings as bytes."""
    return {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}


def rank(function: Any, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The probabilities that a signature gives for inputs, float32 [B, C]."""
    outputs = function(**{name: tf.constant(values) for name, values in arrays.items()})
    probabilities: np.ndarray = outputs["probabilities"].numpy()
    return probabilities


if __name__ == "__main__":
    serve_jobs(prepare)
