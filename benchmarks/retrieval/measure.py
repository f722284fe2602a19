"""One engine on one data set, in a process of its own: `python -m benchmarks.retrieval.measure JOB.json`, started by `runner`."""

import ctypes
import dataclasses
import gc
import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval.data import DataSet, DataSpec, Rows, load
from benchmarks.retrieval.engines import ENGINES, Engine, use_one_core
from benchmarks.retrieval.reference import Answers, brute_force
from tf_lift.workspace import write_json

REFERENCE = "brute force"
NUM_BLOCKS = 5
OUT_OF_MEMORY = 77  # exit status
_PILOT_SHARE = 0.05  # of the seconds, to find out how many targets a block can hold
_VARIANT_SHARE = 0.25  # of the seconds, for each further way to answer
_WARM_UP_ROWS, _WARM_UP_TARGETS = 2000, 8
_KIBIBYTE = 1024


@dataclasses.dataclass(frozen=True)
class Job:
    """What a process measures.

    Attributes:
        data: the data set.
        engine: a name of `ENGINES`, or REFERENCE, which answers the sample by brute force.
        num_neighbours: K.
        num_targets: at most so many are timed, in NUM_BLOCKS blocks.
        num_samples: the first so many are compared with the truth.
        seconds: about so long are targets timed, for each way to answer.
        time_limit: seconds that the build may take, and so may the queries.
        answers_path: `.npz` of the answers to the sample, written.
        figures_path: JSON of what was measured, written.
    """

    data: DataSpec
    engine: str
    num_neighbours: int
    num_targets: int
    num_samples: int
    seconds: float
    time_limit: int
    answers_path: str
    figures_path: str

    def write(self, path: Path) -> None:
        """Writes the job for `read`."""
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Reads what `write` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**values, "data": DataSpec(**values["data"])})


def run(job: Job) -> None:
    """Measures and writes the figures and the answers to the sample."""
    if job.engine == REFERENCE:
        data = load(job.data, job.num_targets)
        answers = brute_force(data.pool, data.targets.take(slice(0, job.num_samples)), job.data, job.num_neighbours)
        figures: dict[str, Any] = {"num_rows": len(data.pool.time)}
    else:
        figures, answers = _measure(job, ENGINES[job.engine]())
    np.savez(job.answers_path, rows=answers.rows, scores=answers.scores)
    write_json(Path(job.figures_path), figures)


def _measure(job: Job, engine: Engine) -> tuple[dict[str, Any], Answers]:
    after_imports = read_memory("VmRSS")
    data = load(job.data, job.num_targets)
    if not job.data.rolling and not job.data.exclude_own_user and engine.needs_only_fields:
        data = _drop_all_but_fields(data)
    before_warm_up = read_memory("VmRSS")
    compile_seconds = _warm_up(engine, data, job)
    after_inputs = read_memory("VmRSS")
    overhead = after_inputs - before_warm_up  # compiled code is neither input nor index
    reset_peak()
    with _time_limit(job.time_limit):
        build_seconds = _time(engine.build, data, job.data, job.num_neighbours)
    build_peak, num_rows = read_memory("VmHWM"), len(data.pool.fields)
    logging.info("%s, %s: built in %.1f s", job.data.name, job.engine, build_seconds)
    try:
        with _time_limit(job.time_limit):
            targets = engine.prepare(data.targets)
            rates = {"": time_blocks(engine.answer, targets, job.num_targets, job.seconds)}
            for name, answer in engine.variants().items():
                rates[name] = time_blocks(answer, targets, job.num_targets, _VARIANT_SHARE * job.seconds)
            answers = engine.decode(engine.answer(take(targets, 0, job.num_samples)))
        figures = {
            "num_rows": num_rows,
            "compile_seconds": compile_seconds,
            "build_seconds": build_seconds,
            "index_bytes": engine.num_bytes(),
            "input_bytes": before_warm_up - after_imports,
            "build_peak_bytes_above_inputs": build_peak - after_inputs,
            "build_peak_bytes_above_imports": build_peak - after_imports - overhead,
            "peak_bytes": read_memory("VmHWM"),
            "rates": rates,
            **engine.notes(),
        }
    finally:
        engine.close()
    return figures, answers


def _drop_all_but_fields(data: DataSet) -> DataSet:
    nothing = np.empty(0)
    pool = Rows(data.pool.fields, nothing, nothing, nothing)
    return dataclasses.replace(data, pool=pool)


def _warm_up(engine: Engine, data: DataSet, job: Job) -> float:
    """Compiles whatever compiles itself on first use, with a pool of the same types; returns the seconds that took."""
    few = dataclasses.replace(
        data, pool=data.pool.take(slice(0, _WARM_UP_ROWS)), targets=data.targets.take(slice(0, _WARM_UP_TARGETS))
    )

    def build_and_answer() -> None:
        engine.build(few, job.data, job.num_neighbours)
        targets = engine.prepare(few.targets)
        for answer in (engine.answer, *engine.variants().values()):
            answer(targets)

    return _time(build_and_answer)


def time_blocks(answer: Callable[[Any], Any], targets: Any, num_targets: int, seconds: float) -> list[float]:
    """Times NUM_BLOCKS blocks of different targets, of as many as the seconds allow.

    Args:
        answer: takes prepared targets.
        targets: prepared.
        num_targets: how many there are.
        seconds: for all blocks together.

    Returns:
        Targets a second of each block.
    """
    count = 1
    while True:
        took = _time(answer, take(targets, 0, count))
        if took >= _PILOT_SHARE * seconds or count == num_targets:
            break
        count = min(2 * count, num_targets)
    size = int(np.clip(seconds / NUM_BLOCKS * count / max(took, 1e-9), 1, max(num_targets // NUM_BLOCKS, 1)))
    begins = [min(block * size, num_targets - size) for block in range(NUM_BLOCKS)]
    return [size / _time(answer, take(targets, begin, size)) for begin in begins]


def take(targets: Any, begin: int, count: int) -> Any:
    """Some of the prepared targets, which are `Rows` or a list."""
    which = slice(begin, begin + count)
    return targets.take(which) if isinstance(targets, Rows) else targets[which]


def _time(action: Callable[..., Any], *arguments: Any) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - began


class _time_limit:
    """Ends the process by SIGALRM, in the middle of compiled code if need be; `runner` knows the signal."""

    def __init__(self, seconds: int) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(self._seconds)

    def __exit__(self, *_: object) -> None:
        signal.alarm(0)


def read_memory(name: str) -> int:
    """Bytes of this process: `VmRSS`, resident now, less what is free, or `VmHWM`, its peak since `reset_peak`."""
    if name == "VmRSS":
        gc.collect()
        getattr(ctypes.CDLL(None), "malloc_trim", int)(
            0
        )  # else what reading the inputs left free hides what a build takes
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * _KIBIBYTE
    raise ValueError(f"/proc/self/status must tell {name}. Received: no such line. Run the benchmark on Linux.")


def reset_peak() -> None:
    """Makes `VmHWM` count from now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def main() -> None:
    """The command."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    use_one_core()
    try:
        run(Job.read(Path(sys.argv[1])))
    except MemoryError:
        sys.exit(OUT_OF_MEMORY)


if __name__ == "__main__":
    main()
