"""The whole path as its users walk it: every command in a process of its own, on configs/tiny.toml."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tf_lift import synthetic

ROOT = Path(__file__).parents[1]
CONFIG = "configs/tiny.toml"
BASELINES = {"constant", "popularity", "user rate + item rate", "match rule"}
NUM_CANDIDATES, NUM_NEIGHBOURS = 3, 5
REQUEST_SECONDS = 60.0


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def run_stage(module: str, workspace: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    settings = (f"workspace={workspace}", *overrides)
    return run_command(module, "--config", CONFIG, *(part for setting in settings for part in ("--set", setting)))


def own_lines(finished: subprocess.CompletedProcess[str]) -> list[str]:
    """What a command wrote to standard error, without the notes of the libraries that it loads."""
    commands = ("preprocess: ", "train: ", "export: ", "verify: ", "Traceback")
    return [line for line in finished.stderr.splitlines() if line.startswith(commands)]


def read_log() -> list[dict[str, str]]:
    with (ROOT / "configs" / "tiny" / "interactions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def preprocessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("end_to_end")
    finished = run_stage("beam.preprocess", workspace)
    assert finished.returncode == 0, finished.stderr
    return workspace


@pytest.fixture(scope="session")
def exported(preprocessed: Path) -> Path:
    for module in ("tf_lift.train", "export.saved_model", "export.verify"):
        finished = run_stage(module, preprocessed)
        assert finished.returncode == 0, f"{module}: {finished.stderr}"
    return preprocessed


@pytest.fixture(scope="session")
def target(exported: Path) -> Iterator[str]:
    """Address of a server of the exported model; when the tests are done it must stop on SIGTERM with code 0."""
    base = ["--model_base_path", str(exported / "tiny" / "models" / "tiny"), "--model_name", "tiny", "--port", "0"]
    command = [sys.executable, "-m", "serving.local", *base]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("Serving tiny version 1 at localhost:")
        yield ready.rsplit(" ", 1)[1].strip()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(target: str, command: str, user: str, items: str, *more: str) -> list[dict]:
    connection = ("--model_name", "tiny", "--server", target, "--timeout_seconds", str(REQUEST_SECONDS), "--json")
    slate = ("--user", user, "--items", items, "--context", "device=phone")
    finished = run_command("serving.client", command, *connection, *slate, *more)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


def test_shipped_files_are_what_the_generator_writes(tmp_path):
    """By the command that configs/tiny.toml states."""
    text = (ROOT / CONFIG).read_text(encoding="utf-8")
    (stated,) = [line for line in text.splitlines() if "python -m tf_lift.synthetic" in line]
    arguments = stated.split("tf_lift.synthetic")[1].split()
    arguments[arguments.index("--out") + 1] = str(tmp_path)
    finished = run_command("tf_lift.synthetic", *arguments)
    assert finished.returncode == 0, finished.stderr
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_bytes() for path in (ROOT / "configs" / "tiny").iterdir()}
    assert sum(len(content) for content in made.values()) < 150_000


def test_every_row_of_the_log_is_accounted_for(preprocessed):
    counts = json.loads((preprocessed / "tiny" / "dataset" / "manifest.json").read_text(encoding="utf-8"))["counts"]
    assert (counts["read"], counts["kept"], counts["rejected"]) == (len(read_log()), len(read_log()), 0)


def test_metrics_name_the_model_and_the_baselines(exported):
    results = json.loads((exported / "tiny" / "run" / "evaluate" / "metrics.json").read_text(encoding="utf-8"))
    assert set(results["rankers"]) >= BASELINES | {"tf_lift"}
    for slices in results["rankers"].values():
        assert 0.0 <= slices["all"]["AUC"] <= 1.0 and slices["all"]["LogLoss"] > 0.0
    assert results["rankers"]["constant"]["all"]["AUC"] == 0.5
    assert results["rankers"]["tf_lift"]["all"]["AUC"] > 0.6  # labels follow user x category
    assert results["num_slates"] == results["num_candidates"] == 600


def test_report_works_through_ten_predictions(exported):
    report = (exported / "tiny" / "run" / "evaluate" / "report.html").read_text(encoding="utf-8")
    assert report.rstrip().endswith("</html>")
    assert report.count('<article class="card"') == 10


def test_training_again_leaves_everything_as_it_is(exported):
    before = {path: path.stat().st_mtime_ns for path in exported.rglob("*") if path.is_file()}
    finished = run_stage("tf_lift.train", exported)
    assert finished.returncode == 0 and finished.stderr.count("is up to date") == 4
    assert {path: path.stat().st_mtime_ns for path in exported.rglob("*") if path.is_file()} == before


def test_known_user_is_ranked_by_descending_probability(target):
    ranked = ask(target, "rank", "u017", "i000,i001,i002")
    probabilities = [row["probability"] for row in ranked]
    assert {row["item"] for row in ranked} == {"i000", "i001", "i002"}
    assert all(0.0 <= probability <= 1.0 for probability in probabilities)
    assert probabilities == sorted(probabilities, reverse=True) and len(set(probabilities)) == NUM_CANDIDATES


@pytest.mark.parametrize(("user", "items"), [("u017", "i000,i001,i002"), ("nobody", "no such item,i001")])
def test_known_and_unseen_ids_have_neighbours_of_the_log_before_the_time(target, user, items):
    log = {(row["user"], row["item"], int(row["time"])) for row in read_log()}
    time = synthetic.START_TIME + 30 * 86_400
    explained = ask(target, "explain", user, items, "--time", str(time))
    assert len(explained) == len(items.split(","))
    for row in explained:
        found = [(neighbour["user"], neighbour["item"], neighbour["time"]) for neighbour in row["neighbours"]]
        assert 0.0 <= row["probability"] <= 1.0
        assert 0 < len(found) <= NUM_NEIGHBOURS and set(found) <= log
        assert all(neighbour["time"] < time for neighbour in row["neighbours"])
        assert sum(neighbour["attention"] for neighbour in row["neighbours"]) == pytest.approx(1.0, abs=1e-4)
        items_of_log = {item for _, item, _ in log}
        assert all(set(neighbour["next_items"]) <= items_of_log for neighbour in row["neighbours"])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("candidates", np.array(["i000"], object), "must be (DT_STRING|string) of shape"),
        ("time", np.array([1.5], np.float32), "must be (DT_INT64|int64) of shape"),
        ("user", np.array([3], np.int64), "must be (DT_STRING|string) of shape"),
        ("device", None, "add \\['device'\\]"),
    ],
)
def test_wrong_requests_are_refused(target, name, value, message):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = "rank_known_user"
    inputs = {
        "user": np.array(["u017"], object),
        "candidates": np.array([["i000"]], object),
        "time": np.array([synthetic.START_TIME], np.int64),
        "device": np.array(["phone"], object),
    }
    inputs[name] = value
    for key, array in inputs.items():
        if array is not None:
            request.inputs[key].CopyFrom(tf.make_tensor_proto(array))
    with grpc.insecure_channel(target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError, match=message) as refused:
            stub.Predict(request, timeout=REQUEST_SECONDS)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_changed_split_makes_the_data_set_stale(preprocessed):
    finished = run_stage("tf_lift.train", preprocessed, "split.test_rate=0.5")
    assert finished.returncode == 1
    (line,) = own_lines(finished)
    assert line.startswith("train: The artefact of stage 'dataset' is stale") and "python -m beam.preprocess" in line


def test_missing_data_set_names_the_command_to_run(tmp_path):
    finished = run_stage("tf_lift.train", tmp_path)
    assert finished.returncode == 1
    (line,) = own_lines(finished)
    assert "must be there" in line and "python -m " in line


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["retrieval.num_neighbour=3"], "Unknown key 'num_neighbour' in [retrieval]. Did you mean 'num_neighbours'?"),
        (['source.paths=["configs/tiny/absent.csv"]'], "configs/tiny/absent.csv"),
        (["source.separator=;"], "missing column 'time'"),
        (["source.time=device"], "Received: 3,000 of 3,000"),
    ],
    ids=["unknown key", "missing file", "wrong separator", "time that is no number"],
)
def test_wrong_input_is_one_clear_line(overrides, message, tmp_path):
    finished = run_stage("beam.preprocess", tmp_path, *overrides)
    assert finished.returncode == 1
    (line,) = own_lines(finished)
    assert line.startswith("preprocess: ") and message in line
    assert "Traceback" not in finished.stderr
    assert not (tmp_path / "tiny" / "dataset").exists()
    if "rejected" in line:
        assert "is not a number" in line


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (["beam.preprocess"], ["--config", "--set", "--force"]),
        (["tf_lift.train"], ["--config", "--set", "--stages"]),
        (["tf_lift.synthetic"], ["--out", "--kind", "--rows", "--seed"]),
        (["export.saved_model"], ["--config", "--set", "--force"]),
        (["export.verify"], ["--config", "--set", "--version"]),
        (["serving.local"], ["--model_base_path", "--model_name", "--port", "--max_concurrency", "--ssl_config_file"]),
        (["serving.client"], ["rank", "explain", "classify", "status", "metadata", "health"]),
        (
            ["serving.client", "rank"],
            ["--model_name", "--server", "--user", "--items", "--time", "--context", "--history", "--tls", "--json"],
        ),
        (
            ["serving.client", "explain"],
            ["--model_name", "--server", "--user", "--items", "--time", "--context", "--json"],
        ),
    ],
    ids=" ".join,
)
def test_help_names_the_flags(command, flags):
    finished = run_command(*command, "--help")
    assert finished.returncode == 0
    assert f"python -m {command[0]}" in finished.stdout
    assert not [flag for flag in flags if flag not in finished.stdout]


def test_configuration_states_what_it_is_made_for():
    table = tomllib.loads((ROOT / CONFIG).read_text(encoding="utf-8"))
    assert table["split"]["mode"] == "rolling"
    assert [field["name"] for field in table["fields"]] == ["user", "age_group", "item", "category", "device"]
