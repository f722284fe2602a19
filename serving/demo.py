"""The whole path on one machine: `python -m serving.demo --config configs/complete_journey.toml`, or `make demo`."""

import argparse
import datetime
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from serving.answers import Explanation
from serving.client import RankingClient
from serving.rank_request import HistoryInteraction, RankRequest
from tf_lift.config import load_config
from tf_lift.config.flags import add_config_flags
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.data.raw_requests import build_history, build_request
from tf_lift.evaluation_tables import print_tables
from tf_lift.schema import HISTORY_PREFIX
from tf_lift.worked_predictions import describe_item
from tf_lift.workspace import Workspace

logger = logging.getLogger("serving.demo")

_SHOWN = 10  # candidates of the slate
_SERVER_SECONDS = 120.0  # for the server to load the model
_STAGES = {
    "preprocess": ("beam.preprocess", "Beam turns the log into TFRecords with precomputed neighbours"),
    "train": ("tf_lift.train", "pretrain, encode, fit, evaluate"),
    "export": ("export.saved_model", "a SavedModel, with the retrieval inside its graph"),
    "verify": ("export.verify", "reload it in a fresh process, and compare it with the model in memory"),
}


def run(flags: argparse.Namespace) -> None:
    """Runs every stage, serves the model, and ranks a slate of a real household over gRPC.

    Raises:
        ValueError: a stage failed, or the server did not come up.
    """
    console = Console(width=None if sys.stdout.isatty() else 150)
    began = time.monotonic()
    arguments = ["--config", flags.config, *(part for override in flags.set for part in ("--set", override))]
    for stage, (module, purpose) in _STAGES.items():
        console.rule(f"{stage}: python -m {module} {' '.join(arguments)}")
        console.print(f"[dim]{purpose}[/dim]")
        finished = subprocess.run([sys.executable, "-m", module, *arguments], check=False)
        if finished.returncode != 0:
            raise ValueError(
                f"Stage {stage!r} must succeed. Received: exit status {finished.returncode}; its message is above."
            )
    workspace = Workspace(load_config(flags.config, flags.set))
    dataset = open_dataset(workspace)
    port = _find_free_port()
    command = [
        "--model_base_path",
        str(workspace.models_dir),
        "--model_name",
        workspace.config.name,
        "--port",
        str(port),
    ]
    console.rule(f"serve: python -m serving.local {' '.join(command)}")
    server = subprocess.Popen([sys.executable, "-m", "serving.local", *command])
    try:
        with RankingClient(f"localhost:{port}", model_name=workspace.config.name, timeout_seconds=60.0) as client:
            _wait_until_served(client, server)
            _show_ranking(console, client, dataset)
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=60.0)
        except subprocess.TimeoutExpired:
            server.kill()
    console.rule("results")
    results = workspace.stage_dir("evaluate") / "metrics.json"
    print_tables(json.loads(results.read_text(encoding="utf-8")))
    console.print(f"Report: {workspace.stage_dir('evaluate') / 'report.html'}")
    console.print(f"The server is stopped. {time.monotonic() - began:.0f} s in all.")


