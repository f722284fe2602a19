"""The embedded model server: TensorFlow Serving's gRPC API in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent import futures
from functools import partial
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2
from tensorflow_serving.config import model_server_config_pb2

from serving.admission import Admission
from serving.metrics import ServerMetrics
from serving.metrics_server import MetricsServer
from serving.model_manager import ModelManager
from serving.model_service import ModelService
from serving.prediction_service import PredictionService
from serving.rpc_methods import add_methods
from serving.server_options import ServerOptions
from serving.warmup import load_warm_model

# Threads beyond those of admitted requests: they refuse the excess, and answer health, status and metadata.
_SPARE_THREADS = 8
_LAST_ANSWERS_SECONDS = 1.0  # For answers that are on their way when the last request has ended.
_RETRY_WAIT_SECONDS = 0.02  # Between two tries to take a port.
_PREDICTION_SERVICE = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"]
_MODEL_SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]


class LocalServer:
    """Serves models from `start` to `stop`, or as a context manager. It starts once, or loads first and listens later.

    Args:
        configs: Name, base path, version policy and labels of every model.
        options: How to listen, what to accept and how to end.
    """

    def __init__(
        self, configs: Sequence[model_server_config_pb2.ModelConfig], options: ServerOptions | None = None
    ) -> None:
        self.options = options or ServerOptions()
        self.port = self.options.port  # The ports that are listened on, once started.
        self.rest_api_port = self.options.rest_api_port
        self.manager = ModelManager(
            configs,
            partial(load_warm_model, limits=self.options.request_limits),
            self.options.poll_seconds,
        )
        self._admission = Admission(self.options.max_concurrency, self.options.max_queue)
        self._metrics = ServerMetrics(self._admission, self.manager)
        self._health = health.HealthServicer()
        self._server: grpc.Server | None = None
        self._metrics_server: MetricsServer | None = None

    def start(self) -> Self:
        """Takes the ports, so that a taken one is told at once, loads and warms up the models, and begins to answer.

        Raises:
            ValueError: The server was started before, a port is taken, or a model cannot be loaded.
        """
        server = self._take_ports(0.0)
        self.load()
        server.start()
        return self

    def load(self) -> None:
        """Loads and warms up the models, and looks for new versions from now on, but answers nobody before `listen`.

        Raises:
            ValueError: A model cannot be loaded.
        """
        try:
            self.manager.start()
        except ValueError:
            self._abandon()
            raise

    def listen(self, retry_seconds: float = 0.0) -> Self:
        """Takes the ports, and begins to answer by the models that `load` has loaded.

        Args:
            retry_seconds: For how long to try again to take a port that is not free yet.

        Raises:
            ValueError: The server was started before, or a port is taken.
        """
        self._take_ports(retry_seconds).start()
        return self

    def _take_ports(self, retry_seconds: float) -> grpc.Server:
        if self._server is not None:
            raise ValueError("A server can be started once. Received: start() on a started one. Build another.")
        end = time.monotonic() + retry_seconds
        server = self._build_server()
        _try_until(end, self._start_metrics_server)
        try:
            _try_until(end, partial(self._take_port, server))  # Last: who connects from now on waits for an answer.
        except ValueError:
            self._close_metrics_server()
            raise
        self._server = server
        return server

    def _close_metrics_server(self) -> None:
        if self._metrics_server is not None:
            self._metrics_server.close()
            self._metrics_server = None

    def _abandon(self) -> None:
        if self._server is not None:
            self._server.start()  # A server that never started cannot be stopped, and would keep the port.
        self.stop()

    def _build_server(self) -> grpc.Server:
        options = self.options
        num_threads = options.max_concurrency + options.max_queue + _SPARE_THREADS
        server = grpc.server(
            futures.ThreadPoolExecutor(num_threads, thread_name_prefix="serving"),
            options=[
                # Without this option two servers share a port on Linux, and requests reach either.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", options.max_request_bytes),
            ],
        )
        prediction_service, model_service = PredictionService(self.manager), ModelService(self.manager)
        methods = prediction_service.model_answers
        add_methods(server, _PREDICTION_SERVICE, methods, self._metrics, self._admission)
        add_methods(server, _PREDICTION_SERVICE, prediction_service.metadata_answers, self._metrics, None)
        add_methods(server, _MODEL_SERVICE, model_service.answers, self._metrics, None)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for service in (_PREDICTION_SERVICE, _MODEL_SERVICE):
            self._health.set(service.full_name, health_pb2.HealthCheckResponse.SERVING)
        return server

    def _take_port(self, server: grpc.Server) -> None:
        options = self.options
        address = f"{options.host}:{options.port}"
        try:
            if options.tls is None:
                self.port = server.add_insecure_port(address)
            else:
                credentials = grpc.ssl_server_credentials(
                    [(options.tls.server_key, options.tls.server_cert)],
                    root_certificates=options.tls.custom_ca or None,
                    require_client_auth=options.tls.client_verify,
                )
                self.port = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ValueError(
                f"The port must be free. Received: {options.port} of {options.host}, which cannot be listened on. "
                "Stop the other server, or choose another --port (0 takes a free one)."
            ) from error

    def _start_metrics_server(self) -> None:
        options = self.options
        if options.rest_api_port is not None and options.metrics_path:
            self._metrics_server = MetricsServer(
                self._metrics.registry, options.metrics_path, options.host, options.rest_api_port
            )
            self.rest_api_port = self._metrics_server.port

    def stop(self) -> bool:
        """Says that it is not serving, refuses new requests, and waits for the running ones and for a load, `drain_seconds` at most.

        Returns:
            Whether all of them ended; the others are cut off for their callers, and TensorFlow runs them to their end.
        """
        end = time.monotonic() + self.options.drain_seconds
        self._health.enter_graceful_shutdown()
        is_drained = self._admission.drain(self.options.drain_seconds)
        if self._server is not None:
            self._server.stop(_LAST_ANSWERS_SECONDS).wait()
        self._close_metrics_server()
        return is_drained and self.manager.stop(max(0.0, end - time.monotonic()))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _try_until(end: float, take: Callable[[], None]) -> None:
    """Takes a port, trying until a time of `time.monotonic`. Raises the ValueError of the last try."""
    while True:
        try:
            return take()
        except ValueError:
            if time.monotonic() >= end:
                raise
            time.sleep(_RETRY_WAIT_SECONDS)
