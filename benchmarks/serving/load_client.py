"""A process of load clients: threads that each ask, wait for the answer and ask again. Loads no TensorFlow."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from benchmarks.serving.request_list import read_requests
from benchmarks.serving.worker import serve_jobs
from serving.published_protos import predict_pb2, tensor_pb2, tensor_shape_pb2, types_pb2

PREDICT = "/tensorflow.serving.PredictionService/Predict"
BUILD_EXAMPLE = "/tf_lift.benchmarks.Retrieval/BuildExample"
# gRPC would try a call again by itself where the server has refused it unread: here that is a failed request.
OPTIONS = [
    ("grpc.enable_retries", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
]
_TIMEOUT_SECONDS = 300.0
Send = Callable[[bytes], predict_pb2.PredictResponse]


@dataclass(frozen=True)
class LoadJob:
    """What the clients of a process do: ask until the time is over, each has asked often enough, or a file appears.

    Attributes:
        requests_path: of `write_requests`.
        target: the model server.
        num_threads: clients of this process; they share a connection.
        begin_at: when to begin, by `time.monotonic`, which all processes share.
        seconds: how long to begin requests; those that run are waited for.
        max_requests: requests of a thread; None: no limit.
        first_request: place of the first thread's first request; the others begin elsewhere.
        stop_path: a file whose appearance ends the job; "" for none.
        retrieval_target: a retrieval service, which is asked for the tf.Example that the model then gets; "" for none.
    """

    requests_path: str
    target: str
    num_threads: int
    begin_at: float
    seconds: float
    max_requests: int | None = None
    first_request: int = 0
    stop_path: str = ""
    retrieval_target: str = ""

    def is_over(self, num_asked: int) -> bool:
        """Whether a client that has asked so often is to ask no more."""
        if self.max_requests is not None and num_asked >= self.max_requests:
            return True
        return time.monotonic() >= self.begin_at + self.seconds or bool(
            self.stop_path and Path(self.stop_path).exists()
        )


@dataclass
class _Tally:
    """What one client saw: milliseconds of the answered requests, and numbers of failures by status and answers by version."""

    milliseconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    versions: Counter[int] = field(default_factory=Counter)
    ended_at: float = 0.0


def do_job(**values: Any) -> dict[str, Any]:
    """Does a LoadJob, given as its attributes.

    Returns:
        `milliseconds` of answered requests, `failures` (gRPC status -> number), `versions` (version -> number of answers) and
        `ended_at`, by `time.monotonic`.
    """
    job = LoadJob(**values)
    requests = read_requests(job.requests_path)
    tallies = [_Tally() for _ in range(job.num_threads)]
    channels = [grpc.insecure_channel(name, OPTIONS) for name in (job.target, job.retrieval_target) if name]
    send = _predict_from_examples(*channels) if job.retrieval_target else _predict_with(channels[0])
    threads = []
    for place, tally in enumerate(tallies):
        first = job.first_request + place * len(requests) // job.num_threads
        threads.append(threading.Thread(target=_ask, args=(job, send, requests, first, tally)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for channel in channels:
        channel.close()
    return {
        "milliseconds": [value for tally in tallies for value in tally.milliseconds],
        "failures": dict(sum((tally.failures for tally in tallies), Counter())),
        "versions": dict(sum((tally.versions for tally in tallies), Counter())),
        "ended_at": max(tally.ended_at for tally in tallies),
    }


def _ask(job: LoadJob, send: Send, requests: list[bytes], first: int, tally: _Tally) -> None:
    """One client: asks, waits for the answer, and asks again."""
    time.sleep(max(0.0, job.begin_at - time.monotonic()))
    num_asked = 0
    while not job.is_over(num_asked):
        request = requests[(first + num_asked) % len(requests)]
        num_asked += 1
        began = time.perf_counter()
        try:
            response = send(request)
        except grpc.RpcError as error:
            tally.failures[error.code().name] += 1
            continue
        tally.milliseconds.append(1e3 * (time.perf_counter() - began))
        tally.versions[response.model_spec.version.value] += 1
    tally.ended_at = time.monotonic()


def _predict_with(channel: grpc.Channel) -> Send:
    call = channel.unary_unary(PREDICT, response_deserializer=predict_pb2.PredictResponse.FromString)
    return lambda request: call(request, timeout=_TIMEOUT_SECONDS, wait_for_ready=True)


def _predict_from_examples(model: grpc.Channel, retrieval: grpc.Channel) -> Send:
    predict, build_example = _predict_with(model), retrieval.unary_unary(BUILD_EXAMPLE)
    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=1)])

    def send(request: bytes) -> predict_pb2.PredictResponse:
        example = build_example(request, timeout=_TIMEOUT_SECONDS, wait_for_ready=True)
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape=shape, string_val=[example])
        message = predict_pb2.PredictRequest(inputs={"examples": tensor}, output_filter=["probabilities"])
        message.model_spec.name = predict_pb2.PredictRequest.FromString(request).model_spec.name
        return predict(message.SerializeToString())

    return send


if __name__ == "__main__":
    serve_jobs(lambda: (do_job, {}))
