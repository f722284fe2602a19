"""Prometheus metrics over HTTP, at one path."""

from __future__ import annotations

import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

from prometheus_client import CollectorRegistry, MetricsHandler


class MetricsServer:
    """Answers GET requests for the metrics of a registry until it is closed.

    Args:
        registry: What is shown.
        path: Such as `/monitoring/prometheus/metrics`; everything else is not found.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.

    Raises:
        ValueError: The port is taken.
    """

    def __init__(self, registry: CollectorRegistry, path: str, host: str, port: int) -> None:
        try:
            self._server = ThreadingHTTPServer((host, port), _build_handler(registry, path))
        except OSError as error:
            raise ValueError(
                f"The port for metrics must be free. Received: {port}, which cannot be listened on ({error}). "
                "Choose another --rest_api_port."
            ) from error
        self.port = cast(int, self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()


def _build_handler(registry: CollectorRegistry, metrics_path: str) -> type[BaseHTTPRequestHandler]:
    class Handler(MetricsHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] == metrics_path:
                super().do_GET()
            else:
                self.send_error(HTTPStatus.NOT_FOUND, explain=f"Only {metrics_path} is served here.")

    Handler.registry = registry
    return Handler
