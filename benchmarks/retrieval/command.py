"""The command line: which data sets and engines, then one process each, the table, the JSON, and the plot."""

import argparse
import importlib.metadata
import importlib.util
import logging
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.retrieval.data import DataSpec, ml_1m_dir
from benchmarks.retrieval.engines import ENGINES, OURS, missing_packages
from benchmarks.retrieval.report import SYNTHETIC, find_growth, find_ratios, plot, print_report
from benchmarks.retrieval.runner import GIBIBYTE, Limits, measure_data_set
from benchmarks.run_report import run_and_report

NUM_NEIGHBOURS = 10
MILLION = 1_000_000
QUICK_ROWS, QUICK_SECONDS, QUICK_QUERIES, QUICK_SAMPLES = 100_000, 3.0, 20_000, 50
_PACKAGES = ("numpy", "numba", "tantivy", "bm25s")


def run(flags: argparse.Namespace) -> dict[str, Any]:
    """Measures every data set with every engine.

    Returns:
        `machine`, `settings`, `outcomes` (one for each data set and engine), `ratios` and `growth`.
    """
    engines, specs = choose_engines(flags), choose_data(flags)
    limits = Limits(
        NUM_NEIGHBOURS,
        min(flags.queries, QUICK_QUERIES) if flags.quick else flags.queries,
        min(flags.samples, QUICK_SAMPLES) if flags.quick else flags.samples,
        min(flags.seconds, QUICK_SECONDS) if flags.quick else flags.seconds,
        flags.time_limit,
        int(flags.memory_gib * GIBIBYTE),
    )
    outcomes: list[dict[str, Any]] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="retrieval-") as scratch:
        for spec in specs:
            logging.info("-- %s (%.0f s so far)", spec.name, time.monotonic() - began)
            able = engines if spec.is_for_peers() else [name for name in engines if name == OURS]
            earlier = [item for item in outcomes if item["data"].startswith(SYNTHETIC)] if spec.num_rows else []
            if able:
                outcomes += measure_data_set(spec, able, limits, Path(scratch), earlier)
    return {
        "machine": {
            "processor": _processor(),
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _PACKAGES if not is_missing(name)},
        },
        "settings": {**vars(limits), "seed": flags.seed, "run_seconds": round(time.monotonic() - began)},
        "outcomes": outcomes,
        "ratios": find_ratios(outcomes),
        "growth": find_growth(outcomes),
    }


def choose_data(flags: argparse.Namespace) -> list[DataSpec]:
    """The data sets of the flags, the smallest synthetic log first."""
    specs = []
    if ml_1m_dir() is not None:
        specs.append(DataSpec("ml_1m", "ml_1m", seed=flags.seed))
        if not flags.quick:
            specs.append(DataSpec("ml_1m, rolling", "ml_1m", rolling=True, seed=flags.seed))
            specs.append(
                DataSpec("ml_1m, rolling, others only", "ml_1m", rolling=True, exclude_own_user=True, seed=flags.seed)
            )
    elif not flags.quick:
        logging.info("ml_1m is left out: set TF_LIFT_DATA to the folder that holds ml_1m (see configs/ml_1m.toml).")
    sizes = [] if flags.quick and specs else [QUICK_ROWS] if flags.quick else parse_sizes(flags.sizes)
    return specs + [DataSpec(f"{SYNTHETIC} {_name(size)}", "synthetic", size, seed=flags.seed) for size in sizes]


def parse_sizes(text: str) -> list[int]:
    """Rows, ascending, of comma-separated millions."""
    try:
        sizes = sorted({round(float(part) * MILLION) for part in text.split(",") if part.strip()})
    except ValueError as error:
        raise ValueError(
            f"--sizes must be comma-separated millions of rows, as in 1,5,20. Received: {text!r}."
        ) from error
    if any(size < 1 for size in sizes):
        raise ValueError(f"--sizes must be positive. Received: {text!r}.")
    return sizes


def _name(num_rows: int) -> str:
    return f"{num_rows / MILLION:g}M" if num_rows >= MILLION else f"{num_rows:,}"


def choose_engines(flags: argparse.Namespace) -> list[str]:
    engines = [name.strip() for name in flags.engines.split(",")]
    unknown = [name for name in engines if name not in ENGINES]
    if unknown:
        raise ValueError(f"--engines must be of {', '.join(ENGINES)}. Received: {', '.join(unknown)}.")
    missing = sorted({package for name in [*engines, OURS] for package in missing_packages(name)})
    missing += ["psutil"] if is_missing("psutil") else []
    if missing:
        logging.warning('Not installed: %s. `pip install ".[benchmark]"` installs all engines.', ", ".join(missing))
    if "psutil" in missing:
        raise ValueError(
            'psutil must watch the memory. Received: it is not installed. Run `pip install ".[benchmark]"`.'
        )
    return sorted(engines, key=list(ENGINES).index)


def is_missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def first_fault(outcomes: Sequence[dict[str, Any]]) -> str:
    """What is wrong with our own answers, or empty."""
    for outcome in outcomes:
        if outcome["engine"] == OURS and outcome["status"] == "ok" and outcome["agreement"]["first_difference"]:
            difference = outcome["agreement"]["first_difference"]
            return f"{OURS} must answer as brute force does. Received on {outcome['data']}: {difference}."
    return ""


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.retrieval",
        description="Measures exact BM25 retrieval beside other engines, each in a process of its own on one core.",
    )
    parser.add_argument(
        "--output", default="workspace/benchmarks/retrieval.json", help="JSON; a PNG beside it; default: %(default)s"
    )
    parser.add_argument(
        "--sizes", default="1,5,20,50", help="synthetic logs, in millions of rows; default: %(default)s"
    )
    parser.add_argument("--engines", default=",".join(ENGINES), help="comma-separated; default: %(default)s")
    parser.add_argument("--queries", type=int, default=100_000, help="at most so many are timed; default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="of timed queries, each engine; default: %(default)s"
    )
    parser.add_argument(
        "--samples", type=int, default=200, help="answers compared with brute force; default: %(default)s"
    )
    parser.add_argument(
        "--memory-gib", type=float, default=20.0, help="of a process, else `memory`; default: %(default)s"
    )
    parser.add_argument("--time-limit", type=int, default=300, help="seconds of a build; default: %(default)s")
    parser.add_argument("--seed", type=int, default=7, help="of logs and targets; default: %(default)s")
    parser.add_argument(
        "--quick", action="store_true", help="ML-1M, or 100,000 synthetic rows without it, in about a minute"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    flags = parse_flags(arguments)
    summary = run_and_report("retrieval", Path(flags.output), lambda: run(flags), plot, print_report)
    fault = first_fault(summary["outcomes"])
    if fault:
        sys.exit(f"retrieval: {fault}")
