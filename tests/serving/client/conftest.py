"""A stub of a model server, in process: it answers by simple rules, fails when told to, and remembers what it was sent."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

SLATE = {
    "user": (types_pb2.DT_STRING, 1),
    "candidates": (types_pb2.DT_STRING, 2),
    "time": (types_pb2.DT_INT64, 1),
    "store": (types_pb2.DT_STRING, 1),
}
HISTORY = {
    "history_items": (types_pb2.DT_STRING, 2),
    "history_behaviours": (types_pb2.DT_STRING, 2),
    "history_times": (types_pb2.DT_INT64, 2),
    "history_store": (types_pb2.DT_STRING, 2),
    "age": (types_pb2.DT_STRING, 1),
}
SIGNATURES = {"rank_known_user": SLATE, "rank": SLATE | HISTORY, "explain": SLATE}


class StubRanker(prediction_service_pb2_grpc.PredictionServiceServicer, model_service_pb2_grpc.ModelServiceServicer):
    """Candidate `i7` has the probability 0.7, or 1.0 where the request's history has it with the behaviour 1.

    Nothing is likely where the store is closed. Slates are padded by one, as TensorFlow Serving pads those of a batch.
    """

    def __init__(self) -> None:
        self.signatures = dict(SIGNATURES)
        self.failures: deque[grpc.StatusCode] = deque()  # of the next calls, one each
        self.calls: Counter[str] = Counter()
        self.inputs: dict[str, np.ndarray] = {}  # of the last Predict
        self.next_item = b"i5-next"
        self.has_reasons = False
        self.released = threading.Event()  # Unset, Predict waits for it.
        self.released.set()

    def Predict(self, request, context):
        self._begin("Predict", context)
        self.released.wait(10)
        name = request.model_spec.signature_name
        self.inputs = {key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()}
        received = {key: (tensor.dtype, tensor.tensor_shape.dim.__len__()) for key, tensor in request.inputs.items()}
        if received != self.signatures[name]:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{name} takes {sorted(self.signatures[name])}")
        candidates = np.pad(self.inputs["candidates"], [(0, 0), (0, 1)], constant_values=b"")
        probabilities = np.array([self._rank(row, b) for b, row in enumerate(candidates)], np.float32)
        outputs = {"probabilities": probabilities}
        if name == "explain":
            outputs |= self._explain(candidates)
        response = predict_pb2.PredictResponse()
        for key in request.output_filter:
            response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
        return response

    def _rank(self, row: np.ndarray, b: int) -> list[float]:
        liked = set()
        if "history_items" in self.inputs:
            liked = set(self.inputs["history_items"][b][self.inputs["history_behaviours"][b] == b"1"])
        is_open = self.inputs["store"][b] != b"closed"
        return [is_open * (1.0 if item in liked else int(item[1:] or 0) / 10.0) for item in row]

    def _explain(self, candidates: np.ndarray) -> dict[str, np.ndarray]:
        shape = (*candidates.shape, 2)  # [B, C, K]: one neighbour, and one padding
        twin = np.full(shape, b"", object)
        twin[..., 0] = self.inputs["user"][:, np.newaxis] + b"-twin"
        following = np.full((*shape, 2), b"", object)
        following[..., 0, 0] = self.next_item
        reasons = (*candidates.shape, 2)  # one, and one padding
        return {
            "because_item": np.broadcast_to(np.array([b"x", b""], object), reasons),
            "because_went_on": np.broadcast_to(np.array([41, 0]), reasons),
            "because_times": np.broadcast_to(np.array([1212, 0]), reasons),
            "neighbour_user": twin,
            "neighbour_item": np.where(twin != b"", candidates[..., np.newaxis], b""),
            "neighbour_time": np.broadcast_to(self.inputs["time"][:, np.newaxis, np.newaxis] - 60, shape),
            "neighbour_score": np.full(shape, 2.5, np.float32),
            "attention": np.full(shape, 1.0, np.float32),
            "neighbour_next_items": following,
        }

    def Classify(self, request, context):
        self._begin("Classify", context)
        response = classification_pb2.ClassificationResponse()
        for probability in self._score_examples(request):
            classes = response.result.classifications.add().classes
            classes.add(label="negative", score=1.0 - probability)
            classes.add(label="positive", score=probability)
        return response

    def Regress(self, request, context):
        self._begin("Regress", context)
        response = regression_pb2.RegressionResponse()
        for probability in self._score_examples(request):
            response.result.regressions.add(value=probability)
        return response

    def _score_examples(self, request) -> list[float]:
        probabilities = []
        for example in request.input.example_list.examples:
            features = example.features.feature
            (item,) = features["item"].bytes_list.value
            (time,) = features["time"].int64_list.value
            is_open = list(features["store"].bytes_list.value) != [b"closed"]
            probabilities.append(int(item[1:]) / 10.0 if time > 0 and is_open else 0.0)
        return probabilities

    def GetModelMetadata(self, request, context):
        self._begin("GetModelMetadata", context)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, inputs in self.signatures.items():
            signature = signatures.signature_def[name]
            for key, (dtype, rank) in inputs.items():
                signature.inputs[key].dtype = dtype
                for _ in range(rank):
                    signature.inputs[key].tensor_shape.dim.add(size=-1)
            signature.outputs["mask"].dtype = types_pb2.DT_BOOL
            signature.outputs["mask"].tensor_shape.unknown_rank = True
            for key in ("because_item", "because_went_on", "because_times") if self.has_reasons else ():
                signature.outputs[key].tensor_shape.unknown_rank = True
        signatures.signature_def["__saved_model_init_op"].SetInParent()
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
        response.model_spec.version.value = 3
        response.metadata["signature_def"].Pack(signatures)
        return response

    def GetModelStatus(self, request, context):
        self._begin("GetModelStatus", context)
        if request.model_spec.name != "stub":
            context.abort(grpc.StatusCode.NOT_FOUND, "This server serves the model stub only.")
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(version=2, state=get_model_status_pb2.ModelVersionStatus.END)
        response.model_version_status[0].status.error_message = "out of memory"
        response.model_version_status.add(version=3, state=get_model_status_pb2.ModelVersionStatus.AVAILABLE)
        return response

    def _begin(self, method: str, context: grpc.ServicerContext) -> None:
        self.calls[method] += 1
        if self.failures:
            context.abort(self.failures.popleft(), "as told")


@contextmanager
def serve(stub: StubRanker, credentials: grpc.ServerCredentials | None = None, port: int = 0) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(stub, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(stub, server)
    checks = health.HealthServicer()
    checks.set("", health_pb2.HealthCheckResponse.SERVING)
    checks.set("draining", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    address = f"localhost:{port}"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        stub.released.set()
        server.stop(grace=None).wait()


@pytest.fixture
def stub() -> StubRanker:
    return StubRanker()


@pytest.fixture
def target(stub: StubRanker) -> Iterator[str]:
    with serve(stub) as address:
        yield address


@pytest.fixture
def serve_stub(stub: StubRanker) -> Callable[..., AbstractContextManager[str]]:
    """`serve`, with the test's stub."""
    return partial(serve, stub)
