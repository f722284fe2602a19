"""Latency and throughput: the server, the call in process, the C runtime, what one would build otherwise, and batches."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

import numpy as np
from tensorflow_serving.apis import predict_pb2
from tqdm import tqdm

from benchmarks.c_runtime.build import build_c_runner
from benchmarks.c_runtime.run import run_c_runner
from benchmarks.serving.cores import can_pin, pinned_to
from benchmarks.serving.in_process import to_arrays
from benchmarks.serving.load_clients import LoadClients, LoadResult, summarise
from benchmarks.serving.request_list import read_requests
from benchmarks.serving.rig import Rig
from benchmarks.serving.worker import Worker
from serving.ranking_messages import RANK_KNOWN_USER_SIGNATURE, RANK_SIGNATURE

NUM_CLIENTS = (1, 8, 32)
ONE_CORE = ", one core"  # ends the ways in which the client, too, is on the server's core
_ONE_CORE_CANDIDATES = 100
_MIN_BLOCKS, _BLOCK_SECONDS = 5, 0.2  # short ones: a shared machine changes its speed from second to second
_WARM_UP_SECONDS = 0.5
_MIN_C_REPEATS, _C_REPEATS_A_SECOND = 20, 20  # of each request
_BATCH_SIZES, _BATCH_THREADS, _BATCH_CANDIDATES = (1, 2, 4, 8, 16, 32), (1, 2), 100
_SECONDS_OF_A_LONE_REQUEST = 0.1  # begin no second one: with tantivy a long slate takes seconds


def measure_load(rig: Rig) -> list[dict[str, Any]]:
    """The server with 1, 8 and 32 clients, and the call in process in blocks that alternate with those of the one client.

    The clients have cores of their own. In the last two rows, of `rank_known_user`, the one client is on the server's core too: that
    is what gRPC costs on one core, without the time in which an idle core of a virtual machine wakes.

    Returns:
        A row for each: `way`, `signature`, `candidates`, `clients`, percentiles in milliseconds, `requests_per_second` and
        `failures`; those of one client also have `ratio`, p50 over that of the call in process.
    """
    rows: list[dict[str, Any]] = []
    settings = rig.settings
    cells = [(RANK_KNOWN_USER_SIGNATURE, size) for size in settings.slate_sizes]
    cells += [(RANK_SIGNATURE, size) for size in settings.rank_slate_sizes]
    arguments = {"model_dir": str(rig.model_dir), "num_threads": 1}
    with Worker("benchmarks.serving.in_process", arguments, rig.cores.server, rig.environment) as direct:
        load_seconds = direct.ready["load_seconds"]
        for signature, size in tqdm(cells, desc="load", unit="slate size"):
            rows += _alternate(rig, direct, rig.clients, signature, size)
            for num_clients in NUM_CLIENTS[1:]:
                found = _warm_and_run(rig, num_clients, signature, size)
                rows.append(_row("gRPC", signature, size, num_clients, found))
        if can_pin():
            with LoadClients(rig.cores.server, rig.environment, num_processes=1) as client:
                rows += _alternate(rig, direct, client, RANK_KNOWN_USER_SIGNATURE, _ONE_CORE_CANDIDATES, where=ONE_CORE)
    rows[0]["load_seconds"] = load_seconds
    return rows


def _warm_and_run(rig: Rig, num_clients: int, signature: str, size: int) -> LoadResult:
    path, target = rig.requests(size, signature), rig.server.target
    rig.clients.run(num_clients, path, target, _WARM_UP_SECONDS)
    return rig.clients.run(num_clients, path, target, rig.settings.seconds)


def _alternate(
    rig: Rig, direct: Worker, clients: LoadClients, signature: str, size: int, where: str = ""
) -> list[dict[str, Any]]:
    num_blocks = max(_MIN_BLOCKS, round(rig.settings.seconds / _BLOCK_SECONDS))
    path, target, seconds = rig.requests(size, signature), rig.server.target, rig.settings.seconds / num_blocks
    job = {"requests_path": str(path), "seconds": seconds}
    direct.run(job)
    clients.run(1, path, target, _WARM_UP_SECONDS)
    in_process: list[float] = []
    grpc_blocks: list[LoadResult] = []
    for _ in range(num_blocks):
        in_process += direct.run({**job, "first_request": len(in_process)})["milliseconds"]
        first = sum(len(block.milliseconds) for block in grpc_blocks)
        grpc_blocks.append(clients.run(1, path, target, seconds, first_request=first))
    served = LoadResult(
        np.concatenate([block.milliseconds for block in grpc_blocks]),
        statistics.mean(block.requests_per_second for block in grpc_blocks),
        dict(sum((Counter(block.failures) for block in grpc_blocks), Counter())),
        {},
    )
    called = LoadResult(np.array(in_process), 1e3 / float(np.mean(in_process)), {}, {})
    rows = [_row(f"in process{where}", signature, size, 1, called), _row(f"gRPC{where}", signature, size, 1, served)]
    rows[1]["ratio"] = rows[1]["p50"] / rows[0]["p50"]
    return rows


def measure_c_runtime(rig: Rig) -> list[dict[str, Any]]:
    """The same signature in TensorFlow's C runtime: a few requests, each again and again. Rows as of `measure_load`."""
    program = build_c_runner(rig.folder)
    rows = []
    for size in tqdm(rig.settings.slate_sizes, desc="C runtime", unit="slate size"):
        path = rig.requests(size)
        parsed = [
            predict_pb2.PredictRequest.FromString(data) for data in read_requests(path)[: rig.settings.num_c_requests]
        ]
        times: list[np.ndarray] = []
        repeats = max(_MIN_C_REPEATS, int(_C_REPEATS_A_SECOND * rig.settings.seconds))
        with pinned_to(rig.cores.server):
            for request in parsed:
                name = request.model_spec.signature_name
                times.append(
                    run_c_runner(program, rig.model_dir, name, to_arrays(request), repeats=repeats).milliseconds
                )
        milliseconds = np.concatenate(times)
        found = LoadResult(milliseconds, 1e3 / float(milliseconds.mean()), {}, {})
        rows.append(_row("C runtime", RANK_KNOWN_USER_SIGNATURE, size, 1, found))
    return rows


