"""The commands of `python -m serving.client`: what each asks, and the answers as tables or JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from serving.answers import Answer, ServiceHealth
from serving.channel import TlsFiles
from serving.client import RankingClient
from serving.history_file import read_history
from serving.rank_request import HistoryInteraction, RankRequest, UserItemPair


def run(flags: argparse.Namespace) -> int:
    """Asks the server and prints its answer; returns the exit code."""
    try:
        with RankingClient(
            flags.server, model_name=flags.model_name, timeout_seconds=flags.timeout_seconds, tls=_read_tls(flags)
        ) as client:
            answer = _ask(client, flags)
    except ValueError as error:
        print(f"serving.client: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if flags.json:
        print(json.dumps(_to_json(answer), indent=2, ensure_ascii=False))
    else:
        from serving.client_tables import print_tables  # Its import takes a fifth of the command's time.

        print_tables(answer)
    return 1 if isinstance(answer, ServiceHealth) and answer.state != "SERVING" else 0


def _read_tls(flags: argparse.Namespace) -> TlsFiles | None:
    files = TlsFiles(flags.tls_roots, flags.tls_client_key, flags.tls_client_certificate, flags.tls_server_name)
    return files if flags.tls or files != TlsFiles() else None


def _ask(client: RankingClient, flags: argparse.Namespace) -> Answer:
    if flags.command == "status":
        return client.status()
    if flags.command == "metadata":
        return client.metadata()
    if flags.command == "health":
        return client.health(flags.service)
    context = dict(flags.context)
    if flags.command == "classify":
        return client.classify([UserItemPair(flags.user, item, flags.time, context) for item in flags.items])
    if flags.command == "explain":
        return client.explain(RankRequest(flags.user, flags.items, flags.time, context))
    attributes = dict(flags.user_attributes)
    return client.rank(
        RankRequest(flags.user, flags.items, flags.time, context, _read_history(flags), user_attributes=attributes)
    )


def _read_history(flags: argparse.Namespace) -> list[HistoryInteraction] | None:
    if flags.history is not None:
        return read_history(flags.history)
    if flags.history_items is None:
        return None
    columns = zip(flags.history_items, flags.history_behaviours, flags.history_times, strict=True)
    return [HistoryInteraction(*row) for row in columns]


def _to_json(answer: Answer) -> Any:
    return [dataclasses.asdict(row) for row in answer] if isinstance(answer, list) else dataclasses.asdict(answer)
