"""The settings of the local server."""

from __future__ import annotations

import os
from dataclasses import dataclass

from serving.request_limits import RequestLimits
from serving.server_configs import DEFAULT_METRICS_PATH, TlsConfig

_MAX_PORT = 65_535
_MINIMUMS = {
    "max_concurrency": 1,
    "max_queue": 0,
    "max_request_bytes": 1,
    "max_input_values": 1,
    "max_batch_size": 1,
    "drain_seconds": 0,
    "poll_seconds": 0,
}


@dataclass(frozen=True)
class ServerOptions:
    """How the local server listens, what it accepts and how it ends.

    Attributes:
        host: Address to listen on; the default is reached from this machine only.
        port: TCP port for gRPC; 0 takes a free one.
        max_concurrency: Requests that run a model at the same time.
        max_queue: Requests that may wait beyond these. At 6 ms a request on one core, the last of 64 waits 0.4 s; whoever
            comes later is better told at once.
        max_request_bytes: Size limit of a message; 4 MiB is gRPC's own.
        max_input_values: Values that one input may have, or declare: a TensorProto of a few bytes may declare terabytes,
            and a model multiplies a slate by its neighbours and its width. 65,536 is 128 slates of 512.
        max_batch_size: Slates, or examples, of a request. What a request has begun to run is run to its end, whatever its deadline: at 0.1
            to 0.2 ms for each empty slate, 1,024 of them hold a place for 0.2 s.
        drain_seconds: How long running requests may take to end when the server stops.
        poll_seconds: How often to look for new versions; 0 never.
        rest_api_port: TCP port for the metrics over HTTP; 0 takes a free one, None serves none.
        metrics_path: Path of the metrics; empty serves none.
        tls: Key and certificates; None speaks without TLS.

    Raises:
        ValueError: A number is out of its range.
    """

    host: str = "127.0.0.1"
    port: int = 0
    max_concurrency: int = max(2, os.cpu_count() or 1)
    max_queue: int = 64
    max_request_bytes: int = 4 << 20
    max_input_values: int = 1 << 16
    max_batch_size: int = 1024
    drain_seconds: float = 30.0
    poll_seconds: float = 1.0
    rest_api_port: int | None = None
    metrics_path: str = DEFAULT_METRICS_PATH
    tls: TlsConfig | None = None

    def __post_init__(self) -> None:
        for name, port in (("port", self.port), ("rest_api_port", self.rest_api_port or 0)):
            if not 0 <= port <= _MAX_PORT:
                raise ValueError(f"{name} must be in 0..{_MAX_PORT}. Received: {port}. Choose another.")
        for name, minimum in _MINIMUMS.items():
            if getattr(self, name) < minimum:
                raise ValueError(f"{name} must be at least {minimum}. Received: {getattr(self, name)}. Raise it.")

    @property
    def request_limits(self) -> RequestLimits:
        """What one request may ask for."""
        return RequestLimits(self.max_input_values, self.max_batch_size)
