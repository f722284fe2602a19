"""The table, the ratios and the plot of a run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter
from rich.console import Console
from rich.table import Table

from benchmarks.retrieval.engines import OURS

GIBIBYTE = 1 << 30
SYNTHETIC = "synthetic"
_COLUMNS = (
    "data set",
    "engine",
    "pool rows",
    "build, s",
    "queries/s",
    "µs a query",
    "index, B/row",
    "build peak, B/row",
    "peak, GiB",
    "same scores",
    "same rows",
)
_CAPTION = (
    "One core, one thread; medians of blocks of different targets. Same: share of targets whose answer is that of a brute force "
    "over all rows (score descending, then newest first). Build peak: resident bytes beyond the loaded inputs; peak: of the "
    "whole process, inputs included, from the build on. Rolling pools and the exclusion of the own user are ours only: the "
    "other engines have no idf as of a time, and cannot leave out a user's rows without changing it."
)


def print_report(summary: dict[str, Any], console: Console) -> None:
    """Prints the table, the ratios and the growth with N."""
    table = Table(title=f"Exact BM25, K = {summary['settings']['num_neighbours']}", caption=_CAPTION)
    for place, name in enumerate(_COLUMNS):
        table.add_column(name, justify="left" if place < 2 else "right", no_wrap=place < 2)
    last = ""
    for outcome in summary["outcomes"]:
        if last and outcome["data"] != last:
            table.add_section()
        last = outcome["data"]
        for row in table_rows(outcome):
            table.add_row(*row)
    console.print(table)
    for outcome in summary["outcomes"]:
        if outcome["status"] != "ok":
            console.print(f"{outcome['data']}: no figures of {outcome['engine']}: {outcome['status']}.")
    for ratio in summary["ratios"]:
        console.print(
            f"{ratio['data']}: {OURS} answers {ratio['factor']:,.1f} times as many queries a second as {ratio['engine']}."
        )
    for growth in summary["growth"]:
        console.print(
            f"{growth['engine']}: from {growth['from_rows']:,} to {growth['to_rows']:,} pool rows a query takes "
            f"{growth['time_factor']:.2f} times as long; log N grows {growth['log_factor']:.2f} times."
        )


def table_rows(outcome: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The rows of one outcome: its figures, then the speed of each further way to answer."""
    if outcome["status"] != "ok":
        yield (
            outcome["data"],
            outcome["engine"],
            f"{outcome['num_rows']:,}",
            outcome["status"].partition(":")[0],
            *["-"] * 7,
        )
        return
    num_rows, agreement = outcome["num_rows"], outcome["agreement"]
    yield (
        outcome["data"],
        outcome["engine"],
        f"{num_rows:,}",
        f"{outcome['build_seconds']:.1f}",
        *_format_rate(outcome["queries_per_second"][""]),
        f"{outcome['index_bytes'] / num_rows:.1f}",
        f"{outcome['build_peak_bytes_above_inputs'] / num_rows:.1f}",
        f"{outcome['peak_bytes'] / GIBIBYTE:.2f}",
        f"{100 * agreement['scores']:.1f} %",
        f"{100 * agreement['rows']:.1f} %",
    )
    for name, rate in outcome["queries_per_second"].items():
        if name:
            yield "", f"  {name}", "", "", *_format_rate(rate), *[""] * 5


def _format_rate(rate: float) -> tuple[str, str]:
    microseconds = 1e6 / rate
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}", f"{microseconds:,.{0 if microseconds >= 100 else 1}f}"


def find_ratios(outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our queries a second over each other engine's, for each data set."""
    rates = {
        (item["data"], item["engine"]): item["queries_per_second"][""] for item in outcomes if item["status"] == "ok"
    }
    return [
        {"data": data, "engine": engine, "factor": rates[data, OURS] / rate}
        for (data, engine), rate in rates.items()
        if engine != OURS and (data, OURS) in rates
    ]


def find_growth(outcomes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """How much longer a query takes on the largest synthetic log than on the smallest, beside the growth of log N."""
    growths = []
    for engine, points in measured(outcomes).items():
        (from_rows, from_rate), (to_rows, to_rate) = points[0], points[-1]
        if to_rows > from_rows:
            growths.append(
                {
                    "engine": engine,
                    "from_rows": from_rows,
                    "to_rows": to_rows,
                    "time_factor": from_rate / to_rate,
                    "log_factor": math.log(to_rows) / math.log(from_rows),
                }
            )
    return growths


def measured(outcomes: Sequence[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Engine -> (pool rows, queries a second) of the synthetic logs, ascending."""
    points: dict[str, list[tuple[int, float]]] = {}
    for item in outcomes:
        if item["status"] == "ok" and item["data"].startswith(SYNTHETIC):
            points.setdefault(item["engine"], []).append((item["num_rows"], item["queries_per_second"][""]))
    return {engine: sorted(values) for engine, values in points.items()}


def plot(summary: Mapping[str, Any], path: Path) -> None:
    """Draws queries a second and microseconds a query against pool rows: lines are synthetic logs, diamonds are ML-1M."""
    outcomes = summary["outcomes"]
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    lines = measured(outcomes)
    others = [item for item in outcomes if item["data"] == "ml_1m" and item["status"] == "ok"]
    engines = list(dict.fromkeys([*lines, *(item["engine"] for item in others)]))
    for panel, label, convert in (
        (panels[0], "queries a second, one core", lambda rate: rate),
        (panels[1], "microseconds a query", lambda rate: 1e6 / rate),
    ):
        for place, engine in enumerate(engines):
            points = lines.get(engine, [])
            style = {"color": f"C{place}", "linewidth": 2.4 if engine == OURS else 1.4}
            panel.plot([rows for rows, _ in points], [convert(rate) for _, rate in points], "o-", label=engine, **style)
            real = [
                (item["num_rows"], convert(item["queries_per_second"][""]))
                for item in others
                if item["engine"] == engine
            ]
            panel.plot(*zip(*real, strict=True), "D", color=f"C{place}", markerfacecolor="none") if real else None
        panel.set(xscale="log", yscale="log", xlabel="pool rows", ylabel=label)
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.grid(True, which="major", alpha=0.3)
    panels[0].plot([], [], "D", color="grey", markerfacecolor="none", label="MovieLens-1M")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
