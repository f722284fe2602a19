"""The tables of results, on the terminal and in the report."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from tf_lift.report import Table

_PLAIN_WIDTH = 150  # columns, where the output is a file
_LOWER_IS_BETTER = ("LogLoss", "calibration error")


def result_tables(results: Mapping[str, Any]) -> list[Table]:
    """All metrics on the whole test split, then the leading metric by slice."""
    rankers: Mapping[str, Mapping[str, Mapping[str, float]]] = results["rankers"]
    names = list(next(iter(rankers.values()))["all"])
    pooled = Table(
        caption=f"Test split: {results['num_slates']:,} targets, {results['num_candidates']:,} candidates",
        columns=["ranker", *names],
        rows=[[ranker, *(_format(slices["all"].get(name)) for name in names)] for ranker, slices in rankers.items()],
        best={name: "lowest" if name in _LOWER_IS_BETTER else "highest" for name in names},
        note=f"Seed {results['seed']}. Ranks of tied candidates are averaged.",
    )
    leading = "NDCG@10" if "NDCG@10" in names else "AUC"
    slices = [name for name in next(iter(rankers.values())) if name != "all"]
    columns = {name: f"{name} ({results['slice_slates'][name]:,})" for name in slices}
    by_slice = Table(
        caption=f"{leading} by the gap since the user's last event, and by whether the user had the item before",
        columns=["ranker", *columns.values()],
        rows=[
            [ranker, *(_format(parts[name].get(leading)) if name in parts else "-" for name in slices)]
            for ranker, parts in rankers.items()
        ],
        best=dict.fromkeys(columns.values(), "highest"),
        note='In brackets: targets. Those without an earlier event are among "gap over 6 h".',
    )
    return [pooled, by_slice]


def print_tables(results: Mapping[str, Any]) -> None:
    """Prints the tables, each under the protocol."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    for table in result_tables(results):
        shown = RichTable(title=f"{results['name']}: {table.caption}", caption=f"{results['protocol']} {table.note}")
        for index, column in enumerate(table.columns):
            shown.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)


def _format(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.4f}"
