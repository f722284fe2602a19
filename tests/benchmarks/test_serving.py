"""The serving benchmark: its requests, its fuzzer against a small server, its clients and faults."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2

from benchmarks.serving import faults, load
from benchmarks.serving.cores import can_pin, choose_cores
from benchmarks.serving.fuzz_cases import Sources, draw_cases
from benchmarks.serving.fuzz_examples import ExampleSources
from benchmarks.serving.load_client import OPTIONS
from benchmarks.serving.load_clients import LoadClients, summarise
from benchmarks.serving.model_server import ModelServer
from benchmarks.serving.request_list import read_requests, write_requests
from benchmarks.serving.slates import Slates, build_request
from serving.local_server import LocalServer
from serving.rank_request import UserItemPair
from serving.server_configs import build_model_config
from serving.server_options import ServerOptions
from tf_lift.data.examples import build_example_spec

PAIR_SPEC = {
    "user": tf.io.FixedLenFeature([], tf.string),
    "item": tf.io.FixedLenFeature([], tf.string),
    "time": tf.io.FixedLenFeature([], tf.int64),
}
SLATE_SPEC = {
    "neighbour/rank": tf.io.FixedLenFeature([2], tf.int64),
    "time": tf.io.FixedLenFeature([], tf.int64),
}
STRINGS, TEXTS, TIMES = (
    tf.TensorSpec([None, None], tf.string),
    tf.TensorSpec([None], tf.string),
    tf.TensorSpec([None], tf.int64),
)
ALL_KINDS = 36


class SmallRanker(tf.Module):
    """Candidate `i7` has the probability 0.7."""

    @tf.function(input_signature=[TEXTS, STRINGS, TIMES])
    def rank(self, user, candidates, time):
        lengths = tf.cast(tf.strings.length(candidates), tf.float32)
        return {"probabilities": tf.minimum(lengths, 10.0) / 10.0, "mask": candidates != ""}

    @tf.function(input_signature=[TEXTS])
    def score_slates(self, examples):
        ranks = tf.io.parse_example(examples, SLATE_SPEC)["neighbour/rank"]
        return {"probabilities": tf.cast(ranks, tf.float32)}

    @tf.function(input_signature=[TEXTS])
    def classify(self, inputs):
        scores = tf.cast(tf.io.parse_example(inputs, PAIR_SPEC)["time"], tf.float32)[:, None]
        return {"scores": scores, "classes": tf.fill(tf.shape(scores), "positive")}

    @tf.function(input_signature=[TEXTS])
    def regress(self, inputs):
        return {"outputs": tf.cast(tf.io.parse_example(inputs, PAIR_SPEC)["time"], tf.float32)}


@pytest.fixture(scope="module")
def version_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 4 of the SmallRanker."""
    path, model = tmp_path_factory.mktemp("models") / "4", SmallRanker()
    signatures = {
        "rank_known_user": model.rank,
        "serving_default": model.score_slates,
        "classify": model.classify,
        "regress": model.regress,
    }
    tf.saved_model.save(model, str(path), signatures=signatures)
    saved = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for name in ("classify", "regress"):
        saved.meta_graphs[0].signature_def[name].method_name = f"tensorflow/serving/{name}"
    (path / "saved_model.pb").write_bytes(saved.SerializeToString())
    return path


@pytest.fixture(scope="module")
def server(version_dir: Path) -> Iterator[LocalServer]:
    with LocalServer([build_model_config("small", version_dir.parent)]) as running:
        yield running


def make_request(*items: str, signature: str = "rank_known_user") -> bytes:
    inputs = {
        "user": np.array(["u1"], object),
        "candidates": np.array([items], object),
        "time": np.array([1_000], np.int64),
    }
    return build_request("small", signature, inputs).SerializeToString()


