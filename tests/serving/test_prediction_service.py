"""Predict and GetModelMetadata through the generated stubs, as any client of TensorFlow Serving calls them."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    inference_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving.request_checks import MAX_TENSOR_ELEMENTS

TIMEOUT_SECONDS = 20


@pytest.fixture(scope="module")
def stub(target):
    with grpc.insecure_channel(target) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def rank_request(**inputs) -> predict_pb2.PredictRequest:
    """A right request for two users, with `inputs` in place of its own; None takes one out."""
    right = {
        "user": tf.constant(["u1", "u2"]),
        "candidates": tf.constant([["i7", "i2", "i9"], ["i1", "", ""]]),
        "time": tf.constant([1000, 2000], tf.int64),
        "store": tf.constant(["s", "s"]),
    }
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "rank_known_user"
    for name, value in {**right, **inputs}.items():
        if value is not None:
            proto = value if isinstance(value, TensorProto) else tf.make_tensor_proto(value)
            request.inputs[name].CopyFrom(proto)
    return request


def error_of(call, request) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=TIMEOUT_SECONDS)
    return caught.value.code(), caught.value.details()


def test_predict_answers_with_typed_values(stub):
    response = stub.Predict(rank_request(), timeout=TIMEOUT_SECONDS)
    assert set(response.outputs) == {"probabilities", "mask"}
    # TensorFlow Serving answers in the typed fields, and its users read them.
    np.testing.assert_allclose(response.outputs["probabilities"].float_val, [0.7, 0.2, 0.9, 0.1, 0, 0], rtol=1e-6)
    assert [dim.size for dim in response.outputs["probabilities"].tensor_shape.dim] == [2, 3]
    assert list(response.outputs["mask"].bool_val) == [True, True, True, True, False, False]
    assert response.model_spec.name == "tiny"
    assert response.model_spec.version.value == 3
    assert response.model_spec.signature_name == "rank_known_user"


def test_explain_answers_with_strings_of_rank_four(stub):
    request = rank_request()
    request.model_spec.signature_name = "explain"
    response = stub.Predict(request, timeout=TIMEOUT_SECONDS)
    next_items = tf.make_ndarray(response.outputs["neighbour_next_items"])
    assert next_items.shape == (2, 3, 2, 2)
    assert next_items[0, 2].tolist() == [[b"i9-next", b""], [b"", b""]]
    assert tf.make_ndarray(response.outputs["neighbour_time"])[1, 0].tolist() == [1940, 0]


def test_no_signature_name_is_serving_default(stub):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["examples"].CopyFrom(tf.make_tensor_proto([b"ab", b"\xff\x00c"]))
    response = stub.Predict(request, timeout=TIMEOUT_SECONDS)
    assert tf.make_ndarray(response.outputs["probabilities"]).tolist() == [[2.0], [3.0]]
    assert response.model_spec.signature_name == "serving_default"


def test_typed_values_and_raw_bytes_mean_the_same(stub):
    typed = TensorProto(dtype=tf.int64.as_datatype_enum, int64_val=[5])
    raw = TensorProto(dtype=tf.int64.as_datatype_enum, tensor_content=np.int64(5).tobytes())
    for proto in (typed, raw):
        proto.tensor_shape.dim.add(size=1)
        request = count_request(proto)
        response = stub.Predict(request, timeout=TIMEOUT_SECONDS)
        assert tf.make_ndarray(response.outputs["counted"]) == 10


def count_request(steps: TensorProto) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "count"
    request.inputs["steps"].CopyFrom(steps)
    return request


def test_input_with_a_default_may_be_left_out_or_given(stub):
    request = count_request(tf.make_tensor_proto([4], tf.int64))
    assert tf.make_ndarray(stub.Predict(request, timeout=TIMEOUT_SECONDS).outputs["counted"]) == 8
    request.inputs["stride"].CopyFrom(tf.make_tensor_proto(3, tf.int64))
    response = stub.Predict(request, timeout=TIMEOUT_SECONDS)
    assert tf.make_ndarray(response.outputs["counted"]) == 12
    assert tf.make_ndarray(response.outputs["half"]) == np.float16(4)


def test_output_filter_leaves_the_others_out(stub):
    request = rank_request()
    request.output_filter.append("mask")
    assert set(stub.Predict(request, timeout=TIMEOUT_SECONDS).outputs) == {"mask"}


@pytest.mark.parametrize("names", [["masks"], ["mask", "mask"]])
def test_output_filter_must_name_outputs_once(stub, names):
    request = rank_request()
    request.output_filter.extend(names)
    code, message = error_of(stub.Predict, request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"each once: ['mask', 'probabilities']. Received: {names}." in message


def proto_of(dtype: tf.DType, sizes: list[int], **values) -> TensorProto:
    proto = TensorProto(dtype=dtype.as_datatype_enum, **values)
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    return proto


WRONG_INPUTS = {
    "dtype": (
        {"time": tf.constant([1.5, 2.5])},
        "Input `time` of signature `rank_known_user` must be int64 of shape [?]. Received: float32 of shape [2]. "
        "Send the values as int64.",
    ),
    "rank": (
        {"candidates": tf.constant(["i7", "i2"])},
        "Input `candidates` of signature `rank_known_user` must be string of shape [?, ?]. Received: shape [2].",
    ),
    "scalar": ({"user": tf.constant("u1")}, "must be string of shape [?]. Received: shape []."),
    "missing": ({"time": None}, "['candidates', 'store', 'user']. Please add ['time']."),
    "unknown": ({"hour": tf.constant([1])}, "Please remove ['hour']."),
    "misspelt": ({"user": None, "usr": tf.constant(["u"])}, "Please add ['user'] and remove ['usr']."),
    "bytes that are no int64": (
        {"time": proto_of(tf.int64, [2], tensor_content=b"123")},
        "Input `time` must be a TensorProto whose values fill its shape. Received: one of int64 and shape [2] that "
        "cannot be decoded.",
    ),
    "bytes that are no strings": (
        {"user": proto_of(tf.string, [2], tensor_content=b"\xff\xff")},
        "Input `user` must be a TensorProto whose values fill its shape.",
    ),
    "surplus values": (
        {"user": proto_of(tf.string, [2], string_val=[b"a", b"b", b"c"])},
        "Received: 3 values for the declared shape [2], which holds 2.",
    ),
    "negative size": ({"user": proto_of(tf.string, [-1], string_val=[b"a"])}, "shape [?] is not fully known."),
    "unknown dtype": ({"user": TensorProto(dtype=999)}, "Received: unknown dtype 999 of shape []."),
    "huge shape": (
        {"user": proto_of(tf.string, [1 << 40], string_val=[b"a"])},
        f"at most {MAX_TENSOR_ELEMENTS} values an input. Received: {1 << 40}.",
    ),
    "values that the model refuses": (
        {"candidates": tf.constant([["apple"], ["i2"]])},
        "Signature `rank_known_user` failed on the values it received:",
    ),
}


@pytest.mark.parametrize(("inputs", "expected"), WRONG_INPUTS.values(), ids=WRONG_INPUTS.keys())
def test_wrong_inputs_are_invalid_arguments(stub, inputs, expected):
    code, message = error_of(stub.Predict, rank_request(**inputs))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert expected in message


def test_wrong_fixed_size_is_an_invalid_argument(stub):
    code, message = error_of(stub.Predict, count_request(tf.make_tensor_proto([1, 2], tf.int64)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "must be int64 of shape [1]. Received: shape [2]." in message


def test_long_names_are_cut_so_that_the_status_still_arrives(stub):
    code, message = error_of(stub.Predict, rank_request(**{"x" * 100_000: tf.constant(1)}))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message.endswith("...")


def test_unknown_signature(stub):
    request = rank_request()
    request.model_spec.signature_name = "__saved_model_init_op"
    code, message = error_of(stub.Predict, request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "['count', 'explain', 'rank_known_user', 'serving_default']. Received: `__saved_model_init_op`." in message


def test_model_spec_must_name_the_served_model_and_version(stub):
    request = rank_request()
    request.model_spec.version.value = 3
    stub.Predict(request, timeout=TIMEOUT_SECONDS)

    request.model_spec.version.value = 2
    code, message = error_of(stub.Predict, request)
    assert code == grpc.StatusCode.NOT_FOUND
    assert "serves version 3 of `tiny` only. Received: 2." in message

    request.model_spec.version_label = "stable"
    code, message = error_of(stub.Predict, request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "knows no version labels. Received: `stable`." in message

    request.model_spec.name = "huge"
    code, message = error_of(stub.Predict, request)
    assert code == grpc.StatusCode.NOT_FOUND
    assert "serves the model `tiny` only. Received: `huge`." in message

    code, message = error_of(stub.Predict, predict_pb2.PredictRequest())
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "Received: an empty model_spec.name. Set it to `tiny`." in message


def test_metadata_is_the_saved_models_signature_map(stub, model_base_path):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    response = stub.GetModelMetadata(request, timeout=TIMEOUT_SECONDS)
    assert response.model_spec.version.value == 3
    signature_map = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signature_map)
    assert set(signature_map.signature_def) == {
        "__saved_model_init_op",
        "count",
        "explain",
        "rank_known_user",
        "serving_default",
    }
    rank = signature_map.signature_def["rank_known_user"]
    assert rank.inputs["time"].dtype == tf.int64.as_datatype_enum
    assert [dim.size for dim in rank.inputs["candidates"].tensor_shape.dim] == [-1, -1]
    assert rank.method_name == "tensorflow/serving/predict"


@pytest.mark.parametrize("fields", [[], ["assets"], ["signature_def", "assets"]])
def test_metadata_knows_one_field(stub, fields):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "tiny"
    code, message = error_of(stub.GetModelMetadata, request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"metadata_field must be [`signature_def`], the only metadata there is. Received: {fields}." in message


def test_metadata_of_another_model_is_not_found(stub):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "huge"
    assert error_of(stub.GetModelMetadata, request)[0] == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("Classify", classification_pb2.ClassificationRequest),
        ("Regress", regression_pb2.RegressionRequest),
        ("MultiInference", inference_pb2.MultiInferenceRequest),
    ],
)
def test_other_calls_are_unimplemented(stub, method, request_type):
    code, message = error_of(getattr(stub, method), request_type())
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert f"Received: {method}. Use TensorFlow Serving for it." in message
