"""A local model server for development and tests, with the gRPC API of TensorFlow Serving.

python -m serving.local --model_base_path workspace/complete_journey/models/complete_journey --model_name complete_journey
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from serving.model_versions import find_latest_version

DEFAULT_PORT = 8500  # TensorFlow Serving's port for gRPC.
DEFAULT_MAX_WORKERS = 4
DRAIN_SECONDS = 30.0
EXIT_CODE_WRONG_USE = 2

_DESCRIPTION = """\
Serve the newest version of one exported model over gRPC on this machine, with the API of TensorFlow Serving:
Predict, GetModelMetadata and GetModelStatus. It is for development and tests: it neither batches requests nor picks
up new versions, and it listens on this machine only. Production is TensorFlow Serving: see serving/tf_serving/."""

_EPILOG = """\
example:
  python -m serving.local --model_base_path workspace/complete_journey/models/complete_journey --model_name complete_journey
  python -m serving.client status --model_name complete_journey      (in another terminal)

SIGTERM or Ctrl-C lets running requests end, then exits with code 0. Exit code 2: wrong path, no model, or the port is
taken."""


class LocalServer:
    """Serves the highest version under a base path, from `start` to `stop`, or as a context manager.

    Args:
        model_base_path: Folder of one model, with a numeric folder for each version.
        model_name: The model's name in requests.
        port: TCP port on the loopback address; 0 takes a free one.
        max_workers: Requests that are answered at the same time; more wait.
    """

    def __init__(
        self, model_base_path: str | Path, model_name: str, port: int = 0, max_workers: int = DEFAULT_MAX_WORKERS
    ) -> None:
        if not model_name:
            raise ValueError("The model name must not be empty. Received: ''. Name the model as requests will.")
        if not 0 <= port <= 65_535:
            raise ValueError(f"The port must be in 0..65535. Received: {port}. Use 0 for a free one.")
        if max_workers < 1:
            raise ValueError(f"There must be at least 1 worker. Received: {max_workers}. Raise max_workers.")
        self.model_name = model_name
        self.port = port  # The port that is listened on, once started.
        self.version, self._path = find_latest_version(model_base_path)
        self._max_workers = max_workers
        self._server: grpc.Server | None = None

    def start(self) -> Self:
        """Loads the model and begins to answer.

        Raises:
            ValueError: The server runs already, the port is taken, or the model cannot be loaded.
        """
        if self._server is not None:
            raise ValueError("A server can be started once. Received: start() on a running one. Stop it first.")
        server = grpc.server(
            futures.ThreadPoolExecutor(self._max_workers, thread_name_prefix="serving"),
            # Without this option two servers share a port on Linux, and requests reach either.
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)],
        )
        try:
            self.port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        except RuntimeError as error:
            raise ValueError(
                f"The port must be free. Received: {self.port}, which cannot be listened on. "
                "Stop the other server, or choose another --port (0 takes a free one)."
            ) from error
        try:
            self._add_services(server)
        except ValueError:
            server.start()  # A server that never started cannot be stopped, and would keep the port.
            server.stop(None).wait()
            raise
        server.start()
        self._server = server
        return self

    def _add_services(self, server: grpc.Server) -> None:
        # Imported here because TensorFlow takes seconds: --help and a wrong path must not wait for it.
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        from serving.loaded_model import LoadedModel
        from serving.model_service import ModelService
        from serving.prediction_service import PredictionService

        model = LoadedModel(self.model_name, self.version, self._path)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(model), server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(model), server)

    def stop(self, grace: float = DRAIN_SECONDS) -> None:
        """Refuses new requests and waits until the running ones have ended, at most `grace` seconds."""
        if self._server is not None:
            self._server.stop(grace).wait()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.local",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model_base_path",
        required=True,
        metavar="DIR",
        help="folder of the model, with a numeric folder a version: DIR/1/saved_model.pb",
    )
    parser.add_argument("--model_name", required=True, metavar="NAME", help="the model's name in requests")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="port for gRPC, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--max_workers",
        type=int,
        default=DEFAULT_MAX_WORKERS,
        metavar="N",
        help="requests answered at the same time (default: %(default)s)",
    )
    return parser.parse_args(args)


def run(flags: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")  # Leaves out most of TensorFlow's notes on the processor.
    try:
        server = LocalServer(flags.model_base_path, flags.model_name, flags.port, flags.max_workers).start()
    except ValueError as error:
        print(f"serving.local: {error}", file=sys.stderr)
        return EXIT_CODE_WRONG_USE
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    print(f"Serving {server.model_name} version {server.version} at localhost:{server.port}", flush=True)
    stopped.wait()
    server.stop()
    return 0


def main() -> None:
    """Runs the command line."""
    sys.exit(run(parse_args()))


if __name__ == "__main__":
    main()
