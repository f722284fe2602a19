"""A history as a JSON file, for the command line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from serving.client_flags import parse_time
from serving.rank_request import HistoryInteraction

_FORM = 'a JSON list of {"item": "A", "behaviour": "1", "time": 1512122400, "context": {"field": "value"}}'
_FIELDS = {"item", "behaviour", "time", "context"}


def read_history(path: str) -> list[HistoryInteraction]:
    """Reads a history from a file, or from standard input where the path is `-`.

    Ids, behaviours and values may be whole numbers; times may be ISO 8601; `context` may be missing.

    Raises:
        ValueError: The file cannot be read, or is not of this form.
    """
    try:
        content = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"A history must be readable. Received: {path}: {error.strerror}. Name another.") from error
    try:
        rows = json.loads(content)
    except ValueError as error:
        raise ValueError(f"A history must be {_FORM}. Received: {path}, no JSON: {error}. Correct it.") from error
    if not isinstance(rows, list):
        raise ValueError(f"A history must be {_FORM}. Received: {path}, no list. Put [ and ] around it.")
    return [_read_interaction(row, path) for row in rows]


def _read_interaction(row: Any, path: str) -> HistoryInteraction:
    if not isinstance(row, dict) or not _FIELDS - {"context"} <= set(row) <= _FIELDS:
        raise ValueError(f"A history must be {_FORM}. Received: {json.dumps(row)} in {path}. Correct it.")
    context = row.get("context", {})
    if not isinstance(context, dict):
        raise ValueError(f"The context must be an object. Received: {json.dumps(row)} in {path}. Correct it.")
    try:
        time = parse_time(_read_text(row["time"], path))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"In {path}, {error}") from error
    return HistoryInteraction(
        _read_text(row["item"], path),
        _read_text(row["behaviour"], path),
        time,
        {field: _read_text(value, path) for field, value in context.items()},
    )


def _read_text(value: Any, path: str) -> str:
    """A string, or the digits of a whole number; a fraction could be written otherwise than the log has it."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(
            "A value of a history must be a string or a whole number. "
            f"Received: {json.dumps(value)} in {path}. Write it as a string, as the log has it."
        )
    return str(value)