def make_sources() -> Sources:
    features = {
        "neighbour/rank": tf.train.Feature(int64_list=tf.train.Int64List(value=[3, 4])),
        "time": tf.train.Feature(int64_list=tf.train.Int64List(value=[1_000])),
    }
    slate = tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()
    pair = UserItemPair("u1", "i1", 1_000)
    requests = [make_request("i1", "i22"), make_request("i1", "i22", "i333")]
    return Sources(requests, ExampleSources("small", pair, [slate]), ServerOptions().max_request_bytes)


def test_fuzzer_draws_every_kind_and_the_same_requests_for_the_same_seed():
    cases = list(draw_cases(make_sources(), 1_000, seed=3))
    assert len({case.kind for case in cases}) == ALL_KINDS
    assert cases[:200] == list(draw_cases(make_sources(), 200, seed=3))
    assert cases[:200] != list(draw_cases(make_sources(), 200, seed=4))
    assert all(case.expected and case.data is not None for case in cases)
    giants = [case for case in cases if case.kind == "giant message"]
    assert 1 <= len(giants) < 30 and min(len(case.data) for case in giants) > ServerOptions().max_request_bytes


def test_a_truncated_request_is_right_only_where_it_asks_the_same():
    sources = make_sources()
    whole = [predict_pb2.PredictRequest.FromString(data) for data in sources.predict]
    truncated = [case for case in draw_cases(sources, 20_000, seed=5) if case.kind == "truncated"]
    for case in truncated:
        if case.expected == {"OK"}:
            inputs = predict_pb2.PredictRequest.FromString(case.data).inputs
            assert any(request.inputs == inputs for request in whole)
    assert {frozenset({"OK"}), frozenset({"INVALID_ARGUMENT"})} == {case.expected for case in truncated}


def test_server_answers_the_fuzzer_with_the_right_statuses(server: LocalServer):
    wrong = []
    with grpc.insecure_channel(f"localhost:{server.port}", OPTIONS) as channel:
        for case in draw_cases(make_sources(), 400, seed=7):
            status, message = faults.call(channel, case.method, case.data)
            if status not in case.expected:
                wrong.append((case.kind, status, message))
    assert not wrong


class WrongServer:
    """Stands for a server that answers OK to whatever it is asked, and with other probabilities each time."""

    def __init__(self, target: str) -> None:
        self.target, self.model_name, self._count = target, "small", 0

    def ask(self, _: bytes) -> predict_pb2.PredictResponse:
        self._count += 1
        response = predict_pb2.PredictResponse()
        response.outputs["probabilities"].CopyFrom(tf.make_tensor_proto(np.array([[self._count]], np.float32)))
        return response


