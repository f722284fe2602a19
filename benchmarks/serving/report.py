"""The tables and the plot of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from rich.console import Console
from rich.table import Table

from benchmarks.serving.targets import find_targets

_MEBIBYTE, _MEMORY = 1 << 20, ("anonymous", "pss", "rss")
_VERDICTS = {True: "met", False: "NOT MET", None: "for information"}
_LOAD_COLUMNS = (
    "signature",
    "candidates",
    "way",
    "clients",
    "p50, ms",
    "p95, ms",
    "p99, ms",
    "requests/s",
    "ratio",
    "failed",
)
_LOAD_CAPTION = (
    "In process: the signature, from arrays of ids to an array of probabilities. gRPC: from serialized request to parsed answer. "
    "Ratio: p50 over gRPC / in process; their blocks alternate. One core: the client too is on the server's core, which it else is not. "
    "C runtime: without Python and gRPC. Tantivy: top K of each candidate over "
    "all fields in a Python service, which answers with a tf.Example (without match statistics, as it has none) that the client "
    "sends to serving_default; service and server share the core."
)


def print_report(summary: Mapping[str, Any], console: Console) -> None:
    """Prints a table for each part that was measured, and the targets."""
    results = summary["results"]
    console.print(summary["machine"]["cores"])
    rows = [row for part in ("load", "c_runtime", "otherwise") for row in results.get(part, [])]
    if rows:
        _print_load(rows, console)
    if "batches" in results:
        _print_table(
            "Slates of 100 candidates in one call in process",
            ("threads", "batch", "p50, ms", "slates/s"),
            [
                (row["threads"], row["batch"], f"{row['p50']:.1f}", f"{row['slates_per_second']:,.0f}")
                for row in results["batches"]
            ],
            console,
        )
    for name, title in (("swap", "Hot swap under load"), ("restart", "Kill and restart")):
        if name in results:
            _print_table(title, ("", ""), [(key, _format(value)) for key, value in results[name].items()], console)
    if "malformed" in results:
        _print_malformed(results["malformed"], console)
    if "memory" in results:
        _print_table(
            f"Memory of the server: {results['memory']['slope']:.0f} B of anonymous memory a request over the second half",
            ("requests", "anonymous, MiB", "PSS, MiB", "RSS, MiB"),
            [
                (f"{step['requests']:,}", *(f"{step[name] / _MEBIBYTE:,.1f}" for name in _MEMORY))
                for step in results["memory"]["steps"]
            ],
            console,
        )
    _print_table(
        "Targets",
        ("what", "target", "measured", ""),
        [(t.what, t.limit, t.measured, _VERDICTS[t.is_met]) for t in find_targets(results)],
        console,
    )


def _print_load(rows: list[dict[str, Any]], console: Console) -> None:
    ordered = sorted(rows, key=lambda row: (row["signature"] == "rank", row["candidates"]))
    cells = []
    for row in ordered:
        times = (f"{row[name]:,.2f}" if name in row else "-" for name in ("p50", "p95", "p99"))
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
        rate = f"{row['requests_per_second']:,.1f}"
        cells.append(
            (
                row["signature"],
                row["candidates"],
                row["way"],
                row["clients"],
                *times,
                rate,
                ratio,
                sum(row["failures"].values()),
            )
        )
    _print_table("Latency and throughput", _LOAD_COLUMNS, cells, console, _LOAD_CAPTION)


def _print_malformed(malformed: Mapping[str, Any], console: Console) -> None:
    cells = [
        (kind, ", ".join(f"{status} {number:,}" for status, number in sorted(counts.items())))
        for kind, counts in malformed["statuses"].items()
    ]
    title = (
        f"{malformed['sent']:,} requests of the fuzzer: {malformed['unexpected']:,} got another status than they should"
    )
    _print_table(title, ("kind", "statuses"), cells, console)
    for problem in malformed["problems"]:
        console.print(problem, markup=False)


def _print_table(
    title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]], console: Console, caption: str | None = None
) -> None:
    table = Table(title=title, caption=caption, show_header=any(columns))
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


def _format(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return (
        (", ".join(f"{key} {number}" for key, number in value.items()) or "none")
        if isinstance(value, dict)
        else str(value)
    )


def plot(summary: Mapping[str, Any], path: Path) -> None:
    """Draws p50 (with p95 as a thin line) and requests a second against clients, and, where it was watched, memory against requests."""
    results = summary["results"]
    steps = results.get("memory", {}).get("steps", [])
    num_panels = 3 if steps else 2
    figure, panels = plt.subplots(1, num_panels, figsize=(4.7 * num_panels, 5.2), layout="constrained")
    rows = [
        row
        for part in ("load", "c_runtime", "otherwise")
        for row in results.get(part, [])
        if row["signature"] != "rank"
    ]
    sizes = sorted({row["candidates"] for row in rows})
    styles = {"gRPC": "o-", "in process": "s", "C runtime": "^", "tantivy": "x--"}
    for way, style in styles.items():
        for place, size in enumerate(sizes):
            chosen = [row for row in rows if row["way"] == way and row["candidates"] == size and "p50" in row]
            if not chosen:
                continue
            clients, label, colour = [row["clients"] for row in chosen], f"{way}, {size}", f"C{place}"
            panels[0].plot(clients, [row["p50"] for row in chosen], style, color=colour, label=label)
            if way == "gRPC":
                panels[0].plot(clients, [row["p95"] for row in chosen], ":", color=colour)
            panels[1].plot(clients, [row["requests_per_second"] for row in chosen], style, color=colour)
    for panel, label in zip(panels[:2], ("milliseconds, p50 (dotted: p95)", "requests a second"), strict=True):
        panel.set(xscale="log", yscale="log", xlabel="clients", ylabel=label)
        panel.set_xticks([1, 8, 32], ["1", "8", "32"])
        panel.grid(True, alpha=0.3)
    if rows:
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=5, frameon=False, fontsize=8
        )
    if steps:
        for name in _MEMORY:
            panels[2].plot(
                [step["requests"] for step in steps], [step[name] / _MEBIBYTE for step in steps], "o-", label=name
            )
        panels[2].set(xlabel="requests", ylabel="server's memory, MiB", ylim=(0, None))
        panels[2].legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
