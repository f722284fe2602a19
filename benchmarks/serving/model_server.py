"""`python -m serving.local` in a process of its own, on versions that this benchmark may add to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import grpc

from benchmarks.serving.cores import pin
from benchmarks.serving.load_client import OPTIONS, PREDICT
from serving.published_protos import predict_pb2

_POLL_SECONDS = 0.5
_FIRST_ANSWER_SECONDS = 120.0
_STOP_SECONDS = 60.0
_LOG_CHARACTERS = 2_000


class ModelServer:
    """A server process. A context manager, which ends it.

    Args:
        version_dir: the exported version to serve; it is linked or copied, never changed.
        folder: an empty folder, for the base path and the server's log.
        model_name: the model's name.
        cores: where the server runs.
        environment: its environment variables.

    Attributes:
        version: the newest version that was added.
        target: `host:port`, once started.
    """

    def __init__(
        self, version_dir: Path, folder: Path, model_name: str, cores: frozenset[int], environment: Mapping[str, str]
    ) -> None:
        self.model_name, self.version, self.target = model_name, int(version_dir.name) - 1, ""
        self._version_dir, self._folder, self._cores = version_dir, folder, cores
        self._environment, self._port = dict(environment), 0
        self._process: subprocess.Popen[str] | None = None
        self._standby: subprocess.Popen[str] | None = None
        self._log = folder / "server.log"
        (folder / "models").mkdir()
        self.add_version()

    @property
    def process_id(self) -> int:
        return self._process.pid if self._process is not None else 0

    def add_version(self) -> int:
        """Puts the exported version under the next number, in one rename; returns the number."""
        number = self.version + 1
        aside = self._folder / f"version-{number}.partial"
        shutil.copytree(self._version_dir, aside, copy_function=_link_or_copy)
        aside.rename(self._folder / "models" / str(number))
        self.version = number
        return number

    def start(self) -> Self:
        """Starts the process, on the port that it had before, and waits until it listens.

        From the second start on, when the port is known, it has a lock, and so it may have a standby.

        Raises:
            ValueError: it ends instead.
        """
        self._process = self._start_process()
        self.target = self._read_line(self._process).split()[-1]
        self._port = int(self.target.rpartition(":")[2])
        return self

    def start_standby(self) -> None:
        """Starts the same command once more, beside a server that was started again, and waits until it stands by.

        Raises:
            ValueError: it ends instead.
        """
        self._standby = self._start_process()
        self._read_line(self._standby)

    def _start_process(self) -> subprocess.Popen[str]:
        flags = {
            "model_name": self.model_name,
            "model_base_path": self._folder / "models",
            "port": self._port,
            "file_system_poll_wait_seconds": _POLL_SECONDS,
            "tensorflow_intra_op_parallelism": 1,
            "tensorflow_inter_op_parallelism": 1,
        }
        if self._port:
            flags["standby_lock"] = self._folder / "server.lock"
        with self._log.open("a", encoding="utf-8") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "serving.local", *(f"--{name}={value}" for name, value in flags.items())],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self._environment,
            )
        pin(process.pid, self._cores)
        return process

    def _read_line(self, process: subprocess.Popen[str]) -> str:
        line = process.stdout.readline() if process.stdout is not None else ""
        if not line.strip():
            raise ValueError(
                f"The server must start. Received: exit status {process.wait()}: "
                f"{self._log.read_text(encoding='utf-8')[-_LOG_CHARACTERS:]}"
            )
        return line

    def start_and_ask(self, request: bytes) -> tuple[float, predict_pb2.PredictResponse]:
        """Starts the process; returns the seconds until its first answer, and the answer."""
        began = time.perf_counter()
        self.start()
        answer = self.ask(request)
        return time.perf_counter() - began, answer

    def kill_and_ask_standby(self, request: bytes) -> float:
        """Ends the process by SIGKILL; returns the seconds from then until the standby, the server from now on, has answered.

        Raises:
            ValueError: there is no standby, or it ends instead.
        """
        if self._standby is None:
            raise ValueError("A standby must wait. Received: a server without one. Call start_standby before.")
        began = time.perf_counter()
        self.kill()
        self._process, self._standby = self._standby, None
        self._read_line(self._process)
        self.ask(request)
        return time.perf_counter() - began

    def ask(self, request: bytes) -> predict_pb2.PredictResponse:
        """Asks once, over a connection of its own."""
        with grpc.insecure_channel(self.target, OPTIONS) as channel:
            call = channel.unary_unary(PREDICT, response_deserializer=predict_pb2.PredictResponse.FromString)
            response: predict_pb2.PredictResponse = call(request, timeout=_FIRST_ANSWER_SECONDS, wait_for_ready=True)
        return response

    def kill(self) -> None:
        """Ends the process by SIGKILL, in the middle of whatever it does."""
        _end(self._process, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        _end(self._standby, signal.SIGTERM)  # first, so that it does not take over
        _end(self._process, signal.SIGTERM)


def _end(process: subprocess.Popen[str] | None, number: signal.Signals) -> None:
    if process is None:
        return
    if process.poll() is None:
        process.send_signal(number)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
