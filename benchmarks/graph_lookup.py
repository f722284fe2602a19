"""The served lookup on ML-1M: `python -m benchmarks.graph_lookup`.

The posting lists are saved and loaded again as a SavedModel of their own, asked for slates on one core, and compared with
`PostingLists.nearest`, which is timed beside them. ML-1M must lie in ${TF_LIFT_DATA}/ml_1m (see configs/ml_1m.toml).
"""

import argparse
import itertools
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from benchmarks.retrieval.data import DataSet, DataSpec, load_ml_1m
from tf_lift.config import Retrieval
from tf_lift.retrieval.graph import PostingListGraph
from tf_lift.retrieval.match_sets import find_match_sets
from tf_lift.retrieval.posting_lists import PoolRows, PostingLists, build_posting_lists
from tf_lift.workspace import write_json

USER, USER_FIELDS, ITEM_FIELDS = 0, (0, 2, 3, 4), (1, 5)  # of benchmarks.retrieval.data.ML_1M_FIELDS
MICROSECOND = 1e-6
WARM_UP_CALLS = 3


def run(flags: argparse.Namespace) -> dict[str, Any]:
    """Measures static and rolling lists.

    Returns:
        `settings` and `outcomes`: one for each mode and number of candidates, times in seconds. Modes are `static`,
        `rolling` with slates inside the log, and `rolling, now` with slates after its end, as live requests are.

    Raises:
        ValueError: ML-1M is missing, or the loaded model answers otherwise than `PostingLists.nearest`.
    """
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    outcomes: list[dict[str, Any]] = []
    for rolling in (False, True):
        data = load_ml_1m(DataSpec("ml_1m", "ml_1m", rolling=rolling, seed=flags.seed), flags.slates)
        outcomes += measure(data, rolling, flags)
    return {"settings": {name: value for name, value in vars(flags).items() if name != "output"}, "outcomes": outcomes}


def measure(data: DataSet, rolling: bool, flags: argparse.Namespace) -> list[dict[str, Any]]:
    """Builds, saves, loads, compares and times one kind of lists; an outcome for each mode and number of candidates."""
    retrieval = Retrieval(num_neighbours=flags.neighbours, exclude_own_user=flags.exclude_own_user)
    num_fields = data.pool.fields.shape[1]
    match_sets = find_match_sets(range(num_fields), num_fields, data.determined)
    pool = PoolRows(*data.pool, np.arange(len(data.pool.time), dtype=np.int32))
    lists = build_posting_lists(pool, match_sets, rolling, retrieval)
    statistics = tuple(index for index, fields in enumerate(match_sets.generators) if len(fields) <= 2)
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="graph-lookup-") as folder:
        loaded, export_bytes = _save_and_load(
            PostingListGraph(lists, retrieval, USER_FIELDS, statistics, USER), num_fields, Path(folder)
        )
        now = int(data.pool.time.max()) + 1
        for mode, size in itertools.product(("rolling", "rolling, now") if rolling else ("static",), flags.candidates):
            slates = _draw_slates(data, size, np.random.default_rng(flags.seed))
            if mode == "rolling, now":
                slates = [(fields, np.full_like(seconds, now), users) for fields, seconds, users in slates]
            graph, kernel = _time_slates(loaded.nearest, lists, retrieval, statistics, slates)
            outcome: dict[str, Any] = {"mode": mode, "candidates": size}
            for name, seconds in (("graph", graph), ("kernel", kernel)):
                outcome |= {f"{name}_median": float(np.median(seconds)), f"{name}_minimum": float(seconds.min())}
                outcome[f"{name}_p95"] = float(np.percentile(seconds, 95))
            outcomes.append(outcome | {"bytes_a_pool_row": export_bytes / len(pool.time)})
            logging.info("%s, %d candidates: done", outcome["mode"], size)
    return outcomes


def _save_and_load(graph: PostingListGraph, num_fields: int, folder: Path) -> tuple[Any, int]:
    """The loaded SavedModel, whose `nearest` is the lookup, and the bytes of its files."""
    module = tf.Module()
    module.graph = graph
    specs = [
        tf.TensorSpec([None, None, num_fields], tf.int32),
        tf.TensorSpec([None], tf.int64),
        tf.TensorSpec([None], tf.int32),
    ]
    module.nearest = tf.function(graph.nearest, input_signature=specs)
    tf.saved_model.save(module, str(folder))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return tf.saved_model.load(str(folder)), size


