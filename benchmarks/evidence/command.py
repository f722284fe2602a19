"""What both comparisons share: flags, the run, and what is written and shown."""

import argparse
import logging
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.evidence.compare import NUM_DRAWS, compare
from benchmarks.evidence.evaluation_set import SLICINGS
from benchmarks.evidence.page import to_markdown, write_page
from benchmarks.evidence.plots import plot_axis, plot_group
from benchmarks.evidence.run_list import Group, Row, find_groups, parse_sources, plan_rows
from benchmarks.evidence.run_rankers import Effort, RowOutcome, make_data_set, run_rows
from benchmarks.evidence.tables import EvidenceTable, build_tables
from tf_lift.baselines.registry import RANKERS
from tf_lift.tuning.ranker_tuner import TUNERS
from tf_lift.workspace import write_json

_QUICK_DRAWS = 200
_COLUMNS_OF_A_FILE = 190


def run(flags: argparse.Namespace, wants_ranking: bool) -> dict[str, Any]:
    """Runs every ranker on every configuration, and compares those that rank the same candidates and learn from the same.

    Args:
        flags: as `parse_flags` gives them.
        wants_ranking: whether the slates of the configurations are to be ranked.

    Returns:
        As `run_groups`.

    Raises:
        ValueError: a wrong flag or configuration.
    """
    rankers = split_names(flags.rankers)

    def plan() -> list[tuple[Group, list[Row]]]:
        sources = parse_sources(flags.configs, flags.set)
        groups = find_groups(sources, make_data_set, wants_ranking, SLICINGS[flags.columns])
        return [(group, plan_rows(group, rankers)) for group in groups]

    return run_groups(flags, plan)


def run_groups(flags: argparse.Namespace, plan: Callable[[], Sequence[tuple[Group, Sequence[Row]]]]) -> dict[str, Any]:
    """Runs the rows of each table.

    Args:
        flags: what `add_run_flags` adds, `trials` and `tuner`.
        plan: makes the data sets, and returns groups and their rows.

    Returns:
        `settings`, `machine`, and `groups`: what each table is made of.

    Raises:
        ValueError: a wrong flag, or a group of which every ranker failed.
    """
    began = time.monotonic()
    effort = Effort(parse_seeds(flags.seeds)[: 1 if flags.quick else None], flags.trials, flags.tuner, flags.quick)
    num_draws = _QUICK_DRAWS if flags.quick else NUM_DRAWS
    groups = [summarise(group, run_rows(group, rows, effort), num_draws) for group, rows in plan()]
    return {
        "settings": {**vars(flags), "seeds": list(effort.seeds), "num_draws": num_draws},
        "machine": {"python": platform.python_version(), "cores": os.cpu_count(), "system": platform.system()},
        "run_seconds": round(time.monotonic() - began),
        "groups": groups,
    }


def summarise(group: Group, outcomes: Sequence[RowOutcome], num_draws: int) -> dict[str, Any]:
    """What a group's tables are made of.

    Raises:
        ValueError: every ranker failed.
    """
    evaluation = group.evaluation
    measured = [outcome.measured for outcome in outcomes if outcome.measured is not None]
    faults = {outcome.row.label: outcome.fault for outcome in outcomes if outcome.measured is None}
    if not measured:
        raise ValueError(f"At least one ranker must run on {group.name!r}. Received: {faults or 'no ranker'}.")
    comparison = compare(measured, list(evaluation.columns), evaluation.num_users, num_draws)
    return {
        "name": group.name,
        "protocol": evaluation.protocol,
        "candidates_hash": evaluation.candidates_hash,
        "num_users": evaluation.num_users,
        "num_slates": len(evaluation.users),
        "num_train": evaluation.learnt_from[0],
        "num_candidates": len(evaluation.labels),
        "slicing": {name: getattr(evaluation.slicing, name) for name in ("heading", "words", "note")},
        "column_slates": {column: int(chosen.sum()) for column, chosen in evaluation.columns.items()},
        "comparison": comparison | {"kinds": {ranker.name: ranker.kind for ranker in measured}},
        "rows": {outcome.row.label: dict(outcome.facts) for outcome in outcomes if outcome.measured is not None},
        "faults": faults,
    }