def test_wrong_statuses_and_wrong_answers_are_counted(
    server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write_requests(tmp_path / "requests", [make_request("i1")])
    rig: Any = SimpleNamespace(
        server=WrongServer(f"localhost:{server.port}"),
        requests=lambda *_: path,
        settings=SimpleNamespace(num_malformed=200, seed=7),
        slates=SimpleNamespace(read_examples=lambda _: make_sources().examples.slates),
    )
    found = faults.send_malformed(rig)
    assert (found["sent"], found["unexpected"], found["checked"], found["wrong_answers"]) == (200, 0, 2, 2)
    assert sum(sum(counts.values()) for counts in found["statuses"].values()) == 200
    monkeypatch.setattr(faults, "call", lambda *_: ("INTERNAL", "it broke"))
    found = faults.send_malformed(rig)
    assert found["unexpected"] == 200
    assert any("INTERNAL in place of ['INVALID_ARGUMENT']: it broke" in problem for problem in found["problems"])


def test_load_clients_count_answers_failures_and_versions(server: LocalServer, tmp_path: Path):
    right = write_requests(tmp_path / "right", [make_request("i1"), make_request("i1", "i2")])
    wrong = write_requests(tmp_path / "wrong", [make_request("i1", signature="none")])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    target = f"localhost:{server.port}"
    with LoadClients(choose_cores().clients, environment) as clients:
        found = clients.run(8, right, target, 60.0, max_requests=5)
        failed = clients.run(1, wrong, target, 60.0, max_requests=3)
        stop = tmp_path / "stop"
        clients.begin(4, right, target, 60.0, stop_path=str(stop))
        stop.touch()
        stopped = clients.finish()
    assert (len(found.milliseconds), found.failures, found.versions) == (40, {}, {4: 40})
    assert (found.milliseconds > 0).all() and found.requests_per_second > 0
    assert (len(failed.milliseconds), failed.failures) == (0, {"INVALID_ARGUMENT": 3})
    assert len(stopped.milliseconds) < 10_000
    assert summarise(np.arange(101.0)) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert summarise(failed.milliseconds) == {}


@pytest.mark.skipif(not can_pin(), reason="one core is chosen by pinning")
def test_load_is_measured_beside_calls_in_process_and_once_on_one_core(
    server: LocalServer, version_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write_requests(tmp_path / "requests", [make_request("i1"), make_request("i1", "i22")])
    environment, cores, pinned = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, choose_cores(), []

    class NotedClients(LoadClients):
        def __init__(self, where: frozenset[int], *arguments: Any, **more: Any) -> None:
            super().__init__(where, *arguments, **more)
            pinned.append(where)

    monkeypatch.setattr(load, "LoadClients", NotedClients)
    with LoadClients(cores.clients, environment) as clients:
        rig: Any = SimpleNamespace(
            server=SimpleNamespace(target=f"localhost:{server.port}"),
            clients=clients,
            cores=cores,
            environment=environment,
            model_dir=version_dir,
            requests=lambda *_: path,
            settings=SimpleNamespace(seconds=0.1, slate_sizes=(10,), rank_slate_sizes=()),
        )
        rows = load.measure_load(rig)
    assert [(row["way"], row["candidates"], row["clients"], "ratio" in row) for row in rows] == [
        ("in process", 10, 1, False),
        ("gRPC", 10, 1, True),
        ("gRPC", 10, 8, False),
        ("gRPC", 10, 32, False),
        ("in process, one core", 100, 1, False),
        ("gRPC, one core", 100, 1, True),
    ]
    assert pinned == [cores.server] and rows[0]["load_seconds"] > 0
    assert all(row["requests"] > 0 and not row["failures"] for row in rows)
    assert rows[5]["ratio"] == rows[5]["p50"] / rows[4]["p50"]


def test_load_clients_load_no_tensorflow():
    code = "import sys, benchmarks.serving.load_client; print('tensorflow' in sys.modules, 'numpy' in sys.modules)"
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert found.stdout.split()[0] == "False"


def test_versions_appear_beside_the_exported_one_which_stays(version_dir: Path, tmp_path: Path):
    before = sorted(path.relative_to(version_dir) for path in version_dir.rglob("*"))
    server = ModelServer(version_dir, tmp_path, "small", choose_cores().server, dict(os.environ))
    assert (server.version, server.add_version()) == (4, 5)
    for number in (4, 5):
        copy = tmp_path / "models" / str(number)
        assert sorted(path.relative_to(copy) for path in copy.rglob("*")) == before
    assert sorted(path.name for path in version_dir.parent.iterdir()) == ["4"]


@pytest.mark.slow
def test_hot_swap_and_kill_of_a_server_process(version_dir: Path, tmp_path: Path):
    path = write_requests(tmp_path / "requests", [make_request("i1"), make_request("i1", "i22")])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    cores = choose_cores()
    server = ModelServer(version_dir, tmp_path, "small", cores.server, environment)
    with server, LoadClients(cores.clients, environment) as clients:
        seconds, answer = server.start_and_ask(read_requests(path)[0])
        assert 0 < seconds < 120 and answer.model_spec.version.value == 4
        np.testing.assert_allclose(faults.read_probabilities(answer), [[0.2]])
        rig: Any = SimpleNamespace(
            server=server,
            clients=clients,
            folder=tmp_path,
            requests=lambda _: path,
            first_request=lambda _: read_requests(path)[0],
        )
        swap = faults.swap_under_load(rig)
        assert not swap["failures"] and swap["answers_of_old"] > 0 and swap["answers_of_new"] > 0
        restart = faults.kill_and_restart(rig)
        for way in ("restart", "takeover"):
            assert restart[f"{way}_largest_difference"] == 0 and 0 < restart[f"{way}_seconds"] < 120
            assert set(restart[f"{way}_failures_of_clients"]) <= {"UNAVAILABLE"}
            assert restart[f"{way}_answers_of_clients"] > 0
        with pytest.raises(ValueError, match="A standby must wait. Received: a server without one"):
            server.kill_and_ask_standby(read_requests(path)[0])
        process_id = server.process_id
        server.start_standby()
        assert server.kill_and_ask_standby(read_requests(path)[0]) > 0 and server.process_id != process_id


def test_slates_are_of_real_users_and_items_and_the_same_each_time(tiny):
    dataset = tiny.dataset("pretraining.enabled=false")
    slates = Slates(dataset, "tiny", seed=7)
    data = slates.build("rank_known_user", 7, 5, batch_size=2)
    assert data == Slates(dataset, "tiny", seed=7).build("rank_known_user", 7, 5, batch_size=2)
    assert data != Slates(dataset, "tiny", seed=8).build("rank_known_user", 7, 5, batch_size=2)
    vocabularies = {vocabulary.name: vocabulary.values for vocabulary in dataset.info.vocabularies}
    for message in map(predict_pb2.PredictRequest.FromString, data):
        inputs = {name: tf.make_ndarray(proto) for name, proto in message.inputs.items()}
        assert sorted(inputs) == ["candidates", "channel", "time", "user"]
        assert inputs["candidates"].shape == (2, 7) and (inputs["time"] > dataset.log.time.max()).all()
        assert all(len(set(row)) == 7 for row in inputs["candidates"].tolist())
        assert {item.decode() for item in inputs["candidates"].ravel()} <= set(vocabularies["item"])
        assert {user.decode() for user in inputs["user"]} <= set(vocabularies["user"])
    (message,) = map(predict_pb2.PredictRequest.FromString, slates.build("rank", 3, 1))
    assert {"history_items", "history_times", "history_channel", "age"} <= set(message.inputs)
    assert tf.make_ndarray(message.inputs["history_items"]).shape == (1, 6)
    assert len(slates.read_examples(3)) == 3


@pytest.mark.skipif(importlib.util.find_spec("tantivy") is None, reason="tantivy is what is compared with")
def test_retrieval_service_finds_the_neighbours_that_the_project_finds(tiny):
    from benchmarks.serving.retrieval_service import RetrievalService

    dataset = tiny.dataset("pretraining.enabled=false")
    service, spec = RetrievalService(dataset), build_example_spec(dataset.config, len(dataset.info.statistic_sets))
    for data in Slates(dataset, "tiny", seed=7).build("rank_known_user", 9, 4):
        parsed = {name: value.numpy() for name, value in spec.parse([service.build_example(data)]).items()}
        fields, times = parsed["fields"][0], np.repeat(parsed["time"], 9)
        users = fields[:, dataset.config.schema.user_index]
        found = dataset.posting_lists.nearest(fields, times, dataset.config.retrieval, users, ())
        np.testing.assert_allclose(parsed["neighbour_scores"][0], found.scores, rtol=1e-4)
        history = dataset.log.last_rows_before(users[:1], parsed["time"])
        np.testing.assert_array_equal(parsed["history_rank"], dataset.log.time_ranks[history])
        assert parsed["mask"].all() and (parsed["neighbour_num_future"] >= 0).all()
        assert parsed["neighbour_num_future"].any()
