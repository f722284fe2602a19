"""A standby: what it does while another process serves, and what it answers afterwards."""

from __future__ import annotations

import fcntl
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2, prediction_service_pb2_grpc

from serving.local import parse_args, run
from serving.local_server import LocalServer
from serving.server_configs import build_model_config
from serving.server_options import ServerOptions
from serving.standby import StandbyLock

TIMEOUT_SECONDS, LIFE_SECONDS = 60, 180
FOREVER_STEPS = 10**15
Start = Callable[..., subprocess.Popen[str]]


def find_free_port() -> int:
    """Returns a port that the kernel gives to nobody else.

    A server that starts takes its port seconds later. Of the ports that the kernel hands out, another test's server or any
    client's connection may have taken it by then.
    """
    path = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first, last = map(int, path.read_text().split()) if path.is_file() else (32768, 60999)
    kept = [port for port in range(10_000, 65_536) if not first <= port <= last] or [0]  # 0: the kernel hands out all
    while True:
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", random.SystemRandom().choice(kept)))
            return found.getsockname()[1]


@pytest.fixture
def lock_path(tmp_path: Path) -> Path:
    return tmp_path / "serving.lock"


@pytest.fixture
def start(lock_path: Path) -> Iterator[Start]:
    """Starts `serving.local` with the lock; kills what is left at the end."""
    started = []

    def start_process(name: str, base_path: Path, port: int, *flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "serving.local", "--model_name", name, "--model_base_path", str(base_path)]
        limits = ["--tensorflow_intra_op_parallelism", "1", "--file_system_poll_wait_seconds", "0.1"]
        process = subprocess.Popen(
            [*command, "--standby_lock", str(lock_path), "--port", str(port), *limits, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONFAULTHANDLER": "1"},  # `stop` asks for the stacks of a process that hangs
        )
        watchdog = threading.Timer(LIFE_SECONDS, process.kill)  # So that a test whose line never comes fails.
        watchdog.start()
        started.append((process, watchdog))
        return process

    yield start_process
    for process, watchdog in started:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
def held_lock(lock_path: Path) -> Iterator[IO[bytes]]:
    """The lock, held by this process until the file is closed."""
    with lock_path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def wait_for(process: subprocess.Popen[str], text: str, *, log: bool = False) -> str:
    """Reads lines of a process's output, or of its log, up to one that begins with a text; returns it."""
    lines = []
    for line in (process.stderr if log else process.stdout) or ():
        if line.startswith(text):
            return line.strip()
        lines.append(line)
    rest = process.communicate()
    raise AssertionError(f"{text!r} is not in {lines}. The process ended with {process.returncode} and {rest}")


def stop(process: subprocess.Popen[str]) -> int:
    """Stops a process as an operator does; returns its exit code."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        raise AssertionError(f"It did not end. What it did: {process.communicate()}") from None


def predict(port: int, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return stub.Predict(request, timeout=TIMEOUT_SECONDS)


def rank_request() -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "tiny", "rank_known_user"
    inputs = {"user": ["u1"], "candidates": [["i7", "i2", ""]], "store": [""], "time": np.array([1_000], np.int64)}
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values))
    return request


def version_request(steps: int = 1) -> predict_pb2.PredictRequest:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "scorer", "version"
    request.inputs["steps"].CopyFrom(tf.make_tensor_proto([steps], tf.int64))
    return request


def answered_version(port: int) -> int:
    """The version of the scorer that answers, by what it computes."""
    (version,) = predict(port, version_request()).outputs["version"].int64_val
    return version


def test_standby_takes_over_from_a_killed_server_and_gets_a_standby(start: Start, model_base_path: Path):
    port, metrics_port = find_free_port(), find_free_port()
    metrics_flags = ("--rest_api_port", str(metrics_port))
    first = start("tiny", model_base_path, port, *metrics_flags)
    wait_for(first, f"Serving tiny version 3 at localhost:{port}")
    second = start("tiny", model_base_path, port, *metrics_flags)
    wait_for(second, f"Standing by for localhost:{port}")
    before = predict(port, rank_request())
    assert second.poll() is None
    first.kill()
    wait_for(second, f"Serving tiny version 3 at localhost:{port}")
    after = predict(port, rank_request())
    assert tf.make_ndarray(after.outputs["probabilities"]).tolist() == [[np.float32(0.7), np.float32(0.2), 0.0]]
    assert after.outputs == before.outputs
    with urllib.request.urlopen(
        f"http://localhost:{metrics_port}/monitoring/prometheus/metrics", timeout=TIMEOUT_SECONDS
    ) as response:  # One request: the metrics are those of the second.
        assert re.search('^serving_requests_total{.*status="OK"} 1.0$', response.read().decode(), re.MULTILINE)
    third = start("tiny", model_base_path, port, *metrics_flags)
    wait_for(third, f"Standing by for localhost:{port}")
    assert stop(third) == 0
    assert third.stdout is not None and third.stdout.read() == ""
    assert predict(port, rank_request()).outputs == before.outputs
    assert stop(second) == 0


def test_standby_serves_the_version_that_appeared_meanwhile(
    start: Start, held_lock: IO[bytes], scorer_saver, tmp_path: Path
):
    save_scorer, _ = scorer_saver
    save_scorer(tmp_path / "scorer", 1)
    port = find_free_port()
    standby = start("scorer", tmp_path / "scorer", port)
    wait_for(standby, f"Standing by for localhost:{port}")
    save_scorer(tmp_path / "scorer", 2)
    wait_for(standby, "serving: Model scorer version 2 is available", log=True)
    wait_for(standby, "serving: Model scorer version 1 is unloaded", log=True)
    held_lock.close()
    assert wait_for(standby, "Serving") == f"Serving scorer version 2 at localhost:{port}"
    assert answered_version(port) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_standby_that_still_loads(
    start: Start, held_lock: IO[bytes], scorer_saver, tmp_path: Path, number: signal.Signals
):
    save_scorer, write_warmup = scorer_saver
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(version_request(FOREVER_STEPS))
    write_warmup(save_scorer(tmp_path / "scorer", 1), [log])
    standby = start("scorer", tmp_path / "scorer", find_free_port())
    wait_for(standby, f"serving: Another process has {held_lock.name}: this one loads its models to stand by", log=True)
    standby.send_signal(number)
    assert standby.wait(TIMEOUT_SECONDS) == 0
    assert standby.stdout is not None and standby.stdout.read() == ""


def test_port_is_taken_once_it_is_free(scorer_base_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = LocalServer([build_model_config("scorer", scorer_base_path)], ServerOptions(port=port))
        try:
            server.load()
            with pytest.raises(ValueError, match=f"port must be free. Received: {port}"):
                server.listen(retry_seconds=0.1)
            freed = threading.Timer(0.2, taken.close)
            freed.start()
            server.listen(retry_seconds=TIMEOUT_SECONDS)
            assert answered_version(port) == 1
        finally:
            server.stop()


def test_lock_is_had_by_one(tmp_path: Path):
    first, second, other = (StandbyLock(str(tmp_path / name)) for name in ("a", "a", "b"))
    assert [lock.try_acquire() for lock in (first, second, other, first)] == [True, False, True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "--port must be a fixed one.* Received: 0, .*Choose a port, such as 8500"),
        (["--standby_lock", "{folder}"], "must be a file that can be opened for writing. Received: `{folder}` \\(Is a"),
        (["--standby_lock", "{folder}/absent/lock"], "Received: `{folder}/absent/lock` \\(No such file"),
    ],
    ids=["port 0", "a directory", "no folder"],
)
def test_wrong_use_exits_with_2(arguments, message, model_base_path: Path, lock_path: Path, capsys):
    folder = str(lock_path.parent)
    flags = ["--model_name", "tiny", "--model_base_path", str(model_base_path), "--standby_lock", str(lock_path)]
    assert run(parse_args([*flags, *(argument.format(folder=folder) for argument in arguments)])) == 2
    assert re.search(message.format(folder=re.escape(folder)), capsys.readouterr().err)
