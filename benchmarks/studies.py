"""The paper's studies and open questions, a command each: `python -m benchmarks.studies --study contexts --config configs/X.toml`."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.evidence import command
from benchmarks.evidence.evaluation_set import read_evaluation_set
from benchmarks.evidence.run_list import Group, Row
from benchmarks.evidence.run_rankers import make_data_set
from benchmarks.evidence.study_list import COST, STUDIES, Study, find_study
from tf_lift.baselines.registry import find_ranker
from tf_lift.tuning.config_source import ConfigSource
from tf_lift.tuning.ranker_tuner import TUNERS
from tf_lift.workspace import Workspace


def plan_study(source: ConfigSource, study: Study, labels: Sequence[str] = ()) -> tuple[Group, list[Row]]:
    """The rows of a study, on the candidates of a configuration, whose data set is made if need be.

    A variant that is an earlier one under another name is left out, which the log says.

    Args:
        source: the configuration.
        study: the study.
        labels: the rows to have beside the first; empty: all.

    Raises:
        ValueError: a variant's settings do not fit together, or a label is of no row.
    """
    rows, seen = [], []
    for variant in study.variants:
        varied = source.with_settings(variant.settings) if variant.settings else source
        if (variant.ranker, varied.load()) in seen:
            logging.info("%s: %r is left out; the configuration is that already.", study.title, variant.label)
            continue
        seen.append((variant.ranker, varied.load()))
        rows.append(Row(variant.label, find_ranker(variant.ranker), varied))
    known = [row.label for row in rows]
    if unknown := [label for label in labels if label not in known]:
        raise ValueError(f"--rows must name rows of the study: {'; '.join(known)}. Received: {'; '.join(unknown)}.")
    rows = [row for place, row in enumerate(rows) if not labels or not place or row.label in labels]
    for row in rows:
        make_data_set(row.source)
    evaluation = read_evaluation_set(Workspace(source.load()), study.slicing)
    return Group(f"{source.load().name}, {study.title.lower()}", evaluation, tuple(row.source for row in rows)), rows


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies",
        description="Trains variants of a configuration, in some studies peers too, on the same candidates, and says how they differ.",
    )
    parser.add_argument("--study", required=True, help=", ".join(STUDIES))
    parser.add_argument("--config", required=True, help="TOML file")
    parser.add_argument(
        "--rows",
        default="",
        help="labels of the study's rows, separated by semicolons, to have beside the first; default: all",
    )
    command.add_run_flags(parser)
    parser.set_defaults(trials=0, tuner=TUNERS[0])
    return parser.parse_args(arguments)


def run(flags: argparse.Namespace) -> dict[str, Any]:
    """Runs a study.

    Returns:
        As `command.run_groups`, and `title`.

    Raises:
        ValueError: a wrong flag or configuration, or one that lacks what the study needs.
    """
    source = ConfigSource(Path(flags.config), tuple(flags.set))
    study = find_study(flags.study, source.load())
    summary = command.run_groups(flags, lambda: [plan_study(source, study, command.split_names(flags.rows))])
    for group in summary["groups"]:
        group["axis"] = {"words": study.axis, "places": _find_places(study, group["rows"])}
    return summary | {"title": f"{study.title}: {study.question}"}


def _find_places(study: Study, rows: Mapping[str, Any]) -> dict[str, float]:
    """Where each row stands on the study's axis."""
    if study.axis == COST:
        return {label: facts["microseconds"] for label, facts in rows.items() if facts["microseconds"] is not None}
    places = {variant.label: variant.value for variant in study.variants if variant.label in rows}
    return {label: value for label, value in places.items() if value is not None}


def main() -> None:
    """The command."""
    flags = parse_flags()
    command.start_logging()
    try:
        summary = run(flags)
    except ValueError as error:
        sys.exit(f"studies: {error}")
    command.finish(summary, Path(flags.output), f"study_{flags.study}", summary["title"])


if __name__ == "__main__":
    main()
