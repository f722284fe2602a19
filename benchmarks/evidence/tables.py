"""The tables of a comparison, as rows of words; the terminal, Markdown and HTML show the same ones."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.evidence.evaluation_set import POOLED
from benchmarks.evidence.measures import LEADING, LOWER_IS_BETTER

_SMALLEST_SPREAD = 5e-5  # what four decimals show
_OF_PROBABILITIES = "LogLoss is after Platt's scaling on validation where a ranker's scores are no probabilities."
_SHOWN_TOO = ("HR@10", "LogLoss")  # by slice on a terminal, beside the leading metric
_TIED = 0.005  # of the leading metric, from where on it is said what ties cost


@dataclasses.dataclass(frozen=True)
class EvidenceTable:
    """A table of words.

    Attributes:
        title: above it.
        columns: headings; the first is the rankers'.
        rows: each as long as `columns`.
        bold: (row, column) of the best values.
        note: below it.
        is_short: whether it is shown on a terminal too.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    bold: frozenset[tuple[int, int]]
    note: str
    is_short: bool = True


def build_tables(group: Mapping[str, Any]) -> list[EvidenceTable]:
    """The tables of one group's summary: all metrics pooled, each by slice, and differences to the best peer."""
    comparison, heading = group["comparison"], group["slicing"]["heading"]
    has_peers = not is_study(comparison)
    leading = leading_metric(comparison)
    others = [name for name in comparison["metrics"] if name != leading]
    tables = [_build_pooled(group), *(_build_by_slice(group, name) for name in (leading, *others))]
    if has_peers and "ours" in comparison["kinds"].values():
        tables.append(_build_own_differences(comparison, heading))
    if comparison["gains"]:
        tables.append(_build_gains(comparison, heading))
    if has_peers:
        tables += [_build_differences(comparison, column) for column in comparison["columns"]]
    return tables


def is_study(comparison: Mapping[str, Any]) -> bool:
    """Whether all rankers are this project's: there are no peers to differ from."""
    return set(comparison["kinds"].values()) == {"ours"}


def leading_metric(comparison: Mapping[str, Any]) -> str:
    """The metric that short tables and plots show."""
    return next(name for name in LEADING if name in comparison["metrics"])


def format_difference(cell: Mapping[str, Any]) -> str:
    """A difference and its interval, positive where the ranker is better; "-" where there is no other peer."""
    if "difference" not in cell:
        return "-"
    return f"{cell['difference']:+.4f} [{cell['low']:+.4f}, {cell['high']:+.4f}]"


def _build_pooled(group: Mapping[str, Any]) -> EvidenceTable:
    comparison, facts = group["comparison"], group["rows"]
    cells = {name: columns[POOLED] for name, columns in comparison["rankers"].items()}
    names = comparison["metrics"]
    (objective,) = {name for label in cells for name in facts[label]["validation"]}
    rows = [
        [
            label,
            *(_format_mean(row[name]) for name in names),
            _format_number(facts[label]["validation"][objective], ".4f"),
            str(facts[label]["tuning"]["trials"]),
            str(len(facts[label]["seeds"])),
            f"{facts[label]['seconds']:,.0f}",
            _format_number(facts[label]["microseconds"], ",.1f"),
            f"{facts[label]['num_parameters']:,}",
        ]
        for label, row in cells.items()
    ]
    earlier = [label for label in cells if facts[label]["is_of_earlier_code"]]
    note = (
        (f"Of an earlier version of this project's code: {', '.join(earlier)}. " if earlier else "")
        + f"Candidates {group['candidates_hash'][:12]}: {group['num_slates']:,} targets of {group['num_users']:,} users, "
        f"{group['num_candidates']:,} candidates; {group['num_train']:,} train targets. Mean ± standard deviation over seeds; "
        f"{objective} on validation: what settings are compared by (-: of a run before it was kept); "
        "trials: of the search on validation that found the settings (by hand: 0); "
        "s: seconds of a run, but for stages that the configuration's own run had done; "
        "µs: to read and score one test candidate, tracing among it. "
        + (
            _OF_PROBABILITIES
            if "LogLoss" in names
            else f"Ranks of tied candidates are averaged.{_describe_ties(group)}"
        )
    )
    return EvidenceTable(
        f"{group['name']}: test split",
        ["ranker", *names, f"{objective} on validation", "trials", "seeds", "s", "µs", "parameters"],
        rows,
        _find_bold([{name: row[name]["mean"] for name in names} for row in cells.values()], names, names),
        note,
    )


