"""A small random log with many equal times, its configurations, and preprocessing run in this process."""

from __future__ import annotations

import csv
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from beam import preprocess as preprocess_module
from tf_lift.config import (
    AttributeTable,
    Behaviour,
    Config,
    Negatives,
    Pipeline,
    Retrieval,
    Situation,
    Source,
    Split,
)
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.dataset_info import SPLITS
from tf_lift.data.examples import build_example_spec
from tf_lift.schema import Field
from tf_lift.workspace import Workspace

BEGIN = 1_500_000_000  # epoch seconds of the log's first day
TICK = 3600  # times are whole hours, so that many are equal
NUM_TICKS = 240  # ten days
TRAIN_FROM, TEST_FROM = BEGIN + 120 * TICK, BEGIN + 200 * TICK

FIELDS = (
    Field("user", "user", key=True),
    Field("age", "user"),
    Field("item", "item", key=True),
    Field("genre", "item"),
    Field("brand", "item"),
    Field("channel", "context"),
)
COLUMNS = ("user", "item", "brand", "channel", "rating", "time")
Protocol = Literal["none", "honest", "rim"]


@dataclasses.dataclass(frozen=True)
class RawLog:
    """n rows of a log in the order of the file, as numbers: `user`, `item`, `channel`, `rating`, `time` [n].

    The attributes follow from the numbers: age = user % 5, in a table; genre = item % 4, in a table that lacks every
    tenth item; brand = item % 7, a column of the log.
    """

    user: np.ndarray
    item: np.ndarray
    channel: np.ndarray
    rating: np.ndarray
    time: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    def replace(self, **columns: np.ndarray) -> RawLog:
        return dataclasses.replace(self, **columns)

    def take(self, rows: np.ndarray) -> RawLog:
        return RawLog(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def join(self, other: RawLog) -> RawLog:
        return RawLog(
            *(np.concatenate([getattr(log, field.name) for log in (self, other)]) for field in dataclasses.fields(self))
        )

    def places(self) -> np.ndarray:
        """[n] place of each row among its user's rows at its time."""
        order = np.lexsort((self.time, self.user))  # stable
        is_first = np.diff(self.user[order], prepend=-1).astype(bool) | np.diff(self.time[order], prepend=-1).astype(
            bool
        )
        starts = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
        places = np.empty(len(order), np.int64)
        places[order] = np.arange(len(order)) - starts
        return places

    def cells(self) -> list[tuple[str, ...]]:
        """The rows as the log's file has them."""
        return [
            (f"u{user}", f"i{item}", f"b{item % 7}", f"c{channel}", str(rating), str(time))
            for user, item, channel, rating, time in zip(
                self.user, self.item, self.channel, self.rating, self.time, strict=True
            )
        ]

    def write(self, folder: Path, num_files: int = 1) -> tuple[str, ...]:
        """Writes the log and the attribute tables; returns the log's paths."""
        folder.mkdir(parents=True, exist_ok=True)
        cells = self.cells()
        edges = np.linspace(0, len(cells), num_files + 1).astype(int)
        paths = []
        for number in range(num_files):
            paths.append(str(folder / f"log-{number}.csv"))
            write_csv(paths[-1], COLUMNS, cells[edges[number] : edges[number + 1]])
        write_csv(folder / "users.csv", ("user", "age"), [(f"u{user}", f"a{user % 5}") for user in range(300)])
        write_csv(
            folder / "items.csv", ("item", "genre"), [(f"i{item}", f"g{item % 4}") for item in range(300) if item % 10]
        )
        return tuple(paths)


def write_csv(path: Path | str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])


