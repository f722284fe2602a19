"""The command line of `python -m serving.client`: its flags, and the answers as tables or JSON."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from serving.answers import Answer
from serving.client import DEFAULT_TARGET, DEFAULT_TIMEOUT_SECONDS, RankingClient
from serving.client_tables import print_tables

_EPILOG = """\
examples:
  python -m serving.client rank --model_name complete_journey --user 1364 --items 940996,862349
  python -m serving.client explain --model_name complete_journey --user 1364 --items 940996 --time 2017-12-01T10:00:00Z
  python -m serving.client status --model_name complete_journey --server models.example:8500

The server is TensorFlow Serving, or `python -m serving.local` on this machine. Exit code 1: no answer, with the reason
on standard error; 2: wrong flags."""


def parse_time(text: str) -> int:
    """Reads a time, epoch seconds or ISO 8601 (UTC where it names no zone), as epoch seconds.

    Raises:
        argparse.ArgumentTypeError: The text is neither.
    """
    try:
        return int(text)
    except ValueError:
        pass  # Not epoch seconds, so it must be ISO.
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            "a time must be epoch seconds or ISO 8601. "
            f"Received: {text!r}. Write it as 1512122400 or 2017-12-01T10:00:00Z."
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def parse_items(text: str) -> list[str]:
    """Reads comma-separated item ids. Raises argparse.ArgumentTypeError where one is empty."""
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise argparse.ArgumentTypeError(
            f"items must be ids with a comma between them. Received: {text!r}. Write them as A,B,C."
        )
    return items


def parse_context_field(text: str) -> tuple[str, str]:
    """Reads `field=value`. Raises argparse.ArgumentTypeError where there is no field or no `=`."""
    field, separator, value = text.partition("=")
    if not field or not separator:
        raise argparse.ArgumentTypeError(
            f"context must be field=value. Received: {text!r}. Write it as store=367, one for each context field."
        )
    return field, value


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    connection = argparse.ArgumentParser(add_help=False)
    connection.add_argument("--model_name", required=True, metavar="NAME", help="the model's name at the server")
    connection.add_argument(
        "--server", default=DEFAULT_TARGET, metavar="HOST:PORT", help="gRPC address (default: %(default)s)"
    )
    connection.add_argument(
        "--timeout_seconds",
        type=float,
        default=DEFAULT_TIMEOUT_SECONDS,
        metavar="S",
        help="how long to wait for an answer (default: %(default)g)",
    )
    connection.add_argument("--json", action="store_true", help="print JSON in place of a table")
    slate = argparse.ArgumentParser(add_help=False)
    slate.add_argument("--user", required=True, metavar="ID", help="for whom to rank; unknown ids are allowed")
    slate.add_argument(
        "--items", required=True, type=parse_items, metavar="A,B,C", help="what to rank; unknown ids are allowed"
    )
    slate.add_argument(
        "--time", type=parse_time, metavar="T", help="as-of time: epoch seconds or ISO 8601, in UTC (default: now)"
    )
    slate.add_argument(
        "--context",
        type=parse_context_field,
        nargs="+",
        action="extend",
        default=[],
        metavar="FIELD=VALUE",
        help="value of a context field, for models whose data set has some (see the command metadata)",
    )
    parser = argparse.ArgumentParser(
        prog="python -m serving.client",
        description="Ask a served model to rank items for a user, and why it ranks them so.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{rank,explain,status,metadata}")
    commands.add_parser("rank", parents=[connection, slate], help="items by probability")
    commands.add_parser("explain", parents=[connection, slate], help="the same, with the neighbours behind each")
    commands.add_parser("status", parents=[connection], help="which versions are served")
    commands.add_parser("metadata", parents=[connection], help="signatures of the model: inputs and outputs")
    return parser.parse_args(args)


def run(flags: argparse.Namespace) -> int:
    """Asks the server and prints its answer; returns the exit code."""
    _import_tensorflow_quietly()
    try:
        with RankingClient(flags.server, model_name=flags.model_name, timeout_seconds=flags.timeout_seconds) as client:
            answer = _ask(client, flags)
    except ValueError as error:
        print(f"serving.client: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if flags.json:
        print(json.dumps(_to_json(answer), indent=2, ensure_ascii=False))
    else:
        print_tables(answer)
    return 0


def _import_tensorflow_quietly() -> None:
    """Imports what the client needs, and drops what TensorFlow's C++ writes to standard error meanwhile.

    These notes on the processor come before any log level is read, and would hide our one line of error. An exception
    of the import is raised as ever.
    """
    standard_error = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        importlib.import_module("serving.ranking_messages")
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)


def _ask(client: RankingClient, flags: argparse.Namespace) -> Answer:
    if flags.command == "status":
        return client.status()
    if flags.command == "metadata":
        return client.metadata()
    context = dict(flags.context)
    if flags.command == "rank":
        return client.rank(flags.user, flags.items, flags.time, context)
    return client.explain(flags.user, flags.items, flags.time, context)


def _to_json(answer: Answer) -> Any:
    return [dataclasses.asdict(row) for row in answer] if isinstance(answer, list) else dataclasses.asdict(answer)