def _show_ranking(console: Console, client: RankingClient, dataset: Dataset) -> None:
    """Ranks the first slate of the test split whose user has a history, and prints why."""
    config = dataset.config
    spec = build_example_spec(config, len(dataset.info.statistic_sets))
    paths = sorted(tf.io.gfile.glob(dataset.example_pattern("test")))
    serialized = tf.constant(list(tf.data.TFRecordDataset(paths).take(64).as_numpy_iterator()))
    slate = dataset.row_references.resolve(spec.parse(serialized))
    request = build_request(dataset, slate)
    futures = slate["neighbour_num_future"].numpy().sum(axis=(1, 2))
    chosen = int(np.argmax(futures))
    user, as_of = str(request["user"][chosen]), int(request["time"][chosen])
    items = list(dict.fromkeys(str(item) for item in request["candidates"][chosen] if item))
    bought = str(request["candidates"][chosen][0])
    context = {name: str(request[name][chosen]) for name in request if name not in ("user", "candidates", "time")}
    console.rule(
        f"rank: {len(items)} candidates for {config.schema.names[config.schema.user_index]} {user} at {_format_time(as_of)}"
    )
    answers = client.explain(RankRequest(user, items, as_of, context))
    names = _ItemNames(dataset)
    table = Table(
        caption="Probabilities come over gRPC. A reason is the neighbour of most attention: who, in the same situation, did what next."
    )
    for heading in ("", "candidate", "probability", "neighbours", "because"):
        table.add_column(heading, overflow="fold")
    for place, answer in enumerate(answers[:_SHOWN], start=1):
        mark = " [bold green](really chosen)[/bold green]" if answer.item == bought else ""
        table.add_row(
            str(place),
            names.describe(answer.item) + mark,
            f"{answer.probability:.4f}",
            str(len(answer.neighbours)),
            _reason(answer, names),
        )
    console.print(table)
    place = [answer.item for answer in answers].index(bought) + 1
    console.print(f"Really chosen: {names.describe(bought)}, at place {place} of {len(answers)}.")
    history = _read_history(dataset, slate["history_position"].numpy()[chosen : chosen + 1])
    click = HistoryInteraction(answers[-1].item, "1", as_of - 1, context)
    for words, interactions in (("from the log", history), ("and a click a second ago", [*history, click])):
        ranked = client.rank(RankRequest(user, items, as_of, context, history=interactions))
        tops = ", ".join(f"{names.describe(answer.item)} {answer.probability:.4f}" for answer in ranked[:3])
        console.print(f"rank, history {words} ({len(interactions)} interactions): {tops}")


def _read_history(dataset: Dataset, position: np.ndarray) -> list[HistoryInteraction]:
    """The last interactions before a position, [1], as a request brings them."""
    history = build_history(dataset, position, dataset.config.retrieval.context_length)
    columns = {name: values[0].tolist() for name, values in history.items() if name.startswith(HISTORY_PREFIX)}
    items, behaviours, times = (columns.pop(HISTORY_PREFIX + name) for name in ("items", "behaviours", "times"))
    return [
        HistoryInteraction(
            item,
            behaviours[place],
            times[place],
            {name.removeprefix(HISTORY_PREFIX): values[place] for name, values in columns.items()},
        )
        for place, item in enumerate(items)
        if item
    ]


def _reason(answer: Explanation, names: "_ItemNames") -> str:
    with_future = [neighbour for neighbour in answer.neighbours if neighbour.next_items]
    if not with_future:
        return "no neighbour has a visible future"
    best = max(with_future, key=lambda neighbour: neighbour.attention)
    following = ", ".join(names.describe(item) for item in best.next_items[:3])
    return (
        f"{best.user} had {names.describe(best.item)} on {_format_time(best.time)[:10]} "
        f"(attention {best.attention:.2f}, BM25 {best.score:.1f}), then {following}"
    )


class _ItemNames:
    """Readable names of items, from their attributes."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        values = dataset.info.vocabularies[dataset.config.schema.item_index].values
        self._places = {value: index for index, value in enumerate(values)}

    def describe(self, item: str) -> str:
        place = self._places.get(item)
        return (
            f"#{item}"
            if place is None
            else describe_item(self._dataset, self._dataset.info.entity_fields["item"][place])
        )


def _wait_until_served(client: RankingClient, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SERVER_SECONDS
    while True:
        try:
            client.status()
            return
        except ValueError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise ValueError(
                    f"The server must come up within {_SERVER_SECONDS:.0f} s. Received: {error}"
                ) from error
            time.sleep(0.5)


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def _format_time(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M")


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.demo",
        description="Preprocesses, trains, exports, serves and queries, one command after the other; then stops the server.",
    )
    add_config_flags(parser, default="configs/complete_journey.toml")
    return parser.parse_args(arguments)


def main() -> None:
    """The command."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    try:
        run(parse_flags())
    except ValueError as error:
        sys.exit(f"demo: {error}")


if __name__ == "__main__":
    main()
