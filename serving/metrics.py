"""What Prometheus reads from the local server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import grpc
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from serving.admission import Admission
from serving.model_manager import ModelManager

_LATENCY_BUCKETS = (0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass
class RequestLabels:
    """Model and signature of a request, empty until both are known to exist: callers must not make up label values."""

    model_name: str = ""
    signature_name: str = ""


class ServerMetrics:
    """Counts requests and measures their latency; reads queue, running requests, versions and memory when asked.

    Args:
        admission: Whose queue and running requests are shown.
        manager: Whose versions are shown.
    """

    def __init__(self, admission: Admission, manager: ModelManager) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "model_name", "signature_name")
        self._requests = Counter(
            "serving_requests", "Requests answered, by gRPC status.", (*labels, "status"), registry=self.registry
        )
        self._latency = Histogram(
            "serving_request_latency_seconds",
            "From the arrival of a request at its handler to its encoded answer.",
            labels,
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        running = Gauge("serving_requests_in_flight", "Requests that run now.", registry=self.registry)
        running.set_function(lambda: admission.num_running)
        waiting = Gauge("serving_queue_length", "Requests that wait for a place to run.", registry=self.registry)
        waiting.set_function(lambda: admission.num_waiting)
        self.registry.register(_VersionCollector(manager))
        ProcessCollector(registry=self.registry)  # Memory, processor time, open files.

    def observe(self, method: str, labels: RequestLabels, code: grpc.StatusCode, seconds: float) -> None:
        """Counts one answered request."""
        values = (method, labels.model_name, labels.signature_name)
        self._requests.labels(*values, code.name).inc()
        self._latency.labels(*values).observe(seconds)


class _VersionCollector(Collector):
    """1 for the state that each version is in."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "serving_model_version_state", "1 for a version's state.", labels=("model_name", "version", "state")
        )
        for model_name, version, state in self._manager.list_states():
            family.add_metric((model_name, str(version), state), 1.0)
        yield family