def _draw_slates(
    data: DataSet, num_candidates: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A slate a target: its user and time, and different items of the pool. Fields [1, C, M], time [1] and user [1]."""
    items = data.pool.fields[np.unique(data.pool.fields[:, ITEM_FIELDS[0]], return_index=True)[1]]
    slates = []
    for fields, seconds, user in zip(data.targets.fields, data.targets.time, data.targets.user, strict=True):
        slate = np.repeat(fields[None], num_candidates, axis=0)
        chosen = rng.choice(len(items), num_candidates, replace=False)
        slate[:, ITEM_FIELDS] = items[chosen][:, ITEM_FIELDS]
        slates.append((slate[None], np.array([seconds]), np.array([user], np.int32)))
    return slates


def _time_slates(
    nearest: Callable[..., Any],
    lists: PostingLists,
    retrieval: Retrieval,
    statistics: tuple[int, ...],
    slates: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of every slate with the loaded model and with the kernel, after their answers were compared."""
    graph, kernel = np.zeros(len(slates)), np.zeros(len(slates))
    for index, slate in enumerate(slates):
        tensors = [tf.constant(part) for part in slate]
        for _ in range(0 if index else WARM_UP_CALLS):
            nearest(*tensors)
        began = time.perf_counter()
        found = nearest(*tensors)
        graph[index] = time.perf_counter() - began
        fields, times, users = slate[0][0], *(np.repeat(part, slate[0].shape[1]) for part in slate[1:])
        began = time.perf_counter()
        expected = lists.nearest(fields, times, retrieval, users, statistics)
        kernel[index] = time.perf_counter() - began
        for name, value in found._asdict().items():
            if not np.array_equal(value[0], getattr(expected, name)):
                raise ValueError(
                    f"The SavedModel must answer as `PostingLists.nearest` does. Received: other {name} for slate {index} of "
                    f"{len(fields)} candidates. Compare them in tests/tf_lift/retrieval/test_graph.py."
                )
    return graph, kernel


def print_table(outcomes: Sequence[dict[str, Any]], console: Console) -> None:
    """Prints milliseconds a slate and microseconds a candidate."""
    table = Table(title="Lookup of one slate on ML-1M, one core")
    for column in ("mode", "candidates", "median ms", "p95 ms", "us a candidate", "kernel ms", "kernel us a candidate"):
        table.add_column(column, justify="right")
    for outcome in outcomes:
        size = outcome["candidates"]
        cells = [
            outcome["mode"],
            str(size),
            f"{1e3 * outcome['graph_median']:.2f}",
            f"{1e3 * outcome['graph_p95']:.2f}",
        ]
        cells += [f"{outcome['graph_median'] / size / MICROSECOND:.1f}", f"{1e3 * outcome['kernel_median']:.2f}"]
        table.add_row(*cells, f"{outcome['kernel_median'] / size / MICROSECOND:.1f}")
    console.print(table)
    for mode, size in {outcome["mode"]: outcome["bytes_a_pool_row"] for outcome in outcomes}.items():
        console.print(f"{mode}: the SavedModel takes {size:.1f} bytes a row of the pool")


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.graph_lookup",
        description="Times the lookup of the SavedModel on ML-1M, beside the kernel that preprocessing uses, on one core.",
    )
    parser.add_argument("--output", default="workspace/benchmarks/graph_lookup.json", help="JSON; default: %(default)s")
    parser.add_argument(
        "--candidates", type=int, nargs="+", default=[10, 100, 500, 1000], help="of a slate; default: %(default)s"
    )
    parser.add_argument("--slates", type=int, default=100, help="of each size; default: %(default)s")
    parser.add_argument("--neighbours", type=int, default=10, help="K; default: %(default)s")
    parser.add_argument("--exclude-own-user", action="store_true", help="neighbours are other users' rows")
    parser.add_argument("--seed", type=int, default=7, help="of targets and slates; default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    flags = parse_flags(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)
    tf.get_logger().setLevel(logging.ERROR)
    try:
        summary = run(flags)
    except ValueError as error:
        sys.exit(f"graph_lookup: {error}")
    output = Path(flags.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, summary)
    print_table(summary["outcomes"], Console(width=None if sys.stdout.isatty() else 120))


if __name__ == "__main__":
    main()
