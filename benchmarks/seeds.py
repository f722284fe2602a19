"""Trains a configuration with several seeds on one data set: `python -m benchmarks.seeds --config configs/X.toml --seeds 7,8,9`.

Resumable: a seed whose run is fresh is only read. The data set (and so every baseline) is the same for all seeds.
"""

import argparse
import json
import logging
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tf_lift import train
from tf_lift.config import load_config
from tf_lift.config.flags import add_config_flags
from tf_lift.evaluate import MODEL
from tf_lift.workspace import Workspace, write_json

_LOWER_IS_BETTER = ("LogLoss", "calibration error")


def run(config_path: str, overrides: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Trains and evaluates every seed.

    Returns:
        `protocol`, `seeds`, and `rankers`: name -> metric -> a value for each seed (the baselines' do not differ).
    """
    values: dict[str, dict[str, list[float]]] = {}
    protocol, root, began = "", Path(), time.monotonic()
    for seed in seeds:
        config = load_config(config_path, [*overrides, f"seed={seed}", f"run=run-seed-{seed}"])
        train.run(config)
        workspace = Workspace(config)
        root = workspace.root
        results = json.loads((workspace.stage_dir("evaluate") / "metrics.json").read_text(encoding="utf-8"))
        protocol = results["protocol"]
        for ranker, slices in results["rankers"].items():
            for metric, value in slices["all"].items():
                values.setdefault(ranker, {}).setdefault(metric, []).append(value)
    summary = {
        "name": root.name,
        "protocol": protocol,
        "seeds": list(seeds),
        "rankers": values,
        "seconds": round(time.monotonic() - began),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    write_json(root / "seeds.json", summary)
    return summary


def print_summary(summary: dict[str, Any]) -> None:
    """Prints mean and spread over seeds, and whether the model's worst seed beats each baseline."""
    metrics = list(summary["rankers"][MODEL])
    table = Table(
        title=f"{summary['name']}, seeds {', '.join(map(str, summary['seeds']))}: mean ± standard deviation",
        caption=f"{summary['protocol']} {summary['seconds']} s in this run, peak memory {summary['peak_memory_mib']:,} MiB.",
    )
    table.add_column("ranker")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for ranker, values in summary["rankers"].items():
        table.add_row(ranker, *(_format(values.get(metric, [])) for metric in metrics))
    console = Console(width=None if sys.stdout.isatty() else 170)
    console.print(table)
    for metric in ("AUC", "LogLoss"):
        sign = -1.0 if metric in _LOWER_IS_BETTER else 1.0
        worst = min(sign * value for value in summary["rankers"][MODEL][metric])
        best, name = max(
            (sign * values[metric][0], ranker) for ranker, values in summary["rankers"].items() if ranker != MODEL
        )
        verdict = "beats" if worst > best else "does not beat"
        console.print(
            f"{metric}: the worst seed {verdict} the best baseline, {name}: {sign * worst:.4f} and {sign * best:.4f}."
        )


def _format(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 and np.std(values) >= 5e-5 else ""
    return f"{np.mean(values):.4f}{spread}"


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.seeds",
        description="Trains with several seeds on one data set and prints mean, spread and the worst seed beside the baselines.",
    )
    add_config_flags(parser)
    parser.add_argument("--seeds", default="7,8,9", help="comma-separated integers; default: %(default)s")
    return parser.parse_args(arguments)


def main() -> None:
    """The command."""
    flags = parse_flags()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)
    try:
        print_summary(run(flags.config, flags.set, [int(seed) for seed in flags.seeds.split(",")]))
    except ValueError as error:
        sys.exit(f"seeds: {error}")


if __name__ == "__main__":
    main()
