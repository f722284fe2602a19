"""The methods of PredictionService through the generated stubs, as any client of TensorFlow Serving calls them."""

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
    input_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from serving.server_options import ServerOptions

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
        f"at most {ServerOptions.max_input_values} values an input. Received: {1 << 40}.",
    ),
    "huge batch": (
        {
            "user": proto_of(tf.string, [1 << 14], string_val=[b"a"]),
            "store": proto_of(tf.string, [1 << 14], string_val=[b"a"]),
            "candidates": proto_of(tf.string, [1 << 14, 1], string_val=[b"a"]),
            "time": proto_of(tf.int64, [1 << 14], int64_val=[1]),
        },
        f"batches of at most {ServerOptions.max_batch_size}. Received: {1 << 14}.",
    ),
    "batch sizes that differ": (
        {"user": tf.constant(["u1"])},
        "must have the same batch size, their first dimension. "
        "Received: {'candidates': 2, 'store': 2, 'time': 2, 'user': 1}.",
    ),
    "no values": ({"user": proto_of(tf.string, [2])}, "Received: one of string and shape [2] that cannot be decoded."),
    "values in the field of another dtype": (
        {"time": proto_of(tf.int64, [2], float_val=[1.0, 2.0])},
        "Received: one of int64 and shape [2] that cannot be decoded.",
    ),
    "values that the model refuses, no UTF-8": (
        {"candidates": tf.constant([[b"\xff\xfe"], [b"i2"]])},
        "Signature `rank_known_user` failed on the values it received:",
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
    assert "has the versions [3] of `tiny`. Received: version 2." in message

    request.model_spec.version_label = "stable"
    code, message = error_of(stub.Predict, request)
    assert code == grpc.StatusCode.NOT_FOUND
    assert "has the version labels []. Received: `stable`." in message

    request.model_spec.name = "huge"
    code, message = error_of(stub.Predict, request)
    assert code == grpc.StatusCode.NOT_FOUND
    assert "serves the models ['scorer', 'tiny']. Received: `huge`." in message

    code, message = error_of(stub.Predict, predict_pb2.PredictRequest())
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "Received: an empty model_spec.name. Set it to one of ['scorer', 'tiny']." in message


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


def test_ids_that_are_no_text_are_ids_as_any_other(stub):
    request = rank_request(user=tf.constant([b"\xff\x00", b""]))
    request.model_spec.signature_name = "explain"
    response = stub.Predict(request, timeout=TIMEOUT_SECONDS)
    assert tf.make_ndarray(response.outputs["neighbour_user"])[0, 0, 0] == b"\xff\x00-twin"


def examples_input(items: list[str], **context: str) -> input_pb2.Input:
    examples = input_pb2.Input()
    listed = examples.example_list_with_context if context else examples.example_list
    for item in items:
        feature = listed.examples.add().features.feature
        feature["user"].bytes_list.value.append(b"u1")
        feature["item"].bytes_list.value.append(item.encode())
        feature["time"].int64_list.value.append(1000)
    for name, value in context.items():
        features = examples.example_list_with_context.context.features
        features.feature[name].bytes_list.value.append(value.encode())
    return examples


def scorer_request(kind: type, signature_name: str, examples: input_pb2.Input):
    request = kind(input=examples)
    request.model_spec.name = "scorer"
    request.model_spec.signature_name = signature_name
    return request


def test_classify(stub):
    request = scorer_request(classification_pb2.ClassificationRequest, "classify", examples_input(["i7", "i2"]))
    response = stub.Classify(request, timeout=TIMEOUT_SECONDS)
    rows = [[(c.label, c.score) for c in row.classes] for row in response.result.classifications]
    assert rows == [
        [("negative", pytest.approx(0.3)), ("positive", pytest.approx(0.7))],
        [("negative", pytest.approx(0.8)), ("positive", pytest.approx(0.2))],
    ]
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (1, "classify")


def test_regress_and_the_context_that_examples_share(stub):
    request = scorer_request(regression_pb2.RegressionRequest, "regress", examples_input(["i7", "i2"]))
    response = stub.Regress(request, timeout=TIMEOUT_SECONDS)
    assert [row.value for row in response.result.regressions] == pytest.approx([0.7, 0.2])
    assert response.model_spec.name == "scorer"

    request.input.CopyFrom(examples_input(["i7", "i2"], store="closed"))
    request.input.example_list_with_context.examples[0].features.feature["store"].bytes_list.value.append(b"open")
    response = stub.Regress(request, timeout=TIMEOUT_SECONDS)
    assert [row.value for row in response.result.regressions] == pytest.approx([0.7, 0.0])


def multi_request(*tasks: tuple[str, str, str]) -> inference_pb2.MultiInferenceRequest:
    request = inference_pb2.MultiInferenceRequest(input=examples_input(["i7"]))
    for model_name, signature_name, method in tasks:
        task = request.tasks.add(method_name=f"tensorflow/serving/{method}")
        task.model_spec.name, task.model_spec.signature_name = model_name, signature_name
    return request


def test_multi_inference(stub):
    request = multi_request(("scorer", "regress", "regress"), ("scorer", "classify", "classify"))
    regressed, classified = stub.MultiInference(request, timeout=TIMEOUT_SECONDS).results
    assert regressed.regression_result.regressions[0].value == pytest.approx(0.7)
    assert classified.classification_result.classifications[0].classes[1].score == pytest.approx(0.7)
    assert (classified.model_spec.signature_name, classified.model_spec.version.value) == ("classify", 1)


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ([], "must have a task. Received: none."),
        ([("scorer", "regress", "regress")] * 2, "the signatures ['regress', 'regress']"),
        ([("scorer", "regress", "regress"), ("tiny", "count", "regress")], "the models ['scorer', 'tiny']"),
        ([("scorer", "version", "predict")], "Received: `tensorflow/serving/predict`. Use Predict"),
        ([("scorer", "classify", "regress")], "Received: `classify` of `tensorflow/serving/classify` with ['inputs']."),
    ],
)
def test_wrong_tasks(stub, tasks, expected):
    code, message = error_of(stub.MultiInference, multi_request(*tasks))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert expected in message


def wrong_time() -> input_pb2.Input:
    examples = examples_input(["i7"])
    examples.example_list.examples[0].features.feature["time"].float_list.value.append(1.0)
    return examples


@pytest.mark.parametrize(
    ("examples", "expected"),
    [
        (input_pb2.Input(), f"must bring 1 to {ServerOptions.max_batch_size} examples. Received: 0."),
        (wrong_time(), "Signature `regress` failed on the values it received:"),
        (examples_input(["apple"]), "Signature `regress` failed on the values it received:"),
    ],
    ids=["none", "dtype", "value"],
)
def test_wrong_examples(stub, examples, expected):
    request = scorer_request(regression_pb2.RegressionRequest, "regress", examples)
    code, message = error_of(stub.Regress, request)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert expected in message


@pytest.mark.parametrize("method", ["Predict", "Classify", "Regress", "MultiInference", "GetModelMetadata"])
@pytest.mark.parametrize(
    "data",
    [b"\x0a\xff", rank_request().SerializeToString()[:-3], b"\x0a\x03\x0a\x01\xff"],
    ids=["cut off in a length", "cut off in a tensor", "name not UTF-8"],
)
def test_bytes_that_are_no_request_are_invalid_arguments(target, method, data):
    with grpc.insecure_channel(target) as channel:
        code, message = error_of(channel.unary_unary(f"/tensorflow.serving.PredictionService/{method}"), data)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert f"Received: {len(data)} bytes that are none" in message
