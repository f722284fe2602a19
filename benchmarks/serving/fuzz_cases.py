"""Malformed requests, drawn from a seed, with the statuses that each may get. Imports no TensorFlow."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from benchmarks.serving.fuzz_case import INVALID, NOT_FOUND, OK, TOO_LARGE, Case, predict_case
from benchmarks.serving.fuzz_examples import EXAMPLE_KINDS, ExampleSources
from serving.published_protos import predict_pb2, tensor_pb2, tensor_shape_pb2, types_pb2

_GIANT, _GIANT_SHARE = "giant message", 0.01
_INT64_MAX = (1 << 63) - 1
_NOT_TEXT = b"\xff\xfe\x80"
_WRONG_VALUES: dict[int, tuple[str, list[Any]]] = {
    types_pb2.DT_FLOAT: ("float_val", [float("nan"), 1.5]),
    types_pb2.DT_DOUBLE: ("double_val", [float("nan"), float("inf")]),
    types_pb2.DT_INT32: ("int_val", [7]),
    types_pb2.DT_INT64: ("int64_val", [7]),
    types_pb2.DT_BOOL: ("bool_val", [True]),
    types_pb2.DT_STRING: ("string_val", [b"yesterday", b"nan"]),
    types_pb2.DT_COMPLEX64: ("scomplex_val", [1.0, 2.0]),
    types_pb2.DT_VARIANT: ("variant_val", []),
    types_pb2.DT_RESOURCE: ("resource_handle_val", []),
    types_pb2.DT_INVALID: ("string_val", []),
    1_000: ("string_val", [b"x"]),
}
_Shape = tensor_shape_pb2.TensorShapeProto


class Sources(NamedTuple):
    """What malformed requests are made of.

    Attributes:
        predict: well-formed requests, of one slate each.
        examples: for Classify, Regress and the signatures of tf.Examples.
        max_request_bytes: the server's limit.
    """

    predict: list[bytes]
    examples: ExampleSources
    max_request_bytes: int


def draw_cases(sources: Sources, count: int, seed: int) -> Iterator[Case]:
    """Draws cases; giant ones, which take long to send, are one in a hundred."""
    rng = random.Random(seed)
    kinds = [*_PREDICT_KINDS, *EXAMPLE_KINDS]
    for _ in range(count):
        kind = _GIANT if rng.random() < _GIANT_SHARE else rng.choice(kinds)
        if kind == _GIANT:
            case = _giant(rng, sources)
        elif kind in _PREDICT_KINDS:
            case = _PREDICT_KINDS[kind](rng, _draw_request(rng, sources))
        else:
            case = EXAMPLE_KINDS[kind](rng, sources.examples)
        yield case._replace(kind=kind)


def _draw_request(rng: random.Random, sources: Sources) -> predict_pb2.PredictRequest:
    return predict_pb2.PredictRequest.FromString(rng.choice(sources.predict))


def _draw_input(rng: random.Random, request: predict_pb2.PredictRequest) -> tensor_pb2.TensorProto:
    return request.inputs[rng.choice(sorted(request.inputs))]


def _set_shape(tensor: tensor_pb2.TensorProto, sizes: list[int]) -> None:
    tensor.tensor_shape.CopyFrom(_Shape(dim=[_Shape.Dim(size=size) for size in sizes]))


def _giant(rng: random.Random, sources: Sources) -> Case:
    request = _draw_request(rng, sources)
    request.inputs["user"].string_val.append(b"u" * (sources.max_request_bytes + rng.randrange(1 << 20)))
    return predict_case(request, TOO_LARGE)


def _wrong_dtype(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    tensor = _draw_input(rng, request)
    dtype = rng.choice([dtype for dtype in _WRONG_VALUES if dtype != tensor.dtype])
    field, values = _WRONG_VALUES[dtype]
    shape = _Shape.FromString(tensor.tensor_shape.SerializeToString())
    tensor.Clear()
    tensor.dtype = dtype
    tensor.tensor_shape.CopyFrom(shape)
    getattr(tensor, field).extend(values)
    return predict_case(request, INVALID)


def _wrong_time(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    dtype = rng.choice([types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE, types_pb2.DT_STRING])
    field, values = _WRONG_VALUES[dtype]
    request.inputs["time"].Clear()
    request.inputs["time"].dtype = dtype
    getattr(request.inputs["time"], field).append(values[0])
    _set_shape(request.inputs["time"], [1])
    return predict_case(request, INVALID)


def _extreme_time(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    request.inputs["time"].Clear()
    request.inputs["time"].dtype = types_pb2.DT_INT64
    request.inputs["time"].int64_val.append(rng.choice([-_INT64_MAX - 1, -1, 0, _INT64_MAX]))
    _set_shape(request.inputs["time"], [1])
    return predict_case(request, OK)


def _wrong_rank(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    tensor = _draw_input(rng, request)
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    _set_shape(tensor, rng.choice([sizes + [1], [1, *sizes], [1] * 300, []]))
    return predict_case(request, INVALID)


def _wrong_declared_size(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    tensor = _draw_input(rng, request)
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    sizes[rng.randrange(len(sizes))] = rng.choice([-1, -5, -_INT64_MAX - 1, 1 << 31, 1 << 40, 1 << 62, _INT64_MAX])
    _set_shape(tensor, sizes)
    return predict_case(request, INVALID)


def _unknown_rank(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    _draw_input(rng, request).tensor_shape.unknown_rank = True
    return predict_case(request, INVALID)


def _values_do_not_fill(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    tensor = request.inputs[rng.choice(["user", "candidates"])]
    if rng.random() < 0.5:
        tensor.string_val.extend([b"more"] * rng.randint(1, 1_000))
    else:
        del tensor.string_val[:]
    return predict_case(request, INVALID)


def _wrong_content(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    tensor = request.inputs["time"]
    tensor.Clear()
    tensor.dtype = types_pb2.DT_INT64
    _set_shape(tensor, [1])
    tensor.tensor_content = rng.randbytes(rng.choice([1, 7, 9, 16, 1_000]))
    return predict_case(request, INVALID)


def _disagreeing_batch(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    tensor = _draw_input(rng, request)
    tensor.tensor_shape.dim[0].size = rng.choice([0, 2, 3, 64])
    return predict_case(request, INVALID)


def _missing_input(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    del request.inputs[rng.choice(sorted(request.inputs))]
    return predict_case(request, INVALID)


def _extra_input(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    name = rng.choice(["", "Time", "candidates ", "history", "x" * 5_000, "\x00", "été"])
    request.inputs[name].CopyFrom(_draw_input(rng, request))
    return predict_case(request, INVALID)


def _renamed_input(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    name = rng.choice(sorted(request.inputs))
    request.inputs[name + rng.choice(["s", "_", ":0"])].CopyFrom(request.inputs[name])
    del request.inputs[name]
    return predict_case(request, INVALID)


def _no_inputs(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    request.ClearField("inputs")
    return predict_case(request, INVALID)


def _ids_that_are_not_text(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    strings = request.inputs[rng.choice(["user", "candidates"])].string_val
    strings[rng.randrange(len(strings))] = rng.choice([_NOT_TEXT, b"\x00", b"\xff" * 10_000, rng.randbytes(30)])
    return predict_case(request, OK)


def _names_that_are_not_text(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    name = rng.choice([request.model_spec.name, request.model_spec.signature_name, "candidates", "time"]).encode()
    data = request.SerializeToString().replace(name, _NOT_TEXT[:1] * len(name), 1)
    return Case("", "Predict", data, INVALID)


def _truncated(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    data = request.SerializeToString(deterministic=True)
    data = data[: rng.randrange(len(data))]
    return Case("", "Predict", data, OK if _has_same_inputs(data, request) else INVALID)


def _has_same_inputs(data: bytes, request: predict_pb2.PredictRequest) -> bool:
    """Whether what is left of a request asks the same: it may have lost its output filter alone."""
    found = predict_pb2.PredictRequest()
    try:
        found.ParseFromString(data)
    except DecodeError:
        return False
    found.ClearField("output_filter")
    expected = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    expected.ClearField("output_filter")
    return found == expected


def _flipped_bytes(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    data = bytearray(request.SerializeToString())
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return Case("", "Predict", bytes(data), OK | INVALID | NOT_FOUND)  # an id may have changed, or the model's name


def _noise(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    return Case("", rng.choice(["Predict", "Classify", "Regress"]), rng.randbytes(rng.randrange(2_000)), INVALID)


def _unknown_model(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    request.model_spec.name += rng.choice(["x", " ", "/", "é"])
    return predict_case(request, NOT_FOUND)


def _no_model(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    request.ClearField("model_spec")
    return predict_case(request, INVALID)


def _unknown_version(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    if rng.random() < 0.5:
        request.model_spec.version.value = rng.choice([-1, 0, 999_999, _INT64_MAX])
    else:
        request.model_spec.version_label = rng.choice(["", "stable", "é" * 100])
    return predict_case(request, NOT_FOUND)


def _unknown_signature(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    request.model_spec.signature_name += rng.choice(["x", " ", "\n" * 3_000])
    return predict_case(request, INVALID)


def _unknown_output(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    request.output_filter.append(rng.choice(["", "logits", "probabilities", "é" * 5_000]))
    return predict_case(request, INVALID)


def _nothing_to_rank(rng: random.Random, request: predict_pb2.PredictRequest) -> Case:
    _set_shape(request.inputs["candidates"], [1, 0])
    del request.inputs["candidates"].string_val[:]
    return predict_case(request, OK | INVALID)  # an empty slate has an empty answer


_PREDICT_KINDS = {
    "wrong dtype": _wrong_dtype,
    "NaN or text as time": _wrong_time,
    "extreme time (legal)": _extreme_time,
    "wrong rank": _wrong_rank,
    "negative or giant size": _wrong_declared_size,
    "unknown rank": _unknown_rank,
    "values do not fill the shape": _values_do_not_fill,
    "wrong tensor_content": _wrong_content,
    "batch sizes disagree": _disagreeing_batch,
    "missing input": _missing_input,
    "extra input": _extra_input,
    "renamed input": _renamed_input,
    "no inputs": _no_inputs,
    "ids that are not UTF-8 (legal)": _ids_that_are_not_text,
    "names that are not UTF-8": _names_that_are_not_text,
    "truncated": _truncated,
    "flipped bytes": _flipped_bytes,
    "noise": _noise,
    "unknown model": _unknown_model,
    "no model": _no_model,
    "unknown version or label": _unknown_version,
    "unknown signature": _unknown_signature,
    "unknown or repeated output": _unknown_output,
    "no candidates": _nothing_to_rank,
}
