"""The client's answers as tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from serving.answers import (
    Answer,
    Explanation,
    ModelMetadata,
    PairProbability,
    RankedItem,
    ServiceHealth,
    TensorMetadata,
    VersionStatus,
)


def print_tables(answer: Answer) -> None:
    """Prints an answer of the client on standard output, as one table or several."""
    console = Console(highlight=False)
    if isinstance(answer, ModelMetadata):
        console.print(f"{answer.model_name} version {answer.version}", markup=False)
        for name, signature in answer.signatures.items():
            rows = [("input", *_tensor_cells(tensor)) for tensor in signature.inputs.items()]
            rows += [("output", *_tensor_cells(tensor)) for tensor in signature.outputs.items()]
            _print_table(console, name, ("", "name", "dtype", "shape"), rows)
        return
    if isinstance(answer, ServiceHealth):
        _print_table(console, "", ("service", "state"), [(answer.service or "all", answer.state)])
        return
    for row in answer:
        if isinstance(row, Explanation):
            _print_explanation(console, row)
    ranked = [(row.item, f"{row.probability:.4f}") for row in answer if isinstance(row, RankedItem)]
    if ranked:
        _print_table(console, "", ("item", "probability"), ranked)
    pairs = [(row.user, row.item, f"{row.probability:.4f}") for row in answer if isinstance(row, PairProbability)]
    if pairs:
        _print_table(console, "", ("user", "item", "probability"), pairs)
    statuses = [(str(row.version), row.state, row.error) for row in answer if isinstance(row, VersionStatus)]
    if statuses:
        _print_table(console, "", ("version", "state", "error"), statuses)


def _print_explanation(console: Console, explanation: Explanation) -> None:
    rows = [
        (
            neighbour.user,
            neighbour.item,
            format_time(neighbour.time),
            f"{neighbour.score:.2f}",
            f"{neighbour.attention:.3f}",
            ", ".join(neighbour.next_items),
        )
        for neighbour in explanation.neighbours
    ]
    title = f"{explanation.item}: probability {explanation.probability:.4f}"
    if rows:
        headers = ("neighbour", "item", "time (UTC)", "BM25", "attention", "what they did next")
        _print_table(console, title, headers, rows)
    else:
        console.print(f"{title}, no neighbours\n", markup=False)
    for reason in explanation.reasons:
        words = f"because of {reason.item}: {reason.went_on:,} of the {reason.times:,} times that somebody had it, this followed"
        console.print(words, markup=False)


def _print_table(console: Console, title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=Text(title) if title else None, title_justify="left")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # As Text, since an id may look like rich's markup.
    console.print(table)


def _tensor_cells(named_tensor: tuple[str, TensorMetadata]) -> tuple[str, str, str]:
    name, tensor = named_tensor
    if tensor.shape is None:
        return name, tensor.dtype, "any"
    return name, tensor.dtype, "[" + ", ".join("?" if size < 0 else str(size) for size in tensor.shape) + "]"


def format_time(time: int) -> str:
    """Writes epoch seconds as ISO 8601 in UTC, or as the number where a calendar cannot hold it."""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):
        return str(time)
