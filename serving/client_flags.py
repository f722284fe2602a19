"""The flags of `python -m serving.client`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from serving.client import DEFAULT_TARGET, DEFAULT_TIMEOUT_SECONDS

_EPILOG = """\
examples:
  python -m serving.client rank --model_name complete_journey --user 1364 --items 940996,862349
  python -m serving.client rank --model_name ml_1m --user new --items 260,1196 --history clicks.json --json
  python -m serving.client rank --model_name ml_1m --user new --items 260,1196 \\
      --history_items 589,1210 --history_behaviours 1,0 --history_times 2000-05-01T10:00:00Z,2000-05-01T10:05:00Z
  python -m serving.client explain --model_name complete_journey --user 1364 --items 940996 --time 2017-12-01T10:00:00Z
  python -m serving.client status --model_name complete_journey --server models.example:8500 --tls_roots roots.pem

The server is TensorFlow Serving, or `python -m serving.local` on this machine. It is asked again, 5 times in all and
within the timeout, where it is unavailable. Exit code 1: no answer, with the reason on standard error, or for health a
state other than SERVING; 2: wrong flags."""


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


def parse_behaviours(text: str) -> list[str]:
    """Reads comma-separated behaviours."""
    return [behaviour.strip() for behaviour in text.split(",")]


def parse_times(text: str) -> list[int]:
    """Reads comma-separated times. Raises argparse.ArgumentTypeError where one is none."""
    return [parse_time(part.strip()) for part in text.split(",")]


def parse_field(text: str) -> tuple[str, str]:
    """Reads `field=value`. Raises argparse.ArgumentTypeError where there is no field or no `=`."""
    field, separator, value = text.partition("=")
    if not field or not separator:
        raise argparse.ArgumentTypeError(
            f"a field must be field=value. Received: {text!r}. Write it as store=367, one for each field."
        )
    return field, value


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.client",
        description="Ask a served model to rank items for a user, and why it ranks them so.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="{rank,explain,classify,status,metadata,health}"
    )
    connection = _build_connection_flags()
    slate = _build_slate_flags()
    rank = commands.add_parser("rank", parents=[connection, slate], help="items by probability")
    _add_history_flags(rank)
    commands.add_parser("explain", parents=[connection, slate], help="the same, with the neighbours behind each")
    commands.add_parser("classify", parents=[connection, slate], help="each pair of the user and an item, by Classify")
    commands.add_parser("status", parents=[connection], help="which versions are served")
    commands.add_parser("metadata", parents=[connection], help="signatures of the model: inputs and outputs")
    health = commands.add_parser("health", parents=[connection], help="whether the server takes requests")
    health.add_argument("--service", default="", metavar="NAME", help="a gRPC service of it (default: all of it)")
    flags = parser.parse_args(args)
    if flags.command == "rank":
        _check_history_flags(rank, flags)
    if (flags.tls_client_key is None) != (flags.tls_client_certificate is None):
        commands.choices[flags.command].error("--tls_client_key and --tls_client_certificate need each other")
    return flags


def _build_connection_flags() -> argparse.ArgumentParser:
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
        help="how long to wait for an answer, retries included (default: %(default)g)",
    )
    connection.add_argument("--json", action="store_true", help="print JSON in place of a table")
    tls = connection.add_argument_group("TLS (one of these flags turns it on)")
    tls.add_argument("--tls", action="store_true", help="with the root certificates that gRPC brings")
    tls.add_argument("--tls_roots", type=Path, metavar="PEM", help="root certificates, to know the server by")
    tls.add_argument("--tls_client_key", type=Path, metavar="PEM", help="the client's key, for mutual TLS")
    tls.add_argument("--tls_client_certificate", type=Path, metavar="PEM", help="the client's certificate chain")
    tls.add_argument("--tls_server_name", metavar="NAME", help="name in the server's certificate, if not its host's")
    return connection


def _build_slate_flags() -> argparse.ArgumentParser:
    slate = argparse.ArgumentParser(add_help=False)
    slate.add_argument("--user", required=True, metavar="ID", help="for whom to rank; unknown ids are allowed")
    slate.add_argument(
        "--items", required=True, type=parse_items, metavar="A,B,C", help="what to rank; unknown ids are allowed"
    )
    slate.add_argument(
        "--time", type=parse_time, metavar="T", help="as-of time: epoch seconds or ISO 8601, in UTC (default: now)"
    )
    _add_fields(slate, "--context", "value of a context field, for models whose data set has some (see metadata)")
    return slate


def _add_history_flags(rank: argparse.ArgumentParser) -> None:
    history = rank.add_argument_group("history of the user (default: the one in the model's log)")
    history.add_argument(
        "--history",
        metavar="FILE.json",
        help='JSON list of {"item": "A", "behaviour": "1", "time": T, "context": {"field": "value"}}, '
        "where context may be left out; - reads standard input",
    )
    history.add_argument("--history_items", type=parse_items, metavar="A,B", help="the same as lists")
    history.add_argument(
        "--history_behaviours", type=parse_behaviours, metavar="1,0", help="of each item, as the log's column has it"
    )
    history.add_argument("--history_times", type=parse_times, metavar="T,T", help="of each item")
    _add_fields(
        history,
        "--user_attributes",
        "value of a field of the user, in place of the log's; without a history the user then has none",
    )


def _add_fields(parser: argparse._ActionsContainer, flag: str, help_text: str) -> None:
    parser.add_argument(
        flag, type=parse_field, nargs="+", action="extend", default=[], metavar="FIELD=VALUE", help=help_text
    )


def _check_history_flags(rank: argparse.ArgumentParser, flags: argparse.Namespace) -> None:
    columns = (flags.history_items, flags.history_behaviours, flags.history_times)
    given = [column for column in columns if column is not None]
    if given and flags.history is not None:
        rank.error("--history cannot be with --history_items, --history_behaviours or --history_times")
    if given and (len(given) < len(columns) or len(set(map(len, given))) > 1):
        rank.error("--history_items, --history_behaviours and --history_times must be lists of one length")