def report(summary: Mapping[str, Any], folder: Path, name: str, title: str, console: Console) -> None:
    """Writes NAME.json, NAME.html, NAME.md and a plot for each group, and prints the short tables.

    Args:
        summary: what `run` returned.
        folder: where to; made if need be.
        name: of the files.
        title: of the page.
        console: where to print.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", summary)
    groups: dict[str, tuple[str, list[EvidenceTable], list[Path]]] = {}
    for group in summary["groups"]:
        stem = f"{name}-{re.sub(r'[^0-9a-z_]+', '_', group['name'])}"
        plots = [folder / f"{stem}.png"]
        plot_group(group, plots[0])
        if len(group.get("axis", {}).get("places", {})) > 1:
            plots.append(folder / f"{stem}-along.png")
            plot_axis(group, plots[1])
        tables = build_tables(group)
        groups[group["name"]] = (group["protocol"], tables, plots)
        for table in tables:
            if table.is_short:
                _print_table(table, group["protocol"], console)
        for label, fault in group["faults"].items():
            console.print(f"{group['name']}: no numbers of {label}: {fault}", markup=False)
    introduction = _introduce(summary)
    write_page(folder / f"{name}.html", title, introduction, groups)
    (folder / f"{name}.md").write_text(to_markdown(title, introduction, groups), encoding="utf-8")
    console.print(f"Written: {folder / name}.html, .md, .json and the plots.", markup=False)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Seeds of a comma-separated list.

    Raises:
        ValueError: none, or one that is no integer.
    """
    try:
        seeds = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"--seeds must be comma-separated integers. Received: {text!r}.") from error
    if not seeds:
        raise ValueError("--seeds must name at least one. Received: none.")
    return seeds


def split_names(text: str) -> list[str]:
    """Names that are separated by semicolons."""
    return [name.strip() for name in text.split(";") if name.strip()]


def parse_flags(
    program: str, description: str, configs: str, quick_configs: str, arguments: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parses the command line.

    Args:
        program: the module.
        description: what it does.
        configs: the default of --configs.
        quick_configs: the same with --quick.
        arguments: None: the process's own.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument(
        "--configs", help=f"comma-separated TOML files; default: {configs}, with --quick {quick_configs}"
    )
    parser.add_argument(
        "--rankers",
        default=";".join(RANKERS),
        help="separated by semicolons; a peer may have settings after its name, as in 'sasrec embedding_dim=128'; default: %(default)s",
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=0,
        help="of the search for the settings of each learned ranker that was given none; default: %(default)s, its defaults",
    )
    parser.add_argument("--tuner", default=TUNERS[0], choices=TUNERS, help="default: %(default)s")
    parser.add_argument(
        "--columns",
        default="gap",
        choices=tuple(SLICINGS),
        help="of the tables: by "
        + ", by ".join(f"{slicing.words} ({name})" for name, slicing in SLICINGS.items())
        + "; default: %(default)s",
    )
    add_run_flags(parser)
    flags = parser.parse_args(arguments)
    flags.configs = flags.configs or (quick_configs if flags.quick else configs)
    return flags


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that every comparison has."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one value of each; repeatable"
    )
    parser.add_argument("--seeds", default="7,8,9", help="comma-separated integers; default: %(default)s")
    parser.add_argument("--output", default="workspace/benchmarks", help="folder; default: %(default)s")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="minutes: one seed, one epoch, a small configuration where none is named; says that it runs, not how good",
    )


def main(flags: argparse.Namespace, name: str, title: str, wants_ranking: bool) -> None:
    """Runs a comparison as a command.

    Args:
        flags: as `parse_flags` gives them.
        name: of the files.
        title: of the page.
        wants_ranking: whether slates are ranked.
    """
    start_logging()
    try:
        summary = run(flags, wants_ranking)
    except ValueError as error:
        sys.exit(f"{name}: {error}")
    finish(summary, Path(flags.output), name, title)


def start_logging() -> None:
    """Shows what a comparison does, as lines."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)  # TensorFlow times its own checkpoints there


def finish(summary: Mapping[str, Any], folder: Path, name: str, title: str) -> None:
    """Reports, and exits with an error where a ranker has no numbers; the arguments are those of `report`."""
    console = Console(width=None if sys.stdout.isatty() else _COLUMNS_OF_A_FILE)
    report(summary, folder, name, title, console)
    if any(group["faults"] for group in summary["groups"]):
        sys.exit(f"{name}: some rankers have no numbers; their messages are above.")


def _introduce(summary: Mapping[str, Any]) -> str:
    settings, machine = summary["settings"], summary["machine"]
    sentences = [
        f"Seeds {', '.join(map(str, settings['seeds']))}.",
        f"{settings['trials']} trials of {settings['tuner']} search for a ranker's settings.",
        f"This run: {summary['run_seconds']:,} s on {machine['cores']} cores, Python {machine['python']}.",
    ]
    if settings["quick"]:
        sentences.append("A quick run, one epoch of each training: it shows that all works, not how good a ranker is.")
    return " ".join(sentences)


def _print_table(table: EvidenceTable, protocol: str, console: Console) -> None:
    shown = Table(title=table.title, caption=f"{protocol} {table.note}")
    for place, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if place == 0 else "right", overflow="fold")
    for r, words in enumerate(table.rows):
        row = [cell.replace(" [", "\n[").replace("] ", "]\n") for cell in words]  # a difference, its interval, its peer
        shown.add_row(
            *(f"[bold]{escape(cell)}[/bold]" if (r, c) in table.bold else escape(cell) for c, cell in enumerate(row))
        )
    console.print(shown)