def measure_otherwise(rig: Rig) -> list[dict[str, Any]]:
    """Retrieval by tantivy in a Python service, whose tf.Examples the client sends to the model. Rows as of `measure_load`."""
    arguments = {"config": rig.config_path, "overrides": rig.overrides}
    cells = [(size, count) for size, counts in rig.settings.otherwise_clients.items() for count in counts]
    rows = []
    with Worker("benchmarks.serving.retrieval_service", arguments, rig.cores.server, rig.environment) as service:
        job = {"retrieval_target": f"localhost:{service.ready['port']}"}
        for size, num_clients in tqdm(cells, desc="otherwise", unit="measurement"):
            path, target = rig.requests(size), rig.server.target
            rig.clients.run(1, path, target, _SECONDS_OF_A_LONE_REQUEST, **job)
            found = rig.clients.run(num_clients, path, target, rig.settings.seconds, **job)
            rows.append(_row("tantivy", RANK_KNOWN_USER_SIGNATURE, size, num_clients, found))
        service.run({})
    return rows


def measure_batches(rig: Rig) -> list[dict[str, Any]]:
    """Calls in process of B slates of 100 candidates.

    Returns:
        A row for each number of threads and B: `threads`, `batch`, `p50` in milliseconds, and `slates_per_second`.
    """
    rows = []
    cores = rig.cores.server | rig.cores.clients
    with tqdm(total=len(_BATCH_SIZES) * len(_BATCH_THREADS), desc="batches", unit="measurement") as progress:
        for threads in _BATCH_THREADS:
            environment = {**rig.environment, "TF_NUM_INTRAOP_THREADS": str(threads)}
            arguments = {"model_dir": str(rig.model_dir), "num_threads": threads}
            used = rig.cores.server if threads == 1 else cores
            with Worker("benchmarks.serving.in_process", arguments, used, environment) as direct:
                for batch in _BATCH_SIZES:
                    path = rig.requests(_BATCH_CANDIDATES, batch_size=batch)
                    job = {"requests_path": str(path), "seconds": rig.settings.seconds / 2}
                    direct.run(job)
                    times = np.array(direct.run(job)["milliseconds"])
                    rate = 1e3 * batch / float(times.mean())
                    rows.append(
                        {"threads": threads, "batch": batch, "p50": float(np.median(times)), "slates_per_second": rate}
                    )
                    progress.update()
    return rows


def _row(way: str, signature: str, size: int, num_clients: int, found: LoadResult) -> dict[str, Any]:
    return {
        "way": way,
        "signature": signature,
        "candidates": size,
        "clients": num_clients,
        **summarise(found.milliseconds),
        "requests": len(found.milliseconds),
        "requests_per_second": found.requests_per_second,
        "failures": found.failures,
    }