def _describe_ties(group: Mapping[str, Any]) -> str:
    """What the leading metric of rankers with many ties would be with ties in a random order."""
    comparison = group["comparison"]
    metric = leading_metric(comparison)
    tied = {
        label: facts["over_ties"][metric]
        for label, facts in group["rows"].items()
        if metric in facts["over_ties"]
        and abs(facts["over_ties"][metric] - comparison["rankers"][label][POOLED][metric]["mean"]) > _TIED
        and len(facts["seeds"]) == 1
    }
    words = ", ".join(f"{label} {value:.4f}" for label, value in tied.items())
    return f" {metric} with ties in a random order: {words}." if words else ""


def _build_by_slice(group: Mapping[str, Any], name: str) -> EvidenceTable:
    comparison = group["comparison"]
    columns, rankers = comparison["columns"], comparison["rankers"]
    return EvidenceTable(
        f"{group['name']}: {name} by {group['slicing']['words']}",
        ["ranker", *(f"{column} ({group['column_slates'][column]:,})" for column in columns)],
        [[label, *(_format_mean(row[column][name]) for column in columns)] for label, row in rankers.items()],
        _find_bold(
            [{column: row[column][name]["mean"] for column in columns} for row in rankers.values()],
            columns,
            [name] * len(columns),
        ),
        f"In brackets: targets. {group['slicing']['note']}",
        is_short=name in (leading_metric(comparison), *_SHOWN_TOO),
    )


def _build_own_differences(comparison: Mapping[str, Any], heading: str) -> EvidenceTable:
    own = [name for name, kind in comparison["kinds"].items() if kind == "ours"]
    names = comparison["metrics"]
    rows = []
    for label in own:
        for column in comparison["columns"]:
            row = comparison["rankers"][label][column]
            rows.append([label, column, *(_with_peer(row[name]) for name in names)])
    return EvidenceTable(
        "This project's rankers and the best peer",
        ["ranker", heading, *names],
        rows,
        frozenset(),
        _describe_interval(comparison),
    )


def _build_gains(comparison: Mapping[str, Any], heading: str) -> EvidenceTable:
    """What the first of this project's rows has over the others: what a switch is worth, where one alone differs."""
    names = comparison["metrics"]
    first = next(name for name, kind in comparison["kinds"].items() if kind == "ours")
    rows = [
        [label, column, *(_with_seeds(cells[name]) for name in names)]
        for label, columns in comparison["gains"].items()
        for column, cells in columns.items()
    ]
    note = (
        f"Positive: {first} is better. {_describe_draws(comparison)} After it, where there are several: each seed's own difference, as the "
        "interval holds nothing of what another training would change."
    )
    return EvidenceTable(f"What {first} gains over", ["ranker", heading, *names], rows, frozenset(), note)


def _build_differences(comparison: Mapping[str, Any], column: str) -> EvidenceTable:
    names = comparison["metrics"]
    rows = [[label, *(_with_peer(row[column][name]) for name in names)] for label, row in comparison["rankers"].items()]
    return EvidenceTable(
        f"Difference to the best other peer, {column}",
        ["ranker", *names],
        rows,
        frozenset(),
        _describe_interval(comparison),
        is_short=False,
    )


def _describe_interval(comparison: Mapping[str, Any]) -> str:
    return (
        "Positive: the ranker is better. The peer is the best one in that metric and column, this project's rankers left out. "
        + _describe_draws(comparison)
    )


def _describe_draws(comparison: Mapping[str, Any]) -> str:
    return f"In brackets: 95 % interval over {comparison['num_draws']:,} paired draws of users with all their targets, of means over seeds."


def _with_seeds(cell: Mapping[str, Any]) -> str:
    by_seed = cell.get("by_seed", [])
    words = ", ".join(f"{value:+.4f}" for value in by_seed)
    return format_difference(cell) + (f" seeds {words}" if len(by_seed) > 1 else "")


def _with_peer(cell: Mapping[str, Any]) -> str:
    return format_difference(cell) + ("" if cell["best_peer"] is None else f" {cell['best_peer']}")


def _format_number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _format_mean(cell: Mapping[str, Any]) -> str:
    mean, spread = cell["mean"], cell["spread"]
    if mean != mean:
        return "-"
    return f"{mean:.4f}" + (f" ± {spread:.4f}" if spread is not None and spread >= _SMALLEST_SPREAD else "")


def _find_bold(
    rows: Sequence[Mapping[str, float]], columns: Sequence[str], metrics: Sequence[str]
) -> frozenset[tuple[int, int]]:
    """Places of the best value of each column, ties among them; the rankers' own column comes before these."""
    bold = set()
    for place, (column, metric) in enumerate(zip(columns, metrics, strict=True), start=1):
        sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
        values = [sign * row[column] for row in rows]
        known = [value for value in values if value == value]
        bold |= {(index, place) for index, value in enumerate(values) if known and value == max(known)}
    return frozenset(bold)