def random_log(
    seed: int = 0, num_rows: int = 900, num_users: int = 60, num_items: int = 40, has_late_items: bool = True
) -> RawLog:
    """A log whose users, and items where wanted, appear one after the other, with rows of one user at one time.

    Without late items each item has a row before train begins.
    """
    rng = np.random.default_rng(seed)
    user_from = np.where(np.arange(num_users) < num_users // 2, 0, rng.integers(0, NUM_TICKS - 10, num_users))
    item_from = np.where(np.arange(num_items) < num_items // 2, 0, rng.integers(0, NUM_TICKS - 20, num_items))
    if not has_late_items:
        item_from[:] = 0
    tick = rng.integers(0, NUM_TICKS, num_rows)
    tick = np.where(rng.random(num_rows) < 0.3, tick // 12 * 12, tick)  # half-days that many share
    user = np.array([rng.choice(np.flatnonzero(user_from <= t)) for t in tick])
    item = np.array([rng.choice(np.flatnonzero(item_from <= t)) for t in tick])
    twins = rng.integers(0, num_rows, num_rows // 6)  # a user's second row at the time of its first
    if not has_late_items:
        item[:num_items], tick[:num_items] = np.arange(num_items), rng.integers(0, 100, num_items)
        user[:num_items] = rng.integers(0, num_users // 2, num_items)
        twins = twins[twins >= num_items]
    partner = (twins + 1) % num_rows
    if not has_late_items:
        keep = partner >= num_items
        twins, partner = twins[keep], partner[keep]
    tick[partner], user[partner] = tick[twins], user[twins]
    if has_late_items:
        item[partner] = np.array([rng.choice(np.flatnonzero(item_from <= t)) for t in tick[partner]])
    return RawLog(user, item, rng.integers(0, 3, num_rows), rng.integers(1, 6, num_rows), BEGIN + tick * TICK)


def build_config(
    log_paths: Sequence[str],
    workspace: Path,
    mode: Literal["static", "rolling"] = "rolling",
    protocol: Protocol = "none",
    **sections: Any,
) -> Config:
    """A configuration of the random log. `sections`: tables of values that replace those below."""
    folder = Path(log_paths[0]).parent

    def merge(name: str, **defaults: Any) -> dict[str, Any]:
        return defaults | sections.get(name, {})

    per_pool_row = 1 if protocol == "rim" else 0
    return Config(
        "small",
        Source(
            tuple(log_paths),
            attributes=(
                AttributeTable((str(folder / "users.csv"),), "user", "user", **sections.get("users", {})),
                AttributeTable((str(folder / "items.csv"),), "item", "item", **sections.get("items", {})),
            ),
            **sections.get("source", {}),
        ),
        FIELDS,
        Split(**merge("split", mode=mode, by="times", train_from=TRAIN_FROM, test_from=TEST_FROM)),
        Behaviour("threshold", "rating", 4.0) if protocol == "none" else Behaviour(),
        Negatives(
            **merge(
                "negatives",
                protocol=protocol,
                per_target=8,
                popularity_share=0.25,
                own_share=0.25,
                per_pool_row=per_pool_row,
            )
        ),
        Retrieval(**merge("retrieval", num_neighbours=6, context_length=4)),
        situation=Situation(**sections.get("situation", {})),
        pipeline=Pipeline(
            **merge("pipeline", num_shards=3, example_shards=2, rows_per_batch=200, targets_per_batch=64)
        ),
        data_seed=sections.get("data_seed", 7),
        workspace=str(workspace),
    )


@dataclasses.dataclass(frozen=True)
class Output:
    """What preprocessing wrote."""

    config: Config
    manifest: dict[str, Any]

    @property
    def dataset_dir(self) -> Path:
        return Workspace(self.config).dataset_dir

    @functools.cached_property
    def dataset(self) -> Dataset:
        return open_dataset(Workspace(self.config))

    @functools.cached_property
    def serialized(self) -> list[bytes]:
        """The examples of all splits, in the order of files."""
        return [record for split in SPLITS for record in self.read_split(split)]

    def read_split(self, split: str) -> list[bytes]:
        import tensorflow as tf  # here, as tf_lift must be imported before it

        paths = sorted((self.dataset_dir / "examples").glob(f"{split}-*.tfrecord"))
        return list(tf.data.TFRecordDataset([str(path) for path in paths]).as_numpy_iterator()) if paths else []

    @functools.cached_property
    def slates(self) -> dict[str, np.ndarray]:
        """The examples of all splits as a model reads them, in the order of `serialized`."""
        import tensorflow as tf

        spec = build_example_spec(self.config, len(self.dataset.info.statistic_sets))
        slates = self.dataset.row_references.resolve(spec.parse(tf.constant(self.serialized)))
        return {name: value.numpy() for name, value in slates.items()}

    def key_to_index(self) -> dict[tuple[str, int, int], int]:
        """(user, time, place among the user's rows at that time) of every target, and its index in `serialized`."""
        log, schema = self.dataset.log, self.config.schema
        rows = self.slates["row"]
        users = log.fields[rows, schema.user_index]
        places = rows - log.rows_before(users, log.time[rows])
        keys = [
            (self.value("user", user), int(log.time[row]), int(place))
            for user, row, place in zip(users, rows, places, strict=True)
        ]
        assert len(set(keys)) == len(keys) == len(self.serialized)
        return {key: index for index, key in enumerate(keys)}

    def value(self, field: str, value_id: int) -> str:
        return self.dataset.info.vocabularies[self.config.schema.index(field)].value(int(value_id))

    @functools.cached_property
    def row_contents(self) -> list[tuple[Any, ...]]:
        """Every row of the log as values, time, behaviour and whether it was drawn."""
        log, names = self.dataset.log, self.config.schema.names
        values = [[self.value(name, value_id) for value_id in log.fields[:, index]] for index, name in enumerate(names)]
        return list(zip(*values, log.time.tolist(), log.behaviour.tolist(), log.synthetic.tolist(), strict=True))

    def files(self) -> dict[str, bytes]:
        """Every file of the folder."""
        paths = sorted(path for path in self.dataset_dir.rglob("*") if path.is_file())
        return {str(path.relative_to(self.dataset_dir)): path.read_bytes() for path in paths}


def preprocess(config: Config, *beam_arguments: str, force: bool = False) -> Output:
    return Output(config, preprocess_module.run(config, beam_arguments, force))


class Kit:
    """The helpers of this file, as tests get them: one folder for each data set that a session makes."""

    begin, tick, num_ticks = BEGIN, TICK, NUM_TICKS
    train_from, test_from = TRAIN_FROM, TEST_FROM
    columns = COLUMNS
    random_log = staticmethod(random_log)
    write_csv = staticmethod(write_csv)
    build_config = staticmethod(build_config)
    preprocess = staticmethod(preprocess)
    RawLog, Output = RawLog, Output
    repository = Path(__file__).resolve().parents[2]

    def __init__(self, new_folder: Callable[[], Path]) -> None:
        self.new_folder = new_folder
        self._base: dict[tuple[str, str], tuple[RawLog, Output]] = {}

    def run(
        self, log: RawLog, mode: str = "rolling", protocol: Protocol = "none", num_files: int = 1, **sections: Any
    ) -> Output:
        """Writes a log in a new folder and preprocesses it."""
        folder = self.new_folder()
        return preprocess(
            build_config(log.write(folder / "input", num_files), folder / "workspace", mode, protocol, **sections)
        )

    def base(self, mode: str, protocol: Protocol) -> tuple[RawLog, Output]:
        """The random log and its data set, made once a session."""
        if (mode, protocol) not in self._base:
            log = random_log(has_late_items=protocol != "rim")
            self._base[mode, protocol] = log, self.run(log, mode, protocol)
        return self._base[mode, protocol]


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    return Kit(lambda: tmp_path_factory.mktemp("log"))


@pytest.fixture
def in_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam's worker processes import `beam` and `tf_lift` from the repository's root."""
    root = str(Kit.repository)
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))))
