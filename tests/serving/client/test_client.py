"""The client against a stub of a model server."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack

import grpc
import pytest
from tensorflow.core.framework import types_pb2

from serving.answers import (
    Explanation,
    Neighbour,
    PairProbability,
    RankedItem,
    ServiceHealth,
    TensorMetadata,
    VersionStatus,
)
from serving.client import RankingClient, ServingError
from serving.rank_request import HistoryInteraction, RankRequest, UserItemPair

CONTEXT = {"store": "s"}


@pytest.fixture
def client(target):
    with RankingClient(target, model_name="stub", timeout_seconds=20) as connected:
        yield connected


def test_rank_sorts_by_probability_and_keeps_the_order_of_equals(client, stub):
    ranked = client.rank(RankRequest("u1", ["i2", "i7", "i9", "i07"], time=1000, context=CONTEXT))
    assert [row.item for row in ranked] == ["i9", "i7", "i07", "i2"]
    assert [row.probability for row in ranked] == pytest.approx([0.9, 0.7, 0.7, 0.2])
    assert stub.inputs["user"].tolist() == [b"u1"] and stub.inputs["time"].tolist() == [1000]


def test_context_reaches_the_model_and_is_empty_where_a_request_names_none(client, stub):
    assert client.rank(RankRequest("u1", ["i7"], context={"store": "closed"})) == [RankedItem("i7", 0.0)]
    client.rank(RankRequest("u1", ["i7"]))
    assert stub.inputs["store"].tolist() == [b""]


def test_history_of_the_request_changes_the_answer(client, stub):
    history = [HistoryInteraction("i2", "1", 900, {"store": "s"}), HistoryInteraction("i9", "0", 900)]
    ranked = client.rank(RankRequest("zoë", ["i9", "i2"], 1000, history=history, user_attributes={"age": "25"}))
    assert [row.item for row in ranked] == ["i2", "i9"]
    assert {name: stub.inputs[name].tolist() for name in ("user", "history_times", "history_store", "age")} == {
        "user": ["zoë".encode()],
        "history_times": [[900, 900]],
        "history_store": [[b"s", b""]],
        "age": [b"25"],
    }


@pytest.mark.parametrize("brought", [{"history": ()}, {"user_attributes": {"age": "25"}}])
def test_user_without_history_is_one_column_of_padding(client, stub, brought):
    client.rank(RankRequest("u1", ["i7"], **brought))
    assert stub.inputs["history_items"].tolist() == [[b""]]
    assert stub.inputs["history_times"].tolist() == [[0]]


def test_slates_of_one_call_are_padded_and_unpadded(client, stub):
    long = [HistoryInteraction("i2", "1", 800), HistoryInteraction("i3", "1", 900)]
    requests = [
        RankRequest("u1", ["i1", "i2", "i3"], 1000, {"store": "s"}, long),
        RankRequest("u2", ["i4"], 2000, {}, long[1:], {"age": "50"}),
    ]
    first, second = client.rank_slates(requests)
    assert [(row.item, row.probability) for row in first] == [("i2", 1.0), ("i3", 1.0), ("i1", pytest.approx(0.1))]
    assert second == [RankedItem("i4", pytest.approx(0.4))]
    assert stub.calls["Predict"] == 1
    assert stub.inputs["candidates"].tolist() == [[b"i1", b"i2", b"i3"], [b"i4", b"", b""]]
    assert stub.inputs["history_items"].tolist() == [[b"i2", b"i3"], [b"i3", b""]]
    assert stub.inputs["history_times"].tolist() == [[800, 900], [900, 0]]
    assert stub.inputs["store"].tolist() == [b"s", b""] and stub.inputs["age"].tolist() == [b"", b"50"]


def test_slates_of_one_call_are_of_one_kind(client):
    mixed = [RankRequest("u1", ["i1"]), RankRequest("u1", ["i1"], history=())]
    with pytest.raises(ValueError, match="all or none must bring a history.*Received: 2, of which 1 do"):
        client.rank_slates(mixed)
    with pytest.raises(ValueError, match="at least one.*Received: 0"):
        client.rank_slates([])


def test_explain_leaves_out_padding(client):
    assert client.explain(RankRequest("zoë", ["i2", "i5"], 1000, CONTEXT)) == [
        Explanation("i5", pytest.approx(0.5), (Neighbour("zoë-twin", "i5", 940, 2.5, 1.0, ("i5-next",)),)),
        Explanation("i2", pytest.approx(0.2), (Neighbour("zoë-twin", "i2", 940, 2.5, 1.0, ("i5-next",)),)),
    ]


def test_explain_takes_no_history(client):
    with pytest.raises(ValueError, match="must not bring a history.*Received: one for user 'u1'"):
        client.explain(RankRequest("u1", ["i5"], history=()))


def test_bytes_that_are_no_text_do_not_stop_an_explanation(client, stub):
    stub.next_item = b"\xff7"
    (explanation,) = client.explain(RankRequest("u1", ["i5"]))
    assert explanation.neighbours[0].next_items == ("\ufffd7",)


def test_time_is_now_where_none_is_given(client):
    before = int(time.time())
    (explanation,) = client.explain(RankRequest("u1", ["i5"]))
    assert before - 60 <= explanation.neighbours[0].time <= int(time.time()) - 60


@pytest.mark.parametrize("method", ["classify", "regress"])
def test_pairs_are_answered_in_their_order(client, stub, method):
    pairs = [UserItemPair("u1", "i2"), UserItemPair("u2", "i9", 5), UserItemPair("u2", "i8", 5, {"store": "closed"})]
    answers = getattr(client, method)(pairs)
    assert [(row.user, row.item) for row in answers] == [("u1", "i2"), ("u2", "i9"), ("u2", "i8")]
    assert [row.probability for row in answers] == pytest.approx([0.2, 0.9, 0.0])
    assert isinstance(answers[0], PairProbability) and stub.calls[method.capitalize()] == 1


def test_metadata(client):
    metadata = client.metadata()
    assert (metadata.model_name, metadata.version) == ("stub", 3)
    assert sorted(metadata.signatures) == ["explain", "rank", "rank_known_user"]
    signature = metadata.signatures["rank_known_user"]
    assert signature.inputs["candidates"] == TensorMetadata("string", (-1, -1))
    assert signature.inputs["time"] == TensorMetadata("int64", (-1,))
    assert signature.outputs == {"mask": TensorMetadata("bool", None)}


def test_inputs_are_learnt_once_and_again_after_a_refusal(client, stub):
    for _ in range(3):
        client.rank(RankRequest("u1", ["i7"]))
    assert stub.calls["GetModelMetadata"] == 1
    fields = stub.signatures["rank_known_user"]
    stub.signatures["rank_known_user"] = fields | {"device": (types_pb2.DT_STRING, 1)}  # A new version is loaded.
    with pytest.raises(ServingError, match="INVALID_ARGUMENT: rank_known_user takes .*'device'"):
        client.rank(RankRequest("u1", ["i7"]))
    client.rank(RankRequest("u1", ["i7"]))
    assert stub.inputs["device"].tolist() == [b""]
    stub.signatures["rank_known_user"] = fields | {"shop": (types_pb2.DT_STRING, 1)}
    asked = RankRequest("u1", ["i7"], context={"shop": "s"})
    with pytest.raises(ValueError, match=r"the signature's, \['device', 'store'\]. Received: \['shop'\]"):
        client.rank(asked)
    client.rank(asked)
    assert stub.inputs["shop"].tolist() == [b"s"]


def test_status_is_newest_first(client):
    assert client.status() == [VersionStatus(3, "AVAILABLE", ""), VersionStatus(2, "END", "out of memory")]


def test_health(client):
    assert client.health() == ServiceHealth("", "SERVING")
    assert client.health("draining") == ServiceHealth("draining", "NOT_SERVING")
    with pytest.raises(ServingError, match="NOT_FOUND") as caught:
        client.health("unheard of")
    assert caught.value.code == "NOT_FOUND"


def test_unknown_model(target):
    with RankingClient(target, model_name="huge") as client:
        with pytest.raises(ServingError, match="NOT_FOUND: This server serves the model stub only"):
            client.status()


def test_model_without_the_signature(client, stub):
    del stub.signatures["rank"]
    with pytest.raises(ValueError, match=r"must have the signature `rank`. Received: version 3 with \['explain'"):
        client.rank(RankRequest("u1", ["i7"], history=()))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"context": {"shop": "s"}}, r"A context must have .*\['store'\]. Received: \['shop'\]"),
        ({"context": {"time": "5"}}, r"A context must have .*\['store'\]. Received: \['time'\]"),
        ({"user_attributes": {"size": "s"}}, r"User attributes must have .*\['age'\]. Received: \['size'\]"),
        ({"user_attributes": {"store": "s"}}, r"User attributes must have .*\['age'\]. Received: \['store'\]"),
        ({"context": {"age": "s"}, "history": ()}, r"A context must have .*\['store'\]. Received: \['age'\]"),
        (
            {"history": [HistoryInteraction("i1", "1", 5, {"shop": "s"})]},
            r"An interaction's context must have .*\['store'\]. Received: \['shop'\]",
        ),
    ],
)
def test_names_that_the_model_does_not_have(client, stub, fields, message):
    with pytest.raises(ValueError, match=message):
        client.rank(RankRequest("u1", ["i7"], **fields))
    assert stub.calls["Predict"] == 0


def test_ids_that_are_no_text(client):
    with pytest.raises(ValueError, match=r"must be Unicode text. Received: '\\udcff'"):
        client.rank(RankRequest("\udcff", ["i7"]))


def test_unavailable_server_is_asked_again(client, stub):
    stub.failures.extend([grpc.StatusCode.UNAVAILABLE] * 4)
    began = time.monotonic()
    assert client.status()[0].version == 3
    assert stub.calls["GetModelStatus"] == 5
    assert time.monotonic() - began > 0.5 * (0.1 + 0.2 + 0.4 + 0.8)  # The waits grow.


def test_fifth_failure_is_the_last(client, stub):
    stub.failures.extend([grpc.StatusCode.UNAVAILABLE] * 9)
    with pytest.raises(ServingError, match=r"no answer in 5 attempts \(as told\)") as caught:
        client.status()
    assert caught.value.code == "UNAVAILABLE" and stub.calls["GetModelStatus"] == 5


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "INTERNAL", "INVALID_ARGUMENT", "ABORTED", "DEADLINE_EXCEEDED"])
def test_other_failures_are_final(client, stub, code):
    stub.failures.append(grpc.StatusCode[code])
    with pytest.raises(ServingError) as caught:
        client.status()
    assert caught.value.code == code and stub.calls["GetModelStatus"] == 1


def test_long_requests_are_asked_again_too(client, stub):
    items = [f"i{number:050}" for number in range(20_000)]  # More than gRPC keeps by default.
    client.rank(RankRequest("u1", ["i1"]))
    stub.failures.append(grpc.StatusCode.UNAVAILABLE)
    assert len(client.rank(RankRequest("u1", items))) == len(items)
    assert stub.calls["Predict"] == 3


def test_retries_end_with_the_deadline(target, stub):
    stub.failures.extend([grpc.StatusCode.UNAVAILABLE] * 9)
    with RankingClient(target, model_name="stub", timeout_seconds=0.35) as client:
        began = time.monotonic()
        with pytest.raises(ServingError) as caught:
            client.status()
    assert time.monotonic() - began < 1.0
    assert caught.value.code in ("DEADLINE_EXCEEDED", "UNAVAILABLE") and 2 <= stub.calls["GetModelStatus"] <= 4


def test_server_that_starts_meanwhile_answers(serve_stub):
    with socket.socket() as reserved:
        reserved.bind(("localhost", 0))
        port = reserved.getsockname()[1]
    with ExitStack() as running, RankingClient(f"localhost:{port}", model_name="stub") as client:
        starter = threading.Timer(0.2, lambda: running.enter_context(serve_stub(port=port)))
        starter.start()
        assert client.health().state == "SERVING"
        starter.join()


def test_no_server_says_where_and_how_to_start_one():
    with socket.socket() as reserved:  # Bound and not listening, so that nothing else can answer there.
        reserved.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{reserved.getsockname()[1]}"
        with RankingClient(target, model_name="stub") as client:
            with pytest.raises(ServingError, match=f"must listen at {target}.*python -m serving.local") as caught:
                client.status()
    assert caught.value.code == "UNAVAILABLE"


def test_no_answer_in_time(target, stub):
    stub.released.clear()
    with RankingClient(target, model_name="stub", timeout_seconds=0.4) as client:
        with pytest.raises(ServingError, match="must answer within 0.4 seconds") as caught:
            client.rank(RankRequest("u1", ["i7"]))
    assert caught.value.code == "DEADLINE_EXCEEDED" and stub.calls["Predict"] == 1


def test_one_client_serves_many_threads(client, stub):
    client.rank(RankRequest("u1", ["i1"]))
    found = []
    threads = [threading.Thread(target=lambda: found.append(client.status()[0].version)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [3] * 8


def test_client_arguments():
    with pytest.raises(ValueError, match="model name must not be empty"):
        RankingClient(model_name="")
    for timeout in (0, float("nan")):
        with pytest.raises(ValueError, match=f"above 0 seconds. Received: {timeout}"):
            RankingClient(model_name="stub", timeout_seconds=timeout)
