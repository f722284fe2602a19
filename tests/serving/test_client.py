from __future__ import annotations

import socket
import time

import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from serving.answers import Explanation, Neighbour, RankedItem, TensorMetadata, VersionStatus
from serving.client import RankingClient, ServingError
from serving.ranking_messages import (
    EXPLAIN_SIGNATURE,
    RANK_SIGNATURE,
    build_predict_request,
    read_explanations,
    read_ranked_items,
)

CONTEXT = {"store": "s"}


@pytest.fixture(scope="module")
def client(target):
    with RankingClient(target, model_name="tiny", timeout_seconds=20) as connected:
        yield connected


def test_rank_sorts_by_probability_and_keeps_the_order_of_equals(client):
    ranked = client.rank("u1", ["i2", "i7.0", "i9", "i7"], time=1000, context=CONTEXT)
    assert [row.item for row in ranked] == ["i9", "i7.0", "i7", "i2"]
    assert [row.probability for row in ranked] == pytest.approx([0.9, 0.7, 0.7, 0.2])


def test_context_reaches_the_model(client):
    assert client.rank("u1", ["i7"], time=1000, context={"store": "closed"}) == [RankedItem("i7", 0.0)]
    with pytest.raises(ServingError, match=r"answered INVALID_ARGUMENT: .*Please add \['store'\]") as caught:
        client.rank("u1", ["i7"], time=1000)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_explain_leaves_out_padding(client):
    explanations = client.explain("zoë", ["i2", "i5"], time=1000, context=CONTEXT)
    assert explanations == [
        Explanation("i5", pytest.approx(0.5), (Neighbour("zoë-twin", "i5", 940, 2.5, 1.0, ("i5-next",)),)),
        Explanation("i2", pytest.approx(0.2), (Neighbour("zoë-twin", "i2", 940, 2.5, 1.0, ("i2-next",)),)),
    ]


def test_time_is_now_where_none_is_given(client):
    before = int(time.time())
    (explanation,) = client.explain("u1", ["i5"], context=CONTEXT)
    assert before - 60 <= explanation.neighbours[0].time <= int(time.time()) - 60


def test_metadata(client):
    metadata = client.metadata()
    assert (metadata.model_name, metadata.version) == ("tiny", 3)
    assert sorted(metadata.signatures) == ["count", "explain", "rank_known_user", "serving_default"]
    rank = metadata.signatures["rank_known_user"]
    assert rank.inputs == {
        "candidates": TensorMetadata("string", (-1, -1)),
        "store": TensorMetadata("string", (-1,)),
        "time": TensorMetadata("int64", (-1,)),
        "user": TensorMetadata("string", (-1,)),
    }
    assert rank.outputs["mask"] == TensorMetadata("bool", (-1, -1))


def test_status(client):
    assert client.status() == [VersionStatus(3, "AVAILABLE", "")]


def test_unknown_model(target):
    with RankingClient(target, model_name="huge") as client:
        with pytest.raises(ServingError, match="NOT_FOUND: This server serves the model `tiny` only"):
            client.status()


def test_no_server_says_where_and_how_to_start_one():
    with socket.socket() as reserved:  # Bound and not listening, so that nothing else can answer there.
        reserved.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{reserved.getsockname()[1]}"
        with RankingClient(target, model_name="tiny") as client:
            with pytest.raises(ServingError, match=f"must listen at {target}.*python -m serving.local") as caught:
                client.status()
    assert caught.value.code == "UNAVAILABLE"


def test_no_answer_in_time():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        with RankingClient(target, model_name="tiny", timeout_seconds=0.3) as client:
            with pytest.raises(ServingError, match="must answer within 0.3 seconds"):
                client.status()


@pytest.mark.parametrize("items", [[], ["a", ""], "abc"])
def test_items_must_be_ids(client, items):
    with pytest.raises(ValueError, match="Items must be a list of at least one id.*Received"):
        client.rank("u1", items)


def test_context_must_not_replace_an_input(client):
    with pytest.raises(ValueError, match=r"must not be one of .*Received: \['time'\]"):
        client.rank("u1", ["i1"], context={"time": "12"})


def test_client_arguments():
    with pytest.raises(ValueError, match="model name must not be empty"):
        RankingClient(model_name="")
    with pytest.raises(ValueError, match="above 0 seconds. Received: 0"):
        RankingClient(model_name="tiny", timeout_seconds=0)


def test_requests_ask_for_the_outputs_that_are_read():
    rank = build_predict_request("tiny", RANK_SIGNATURE, "u", ["a"], 5, {})
    assert list(rank.output_filter) == ["probabilities"]
    explain = build_predict_request("tiny", EXPLAIN_SIGNATURE, "u", ["a"], 5, {})
    assert "neighbour_next_items" in explain.output_filter
    assert tf.make_ndarray(explain.inputs["time"]).tolist() == [5]


def answer(**outputs) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse()
    for name, value in outputs.items():
        response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return response


def test_answers_padded_to_the_longest_slate_of_a_batch_are_read():
    ranked = read_ranked_items(answer(probabilities=[[0.1, 0.9, 0.1, 0.1]]), ["a", "b"])
    assert [row.item for row in ranked] == ["b", "a"]


def test_answers_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"must have the output `probabilities`. Received: \['scores'\]"):
        read_ranked_items(answer(scores=[[1.0]]), ["a"])
    with pytest.raises(ValueError, match=r"begin with \[1, 2\]. Received: shape \[1, 1\]"):
        read_ranked_items(answer(probabilities=[[1.0]]), ["a", "b"])
    with pytest.raises(ValueError, match="must have the output `neighbour_user`"):
        read_explanations(answer(probabilities=[[1.0]]), ["a"])
