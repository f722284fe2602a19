"""The command line: a server of its own, the parts one after the other, then the tables, the JSON and the plot."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.run_report import run_and_report
from benchmarks.serving import faults, load
from benchmarks.serving.cores import choose_cores, pin
from benchmarks.serving.load_clients import LoadClients
from benchmarks.serving.model_server import ModelServer
from benchmarks.serving.report import plot, print_report
from benchmarks.serving.rig import Rig, Settings
from benchmarks.serving.slates import Slates
from serving.model_versions import find_versions
from tf_lift.config import load_config
from tf_lift.config.flags import add_config_flags
from tf_lift.data.dataset_files import open_dataset
from tf_lift.workspace import Workspace

# The order is that of measuring: the speed of a fresh server first; the swap and the kill, which change it, last.
MEASURES: dict[str, Callable[[Rig], Any]] = {
    "load": load.measure_load,
    "c_runtime": load.measure_c_runtime,
    "otherwise": load.measure_otherwise,
    "batches": load.measure_batches,
    "memory": faults.watch_memory,
    "malformed": faults.send_malformed,
    "swap": faults.swap_under_load,
    "restart": faults.kill_and_restart,
}
_SLATE_SIZES, _FIRST_SLATE_SIZE = (10, 100, 500), 100
_PACKAGES = ("tensorflow", "grpcio", "protobuf", "tantivy")
# Environment of the processes: a thread of TensorFlow each, no GPU, and no notes of TensorFlow's among ours.
_ENVIRONMENT = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "ERROR",
}


def run(flags: argparse.Namespace) -> dict[str, Any]:
    """Measures.

    Returns:
        `machine`, `settings` and `results`, by part.

    Raises:
        ValueError: a part is unknown, there is no export, or the server does not start.
    """
    parts, settings, cores = choose_parts(flags.parts or _default_parts(flags)), choose_settings(flags), choose_cores()
    os.environ.update(_ENVIRONMENT)
    pin(0, cores.clients)
    dataset = open_dataset(Workspace(load_config(flags.config, flags.set)))
    versions = find_versions(Workspace(dataset.config).models_dir)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        server = ModelServer(versions[max(versions)], Path(folder), dataset.config.name, cores.server, environment)
        with server, LoadClients(cores.clients, environment) as clients:
            rig = Rig(
                config_path=flags.config,
                overrides=tuple(flags.set),
                model_dir=versions[max(versions)],
                folder=Path(folder),
                cores=cores,
                environment=environment,
                settings=settings,
                slates=Slates(dataset, dataset.config.name, settings.seed),
                server=server,
                clients=clients,
            )
            results = _measure(rig, parts)
    return {
        "machine": {
            "cores": cores.describe(),
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES if _is_installed(name)},
        },
        "settings": {**vars(settings), "version": max(versions), "run_seconds": round(time.monotonic() - began)},
        "results": results,
    }


def _measure(rig: Rig, parts: Sequence[str]) -> dict[str, Any]:
    first_start_seconds, _ = rig.server.start_and_ask(rig.first_request(_FIRST_SLATE_SIZE))
    logging.info("The server answers after %.1f s.", first_start_seconds)
    results: dict[str, Any] = {}
    for part in parts:
        results[part] = MEASURES[part](rig)
    if "restart" in results:
        results["restart"] = {"first_start_seconds": first_start_seconds, **results["restart"]}
    return results


def _default_parts(flags: argparse.Namespace) -> str:
    return ",".join(name for name in MEASURES if name != "batches" or not flags.quick)


def choose_parts(text: str) -> list[str]:
    """The parts of `--parts`, in the order of measuring."""
    names = [name.strip() for name in text.split(",")]
    unknown = sorted(set(names) - set(MEASURES))
    if unknown:
        raise ValueError(f"--parts must be of {', '.join(MEASURES)}. Received: {', '.join(unknown)}. Correct them.")
    if "otherwise" in names and not _is_installed("tantivy"):
        raise ValueError(
            'The part `otherwise` needs tantivy. Received: it is not installed. Run `pip install ".[benchmark]"`, or leave the part out.'
        )
    return [name for name in MEASURES if name in names]


def choose_settings(flags: argparse.Namespace) -> Settings:
    """How much the flags ask for."""
    if not flags.seconds > 0:
        raise ValueError(f"--seconds must be above 0. Received: {flags.seconds}. Raise it.")
    quick = flags.quick
    return Settings(
        seconds=min(flags.seconds, 1.0) if quick else flags.seconds,
        slate_sizes=_SLATE_SIZES,
        rank_slate_sizes=(100,) if quick else _SLATE_SIZES,
        num_requests=64 if quick else 256,
        num_c_requests=1 if quick else 3,
        num_malformed=min(flags.malformed, 1_000) if quick else flags.malformed,
        memory_requests=min(flags.memory_requests, 5_000) if quick else flags.memory_requests,
        otherwise_clients={100: (32,)} if quick else {10: load.NUM_CLIENTS, 100: load.NUM_CLIENTS, 500: (1,)},
        seed=flags.seed,
    )


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description="Measures `serving.local` on an exported model under load and under faults. It changes nothing of the workspace.",
    )
    add_config_flags(parser)
    parser.add_argument(
        "--output", default="workspace/benchmarks/serving.json", help="JSON; a PNG beside it; default: %(default)s"
    )
    parser.add_argument(
        "--parts", default="", help=f"comma-separated: {', '.join(MEASURES)}; default: all; --quick: all but batches"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement; default: %(default)s")
    parser.add_argument("--malformed", type=int, default=10_000, help="requests of the fuzzer; default: %(default)s")
    parser.add_argument(
        "--memory-requests", type=int, default=100_000, help="while the memory is watched; default: %(default)s"
    )
    parser.add_argument(
        "--seed", type=int, default=7, help="of users, items and malformed requests; default: %(default)s"
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, in two to three minutes")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    flags = parse_flags(arguments)
    logging.getLogger("absl").setLevel(logging.WARNING)
    run_and_report("serving", Path(flags.output), lambda: run(flags), plot, print_report)
