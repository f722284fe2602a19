"""What must go well when something goes wrong: a hot swap under load, a kill, malformed requests, and the memory."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from tqdm import tqdm

from benchmarks.serving.cores import read_memory
from benchmarks.serving.fuzz_cases import Sources, draw_cases
from benchmarks.serving.fuzz_examples import ExampleSources
from benchmarks.serving.load_client import OPTIONS, PREDICT
from benchmarks.serving.load_clients import summarise
from benchmarks.serving.request_list import read_requests
from benchmarks.serving.rig import Rig
from serving.published_protos import predict_pb2
from serving.rank_request import UserItemPair
from serving.ranking_messages import RANK_SIGNATURE
from serving.server_options import ServerOptions
from serving.tensor_protos import decode_tensor

_CLIENTS = 8
_CANDIDATES, _MEMORY_CANDIDATES = 100, 10
_SWAP_SECONDS = 120.0  # at most
_BEFORE_AND_AFTER_SECONDS = 2.0
_CHECK_EVERY = 100
_TOLERANCE = 1e-5
_MEMORY_STEPS = 10
_MAX_PROBLEMS = 20
_CALL_SECONDS = 30.0


def swap_under_load(rig: Rig) -> dict[str, Any]:
    """Adds a version in one rename while 8 clients ask, and goes on for two seconds after it answers."""
    stop, request = rig.folder / "stop-swap", rig.first_request(_CANDIDATES)
    old = rig.server.ask(request).model_spec.version.value
    rig.clients.begin(_CLIENTS, rig.requests(_CANDIDATES), rig.server.target, _SWAP_SECONDS, stop_path=str(stop))
    time.sleep(_BEFORE_AND_AFTER_SECONDS)
    began = time.monotonic()
    new = rig.server.add_version()
    while rig.server.ask(request).model_spec.version.value != new and time.monotonic() - began < _SWAP_SECONDS:
        time.sleep(0.1)
    seconds = time.monotonic() - began
    time.sleep(_BEFORE_AND_AFTER_SECONDS)
    stop.touch()
    found = rig.clients.finish()
    return {
        "clients": _CLIENTS,
        "answers_of_old": found.versions.get(old, 0),
        "answers_of_new": found.versions.get(new, 0),
        "seconds_until_new": seconds,
        "failures": found.failures,
        **summarise(found.milliseconds),
        "slowest": float(found.milliseconds.max(initial=0.0)),
    }


def kill_and_restart(rig: Rig) -> dict[str, Any]:
    """Kills the server while 8 clients ask, twice: without a standby, so that it is started again, and while a standby waits.

    Returns:
        Of both ways, `restart` and `takeover`, what `_kill_under_load` returns, by `WAY_NAME`; and `calm_start_seconds`, of a start without
        clients, which says how long one takes on the machine as it is at that moment.
    """
    server = rig.server

    def start_again(request: bytes) -> float:
        server.kill()
        return server.start_and_ask(request)[0]

    restart = _kill_under_load(rig, "restart", start_again)
    calm_seconds = start_again(rig.first_request(_CANDIDATES))
    server.start_standby()
    takeover = _kill_under_load(rig, "takeover", server.kill_and_ask_standby)
    return {**takeover, **restart, "calm_start_seconds": calm_seconds}


def _kill_under_load(rig: Rig, way: str, kill: Callable[[bytes], float]) -> dict[str, Any]:
    """Kills the server while 8 clients ask, and compares its answers with those before.

    Args:
        rig: what is under test.
        way: begins the names of what is returned.
        kill: kills, and returns the seconds until a request is answered again.

    Returns:
        `WAY_seconds`; `WAY_failures_of_clients` (gRPC status -> number) and `WAY_answers_of_clients`; `WAY_largest_difference`, of
        probabilities.
    """
    requests = read_requests(rig.requests(_CANDIDATES))[:20]
    before = [read_probabilities(rig.server.ask(request)) for request in requests]
    stop = rig.folder / f"stop-{way}"
    rig.clients.begin(_CLIENTS, rig.requests(_CANDIDATES), rig.server.target, _SWAP_SECONDS, stop_path=str(stop))
    time.sleep(_BEFORE_AND_AFTER_SECONDS)
    seconds = kill(requests[0])
    stop.touch()
    found = rig.clients.finish()
    after = [read_probabilities(rig.server.ask(request)) for request in requests]
    return {
        f"{way}_seconds": seconds,
        f"{way}_failures_of_clients": found.failures,
        f"{way}_answers_of_clients": len(found.milliseconds),
        f"{way}_largest_difference": max(float(np.abs(a - b).max()) for a, b in zip(before, after, strict=True)),
    }


def send_malformed(rig: Rig) -> dict[str, Any]:
    """Sends the fuzzer's requests, and after every hundred a well-formed one.

    Returns:
        `sent`; `statuses`: kind -> status -> number; `unexpected` of them, with the first ones as `problems`; `checked` and
        `wrong_answers` of the well-formed ones; `messages`: status -> one message.
    """
    settings, requests = rig.settings, read_requests(rig.requests(_MEMORY_CANDIDATES))
    sources = _build_sources(rig, requests)
    right = read_probabilities(rig.server.ask(requests[0]))
    statuses: dict[str, Counter[str]] = defaultdict(Counter)
    problems: list[str] = []
    messages: dict[str, str] = {}
    num_unexpected = num_checked = num_wrong = 0
    with grpc.insecure_channel(rig.server.target, OPTIONS) as channel:
        cases = draw_cases(sources, settings.num_malformed, settings.seed)
        for number, case in enumerate(tqdm(cases, total=settings.num_malformed, desc="malformed", unit="request"), 1):
            status, message = call(channel, case.method, case.data)
            statuses[case.kind][status] += 1
            messages.setdefault(status, message)
            if status not in case.expected:
                num_unexpected += 1
                problems.append(f"{case.kind}: {status} in place of {sorted(case.expected)}: {message[:300]}")
            if number % _CHECK_EVERY == 0:
                num_checked += 1
                num_wrong += not np.allclose(read_probabilities(rig.server.ask(requests[0])), right, atol=_TOLERANCE)
    return {
        "sent": settings.num_malformed,
        "statuses": {kind: dict(counts) for kind, counts in sorted(statuses.items())},
        "unexpected": num_unexpected,
        "problems": sorted(set(problems))[:_MAX_PROBLEMS],
        "checked": num_checked,
        "wrong_answers": num_wrong,
        "messages": messages,
    }


def _build_sources(rig: Rig, requests: list[bytes]) -> Sources:
    inputs = predict_pb2.PredictRequest.FromString(requests[0]).inputs
    user, item, time_ = (decode_tensor(inputs[name]).ravel()[0] for name in ("user", "candidates", "time"))
    pair = UserItemPair(user.decode(), item.decode(), int(time_))
    with_history = read_requests(rig.requests(_MEMORY_CANDIDATES, RANK_SIGNATURE))
    examples = ExampleSources(rig.server.model_name, pair, rig.slates.read_examples(10))
    return Sources([*requests, *with_history], examples, ServerOptions().max_request_bytes)


def call(channel: grpc.Channel, method: str, data: bytes) -> tuple[str, str]:
    """Calls a method of PredictionService with a message; returns the name of the status, and what it says."""
    invoke = channel.unary_unary(f"{PREDICT.rpartition('/')[0]}/{method}")
    try:
        invoke(data, timeout=_CALL_SECONDS, wait_for_ready=True)
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


def read_probabilities(response: predict_pb2.PredictResponse) -> np.ndarray:
    """float32 [B, C]."""
    return decode_tensor(response.outputs["probabilities"])


def watch_memory(rig: Rig) -> dict[str, Any]:
    """Reads the server's memory while 8 clients ask.

    Returns:
        `steps`: `requests` so far, and what `read_memory` says; `slope` of `find_slope`; and the number of `failures`.
    """
    path, target = rig.requests(_MEMORY_CANDIDATES), rig.server.target
    share = max(1, rig.settings.memory_requests // (_MEMORY_STEPS * _CLIENTS))
    steps, asked, failures = [], 0, Counter[str]()
    steps.append({"requests": 0, **read_memory(rig.server.process_id)})
    for _ in tqdm(range(_MEMORY_STEPS), desc="memory", unit="step"):
        found = rig.clients.run(_CLIENTS, path, target, float("inf"), max_requests=share)
        asked += len(found.milliseconds)
        failures.update(found.failures)
        steps.append({"requests": asked, **read_memory(rig.server.process_id)})
    return {"steps": steps, "slope": find_slope(steps), "failures": dict(failures)}


def find_slope(steps: list[dict[str, int]]) -> float:
    """Bytes of anonymous memory a request over the second half of the steps, by least squares."""
    later = steps[len(steps) // 2 :]
    return float(np.polyfit([step["requests"] for step in later], [step["anonymous"] for step in later], 1)[0])
