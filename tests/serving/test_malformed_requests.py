"""Requests that a seeded fuzzer has damaged: each gets INVALID_ARGUMENT or NOT_FOUND, and the server goes on."""

from __future__ import annotations

import random

import grpc
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import predict_pb2

METHOD = "/tensorflow.serving.PredictionService/Predict"
TIMEOUT_SECONDS = 20
REFUSALS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
NUM_REQUESTS = 300


def right_request() -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "explain"
    inputs = {"user": ["u1"], "candidates": [["i7", "i2"]], "time": tf.constant([5], tf.int64), "store": ["s"]}
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def choose_input(request: predict_pb2.PredictRequest, rng: random.Random) -> TensorProto:
    return request.inputs[rng.choice(sorted(request.inputs))]


def change_dtype(request, rng):
    proto = choose_input(request, rng)
    proto.dtype = rng.choice([dtype for dtype in range(130) if dtype != proto.dtype])


def change_size(request, rng):
    proto = choose_input(request, rng)
    size = rng.choice([-1, -(2**63), 3, 2**31, 2**40, 2**63 - 1])
    rng.choice(proto.tensor_shape.dim).size = size


def change_rank(request, rng):
    proto = choose_input(request, rng)
    for _ in range(rng.choice([1, 3, 300])):
        proto.tensor_shape.dim.add(size=1)


def drop_shape(request, rng):
    choose_input(request, rng).ClearField("tensor_shape")


def hide_rank(request, rng):
    choose_input(request, rng).tensor_shape.unknown_rank = True


def drop_values(request, rng):
    proto = choose_input(request, rng)
    for field in ("string_val", "int64_val", "tensor_content"):
        proto.ClearField(field)


def add_values(request, rng):
    request.inputs["user"].string_val.extend([rng.randbytes(5)] * 3)


def put_bytes(request, rng):
    choose_input(request, rng).tensor_content = rng.randbytes(rng.choice([1, 7, 9, 1000]))
    request.inputs["candidates"].string_val[:] = [rng.randbytes(4)]  # No number, as this model needs.


def rename_input(request, rng):
    name = rng.choice(sorted(request.inputs))
    request.inputs[rng.choice(["", "x", name + "\0", "é" * 100])].CopyFrom(request.inputs[name])
    del request.inputs[name]


def rename_model(request, rng):
    request.model_spec.name = rng.choice(["", "Tiny", "tiny\n", "é" * 5000])


def change_version(request, rng):
    request.model_spec.version.value = rng.choice([-1, 0, 2**63 - 1])


def add_label(request, rng):
    request.model_spec.version_label = rng.choice(["", "stable"])


def rename_signature(request, rng):
    request.model_spec.signature_name = rng.choice(["x", "é" * 5000, "__saved_model_init_op"])


def filter_outputs(request, rng):
    request.output_filter.append(rng.choice(["", "x", "\0"]))


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith(("change_", "drop_", "rename_"))]
DAMAGES += [hide_rank, add_values, add_label, filter_outputs, put_bytes]


@pytest.fixture(scope="module")
def call(target):
    with grpc.insecure_channel(target) as channel:
        yield channel.unary_unary(METHOD)


def status_of(call, data: bytes) -> grpc.StatusCode:
    try:
        call(data, timeout=TIMEOUT_SECONDS)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_damaged_requests_are_refused(call):
    rng = random.Random(0)
    for _ in range(NUM_REQUESTS):
        request = right_request()
        damage = rng.choice(DAMAGES)
        damage(request, rng)
        assert status_of(call, request.SerializeToString()) in REFUSALS, (damage.__name__, request)
    assert status_of(call, right_request().SerializeToString()) == grpc.StatusCode.OK


def test_damaged_bytes_are_refused_or_another_request(call):
    rng = random.Random(0)
    right = right_request().SerializeToString()
    codes = set()
    for _ in range(NUM_REQUESTS):
        data = bytearray(right[: rng.randrange(1, len(right))] if rng.random() < 0.5 else right)
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        codes.add(status_of(call, bytes(data)))
    assert codes <= REFUSALS | {grpc.StatusCode.OK}
    assert grpc.StatusCode.INVALID_ARGUMENT in codes
    assert status_of(call, right) == grpc.StatusCode.OK
