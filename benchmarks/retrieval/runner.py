"""Starts each (data set, engine) in a fresh process, watches its memory, and compares its answers with the truth."""

import dataclasses
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval.data import DataSpec
from benchmarks.retrieval.engines import ENGINES, OURS, missing_packages
from benchmarks.retrieval.measure import OUT_OF_MEMORY, REFERENCE, Job
from benchmarks.retrieval.reference import Agreement, Answers, compare

GIBIBYTE = 1 << 30
_POLL_SECONDS = 0.05
_MAX_BUILD_AGAIN = 60.0  # seconds; ours is not built a second time where it takes longer
_ONE_THREAD = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA", "RAYON", "NUMEXPR", "BLIS")
}
_MILLION = 1_000_000
_MAX_SCANNED = 2_000_000_000  # rows times targets of the brute force: 40 targets at 50 million rows


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a process may use.

    Attributes:
        num_neighbours: K.
        num_targets: at most so many are timed.
        num_samples: at most so many are compared with the truth.
        seconds: of timed queries, each way to answer.
        time_limit: seconds of a build.
        memory_bytes: resident.
    """

    num_neighbours: int
    num_targets: int
    num_samples: int
    seconds: float
    time_limit: int
    memory_bytes: int


def measure_data_set(
    spec: DataSpec, engines: list[str], limits: Limits, scratch: Path, earlier: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Measures the engines on one data set; ours first and, unless its build takes long, once more at the end.

    Args:
        spec: the data set.
        engines: names.
        limits: of each process.
        scratch: a folder for jobs and answers.
        earlier: outcomes of smaller data sets, from which memory and time are foretold.

    Returns:
        An outcome for each engine: `data`, `engine`, `status` (`ok`, or why there are no figures), the figures and `agreement`.
    """
    samples = int(np.clip(_MAX_SCANNED // (spec.num_rows or _MILLION), 1, limits.num_samples))
    truth = scratch / "truth.npz"
    status, reference = run_job(_job(spec, REFERENCE, limits, samples, scratch, truth), limits, scratch)
    if status != "ok":
        failed = {"data": spec.name, "num_rows": spec.num_rows, "status": f"no brute force: {status}"}
        return [{**failed, "engine": engine, "queries_per_second": {}} for engine in engines]
    outcomes = []
    for engine in engines:
        job = _job(spec, engine, limits, samples, scratch, scratch / "answers.npz")
        status, figures = _measure_engine(job, reference["num_rows"], limits, scratch, earlier, truth)
        if status != "ok":
            logging.info("%s, %s: %s", spec.name, engine, status)
        outcomes.append({"data": spec.name, "engine": engine, "status": status, **reference, **figures})
    if len(engines) > 1 and engines[0] == OURS and outcomes[0].get("build_seconds", np.inf) < _MAX_BUILD_AGAIN:
        job = _job(spec, OURS, limits, samples, scratch, scratch / "answers.npz")
        _measure_again(outcomes[0], job, limits, scratch)
    for outcome in outcomes:
        rates = outcome.get("rates", {})
        outcome["queries_per_second"] = {name: statistics.median(blocks) for name, blocks in rates.items()}
    return outcomes


def _measure_engine(
    job: Job, num_rows: int, limits: Limits, scratch: Path, earlier: list[dict[str, Any]], truth: Path
) -> tuple[str, dict[str, Any]]:
    missing = missing_packages(job.engine)
    if missing:
        return f"not installed: {', '.join(missing)}", {}
    foretold = foretell(job.engine, num_rows, earlier, limits)
    if foretold:
        return foretold, {}
    status, figures = run_job(job, limits, scratch)
    if status == "ok":
        found = compare(_read(Path(job.answers_path)), _read(truth), ENGINES[job.engine].tolerance)
        figures["agreement"] = dataclasses.asdict(found)
        _log(job, figures, found)
    return status, figures


def _measure_again(outcome: dict[str, Any], job: Job, limits: Limits, scratch: Path) -> None:
    """Adds the rates after the other engines' turn, so that a machine that slowed down in between shows."""
    status, figures = run_job(job, limits, scratch)
    if status != "ok":
        raise ValueError(f"{OURS} must answer again as before. Received: {status} on {job.data.name!r}.")
    before, after = outcome["rates"], figures["rates"]
    outcome["before_and_after"] = [statistics.median(rates[""]) for rates in (before, after)]
    outcome["rates"] = {name: before[name] + after[name] for name in before}
    outcome["build_seconds"] = min(outcome["build_seconds"], figures["build_seconds"])


def _job(spec: DataSpec, engine: str, limits: Limits, samples: int, scratch: Path, answers: Path) -> Job:
    return Job(
        data=spec,
        engine=engine,
        num_neighbours=limits.num_neighbours,
        num_targets=limits.num_targets,
        num_samples=samples,
        seconds=limits.seconds,
        time_limit=limits.time_limit,
        answers_path=str(answers),
        figures_path=str(scratch / "figures.json"),
    )


def run_job(job: Job, limits: Limits, scratch: Path) -> tuple[str, dict[str, Any]]:
    """Runs a job to its end or its limit; returns the status and the figures."""
    import psutil

    path = scratch / "job.json"
    job.write(path)
    Path(job.figures_path).unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.retrieval.measure", str(path)]
    environment = {**os.environ, **_ONE_THREAD, "TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment) as child:
        watched, most = psutil.Process(child.pid), 0
        while child.poll() is None:
            try:
                most = max(most, watched.memory_info().rss)
            except psutil.NoSuchProcess:
                break
            if most > limits.memory_bytes:
                child.kill()
            time.sleep(_POLL_SECONDS)
        code = child.wait()
    if most > limits.memory_bytes or code in (OUT_OF_MEMORY, -signal.SIGKILL):
        return f"memory: more than {limits.memory_bytes / GIBIBYTE:.3g} GiB", {}
    if code == -signal.SIGALRM:
        return f"over time limit: {job.time_limit} s", {}
    if code:
        raise ValueError(
            f"{job.engine} must answer on {job.data.name!r}. Received: exit status {code}; its error is above."
        )
    return "ok", json.loads(Path(job.figures_path).read_text(encoding="utf-8"))


def foretell(engine: str, num_rows: int, earlier: list[dict[str, Any]], limits: Limits) -> str:
    """Why an engine need not be started on a larger log, from its figures on smaller ones; or empty."""
    known = [outcome for outcome in earlier if outcome["engine"] == engine and outcome["num_rows"] < num_rows]
    if not known:
        return ""
    last = max(known, key=lambda outcome: outcome["num_rows"])
    growth = num_rows / last["num_rows"]
    if last["status"] != "ok":
        kind = last["status"].partition(":")[0]
        return f"{kind}: as with fewer rows"
    gibibytes = growth * last["peak_bytes"] / GIBIBYTE
    if gibibytes * GIBIBYTE > limits.memory_bytes:
        return f"memory: about {gibibytes:.0f} GiB foretold"
    seconds = growth * last["build_seconds"]
    return f"over time limit: about {seconds:.0f} s foretold" if seconds > limits.time_limit else ""


def _read(path: Path) -> Answers:
    with np.load(path) as arrays:
        return Answers(arrays["rows"], arrays["scores"])


def _log(job: Job, figures: Mapping[str, Any], found: Agreement) -> None:
    logging.info(
        "%s, %s: %.0f queries/s; of %d answers %.1f %% have the true scores and %.1f %% the true rows",
        job.data.name,
        job.engine,
        statistics.median(figures["rates"][""]),
        found.num_targets,
        100 * found.scores,
        100 * found.rows,
    )
