"""Answers that no server of our models gives, read by the client."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
    regression_pb2,
)

from serving.answers import Explanation, Reason
from serving.model_messages import read_metadata, read_version_statuses
from serving.pair_messages import build_examples, read_classifications, read_regressions
from serving.rank_request import RankRequest, UserItemPair
from serving.ranking_messages import build_predict_request, read_explanations, read_ranked_items

SLATE_INPUTS = ["user", "candidates", "time"]
NEIGHBOURS = {
    "neighbour_user": np.bytes_,
    "neighbour_item": np.bytes_,
    "neighbour_time": np.int64,
    "neighbour_score": np.float32,
    "attention": np.float32,
}
PAIRS = [UserItemPair("u", "a")]


def answer(**outputs) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse()
    for name, value in outputs.items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return response


def test_requests_ask_for_the_outputs_that_are_read():
    requests = [RankRequest("u", ["a"])]
    ranking = build_predict_request("tiny", "rank_known_user", requests, SLATE_INPUTS, now=5)
    assert list(ranking.output_filter) == ["probabilities"]
    explaining = build_predict_request("tiny", "explain", requests, SLATE_INPUTS, now=5)
    assert "neighbour_next_items" in explaining.output_filter and "because_item" not in explaining.output_filter
    with_tables = {"because_item", "because_went_on", "because_times"}
    asked = build_predict_request("tiny", "explain", requests, SLATE_INPUTS, 5, with_tables).output_filter
    assert with_tables <= set(asked) and len(asked) == len(set(asked))
    assert tf.make_ndarray(explaining.inputs["time"]).tolist() == [5]
    assert (explaining.model_spec.name, explaining.model_spec.signature_name) == ("tiny", "explain")


def test_answers_padded_to_the_longest_slate_of_a_batch_are_read():
    (ranked,) = read_ranked_items(answer(probabilities=[[0.1, 0.9, 0.1, 0.1]]), [RankRequest("u", ["a", "b"])])
    assert [row.item for row in ranked] == ["b", "a"]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"scores": [[1.0]]}, r"must have the output `probabilities`. Received: \['scores'\]"),
        ({"probabilities": [[1.0]]}, r"begin with \[1, 2\]. Received: float32, shape \[1, 1\]"),
        ({"probabilities": [[1.0, 0.5]] * 2}, r"begin with \[1, 2\]. Received: float32, shape \[2, 2\]"),
        ({"probabilities": 1.0}, r"rank 2 .* Received: float32, shape \[\]"),
        ({"probabilities": [["a", "b"]]}, r"must be float32.* Received: string"),
    ],
)
def test_answers_of_another_model_are_refused(outputs, message):
    with pytest.raises(ValueError, match=message):
        read_ranked_items(answer(**outputs), [RankRequest("u", ["a", "b"])])


def test_reasons_are_read_without_padding():
    empty = {name: np.empty((1, 2, 0), kind) for name, kind in NEIGHBOURS.items()}
    response = answer(
        probabilities=[[0.4, 0.6]],
        neighbour_next_items=np.empty((1, 2, 0, 1), np.bytes_),
        because_item=[[["x", "y\N{SNOWMAN}"], ["x", ""]]],
        because_went_on=np.array([[[41, 3], [7, 0]]], np.int64),
        because_times=np.array([[[212, 9], [212, 0]]], np.int64),
        **empty,
    )
    explanations = read_explanations(response, RankRequest("u", ["a", "b"]))
    assert explanations == [
        Explanation("b", pytest.approx(0.6), (), (Reason("x", 7, 212),)),
        Explanation("a", pytest.approx(0.4), (), (Reason("x", 41, 212), Reason("y\N{SNOWMAN}", 3, 9))),
    ]


def test_explanations_of_another_model_are_refused():
    with pytest.raises(ValueError, match="must have the output `neighbour_user`"):
        read_explanations(answer(probabilities=[[1.0]]), RankRequest("u", ["a"]))


def test_examples_have_the_features_of_the_contract():
    (example,) = build_examples([UserItemPair("zoë", "a", context={"store": "s"})], now=5).example_list.examples
    parsed = tf.io.parse_single_example(
        example.SerializeToString(),
        {name: tf.io.FixedLenFeature([], tf.string) for name in ("user", "item", "store")}
        | {"time": tf.io.FixedLenFeature([], tf.int64)},
    )
    assert {name: value.numpy() for name, value in parsed.items()} == {
        "user": "zoë".encode(),
        "item": b"a",
        "store": b"s",
        "time": 5,
    }


def test_pairs_that_cannot_be_asked():
    with pytest.raises(ValueError, match="at least one pair. Received: none"):
        build_examples([], now=5)
    with pytest.raises(ValueError, match=r"must not be user, item or time. Received: \['time'\]"):
        build_examples([UserItemPair("u", "a", context={"time": "7"})], now=5)


def test_pairs_of_another_model_are_refused():
    with pytest.raises(ValueError, match="each of the 1 pairs. Received: 0"):
        read_regressions(regression_pb2.RegressionResponse(), PAIRS)
    response = classification_pb2.ClassificationResponse()
    response.result.classifications.add().classes.add(label="cat", score=1.0)
    with pytest.raises(ValueError, match=r"must have the class `positive`. Received: \['cat'\]"):
        read_classifications(response, PAIRS)


def test_metadata_without_signatures():
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(regression_pb2.RegressionResponse())
    with pytest.raises(ValueError, match="must have a SignatureDefMap.*Received: 0 bytes of `.*RegressionResponse`"):
        read_metadata(response)


def test_signatures_whose_names_are_no_text():
    signatures = get_model_metadata_pb2.SignatureDefMap()
    signatures.signature_def["rank"].SetInParent()
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(signatures)
    response.metadata["signature_def"].value = signatures.SerializeToString().replace(b"rank", b"ran\xff")
    with pytest.raises(ValueError, match="must have a SignatureDefMap.*Received: .* bytes of `.*SignatureDefMap`"):
        read_metadata(response)


def test_states_of_a_later_protocol_are_numbers():
    response = get_model_status_pb2.GetModelStatusResponse()
    response.model_version_status.add(version=1, state=35)
    assert read_version_statuses(response)[0].state == "unknown state 35"
