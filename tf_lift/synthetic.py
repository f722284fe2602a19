"""Writes a made-up interaction log: `python -m tf_lift.synthetic --out DIR`."""

import argparse
import csv
import dataclasses
import logging
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

DEFAULT_ROWS = {"simple": 3000, "future": 24_000}
START_TIME = 1_704_067_200  # 2024-01-01T00:00:00Z, epoch seconds
TRAIN_FROM = START_TIME + 40 * 86_400  # kind "future": the targets of train begin here ..
TEST_FROM = START_TIME + 50 * 86_400  # .. and those of test here, epoch seconds
NUM_MEETINGS = 2  # kind "future": pool users who met a situation before its target does; half of them with label 1
NUM_FOLLOWING = 4  # .. and what each of them did afterwards

_SECONDS_PER_DAY = 86_400
_ROWS_PER_USER = 25
_NUM_CATEGORIES = 6
_AGE_GROUPS = ("18-29", "30-44", "45-64", "65+")
_DEVICES = ("phone", "tablet", "desktop")
_ITEMS_PER_GROUP = 8
_NUM_EARLIER = 2  # kind "future": rows of a user before the situation
_ROWS_PER_SHOPPER = 12
_SHOPPERS_PER_SITUATION = 1.0
_TEST_SHARE = 0.4  # of the situations
_TASTE_RATE = 0.95  # share of a shopper's labels that follow the taste

Row = tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class Table:
    """A CSV file: the header, and rows in the order of the file."""

    header: tuple[str, ...]
    rows: Sequence[Row]


def generate(kind: str, num_rows: int | None = None, seed: int = 7) -> dict[str, Table]:
    """Makes a log.

    Args:
        kind: `simple`, a small shop whose users like categories; or `future`, a log in which a target's label can be told from
            nothing but what its neighbours did after the interaction that matches it (see `generate_future`).
        num_rows: about how many interactions; None: DEFAULT_ROWS of the kind.
        seed: the same seed makes the same log.

    Returns:
        File name -> table: `interactions.csv` with the columns `time` (epoch seconds) and `label` (0 or 1) and, for `simple`,
        `users.csv`; `items.csv` always.

    Raises:
        ValueError: an unknown kind, or too few rows.
    """
    generators = {"simple": generate_simple, "future": generate_future}
    if kind not in generators:
        raise ValueError(f"`kind` must be one of {', '.join(generators)}. Received: {kind!r}.")
    return generators[kind](DEFAULT_ROWS[kind] if num_rows is None else num_rows, seed)


def generate_simple(num_rows: int, seed: int) -> dict[str, Table]:
    """A small shop: a user's age group makes some categories likely favourites; favourites are seen more and liked more.

    Args:
        num_rows: interactions, at least 100.
        seed: of every draw.

    Raises:
        ValueError: too few rows.
    """
    _check_rows(num_rows, 100)
    draw = random.Random(seed)
    num_users, num_items = num_rows // _ROWS_PER_USER, max(3 * _NUM_CATEGORIES, num_rows // 50)
    item_to_category = [index % _NUM_CATEGORIES for index in range(num_items)]
    item_to_quality = [draw.uniform(-0.1, 0.1) for _ in range(num_items)]
    popularity = [1.0 / (1 + index // _NUM_CATEGORIES) for index in range(num_items)]
    user_to_age = [draw.randrange(len(_AGE_GROUPS)) for _ in range(num_users)]
    user_to_liked = [{age, (age + 1) % _NUM_CATEGORIES, draw.randrange(_NUM_CATEGORIES)} for age in user_to_age]
    user_to_device = [draw.choice(_DEVICES) for _ in range(num_users)]
    times = sorted(START_TIME + draw.randrange(56 * _SECONDS_PER_DAY) for _ in range(num_rows))
    rows: list[Row] = []
    for time in times:
        user = draw.randrange(num_users)
        liked = user_to_liked[user]
        weights = [
            weight * (2.0 if category in liked else 1.0)
            for weight, category in zip(popularity, item_to_category, strict=True)
        ]
        item = draw.choices(range(num_items), weights)[0]
        device = user_to_device[user] if draw.random() < 0.7 else draw.choice(_DEVICES)
        rate = (0.75 if item_to_category[item] in liked else 0.2) + item_to_quality[item]
        rows.append((_name("u", user), _name("i", item), device, time, int(draw.random() < rate)))
    users: list[Row] = [(_name("u", user), _AGE_GROUPS[age]) for user, age in enumerate(user_to_age)]
    items: list[Row] = [(_name("i", item), f"category-{category}") for item, category in enumerate(item_to_category)]
    return {
        "interactions.csv": Table(("user", "item", "device", "time", "label"), rows),
        "users.csv": Table(("user", "age_group"), users),
        "items.csv": Table(("item", "category"), items),
    }


def generate_future(num_rows: int, seed: int) -> dict[str, Table]:
    """A log whose answer lies in the neighbours' futures alone, for `split.mode = "static"`, TRAIN_FROM and TEST_FROM.

    A *situation* is a value of the context field `situation`, and has a hidden class, A or B. NUM_MEETINGS users meet it once in
    the pool, and afterwards have NUM_FOLLOWING interactions with items of the group of its class. Later one more user meets it:
    that is the target, and its label is 1 where the class is A.

    Nothing else tells the class. Every situation has the same count of pool rows and of positives among them. What users did
    before they met it is of either group at random, and the labels of all that they did are half ones, in a drawn order:
    pretraining could otherwise learn the class of a user or a situation by its id. No target's situation is that of another
    target. The encoder learns the groups from *shoppers*, who meet no situation: each likes one group and dislikes the other.

    Args:
        num_rows: about how many interactions, at least 500.
        seed: of every draw.

    Raises:
        ValueError: too few rows.
    """
    _check_rows(num_rows, 500)
    draw = random.Random(seed)
    per_meeting = _NUM_EARLIER + 1 + NUM_FOLLOWING
    per_situation = NUM_MEETINGS * per_meeting + _NUM_EARLIER + 1 + _SHOPPERS_PER_SITUATION * _ROWS_PER_SHOPPER
    num_situations = round(num_rows / per_situation)
    log = _FutureLog(draw)
    for _ in range(round(num_situations * _SHOPPERS_PER_SITUATION)):
        log.add_shopper()
    num_test = round(_TEST_SHARE * num_situations)
    targets = _fair_labels(draw, num_situations - num_test) + _fair_labels(draw, num_test)
    for index, label in enumerate(targets):
        is_test = index >= num_situations - num_test
        log.add_situation(_name("s", index), label, is_test)
    items: list[Row] = [(_name(group, index), group) for group in ("a", "b", "n") for index in range(_ITEMS_PER_GROUP)]
    return {
        "interactions.csv": Table(
            ("user", "item", "situation", "time", "label"), sorted(log.rows, key=lambda row: (row[3], row[0]))
        ),
        "items.csv": Table(("item", "group"), items),
    }


class _FutureLog:
    """The rows of `generate_future` while they are drawn; ids are numbered as they come, and the classes in a drawn order."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._num_users = 0
        self.rows: list[Row] = []

    def add_shopper(self) -> None:
        """A pool user who likes one group and dislikes the other."""
        taste = self._draw.choice("ab")
        groups = [self._draw.choice("ab") for _ in range(_ROWS_PER_SHOPPER)]
        labels = [int((group == taste) == (self._draw.random() < _TASTE_RATE)) for group in groups]
        self._add_user(self._pool_time(), list(zip(groups, [""] * len(groups), labels, strict=True)))

    def add_situation(self, situation: str, target_label: int, is_test: bool) -> None:
        """The pool users who meet a situation, and its target."""
        following = "a" if target_label else "b"
        for label in _fair_labels(self._draw, NUM_MEETINGS):
            later = [(following, "", label) for label in _fair_labels(self._draw, NUM_FOLLOWING)]
            self._add_user(self._pool_time(), [*self._earlier(), ("n", situation, label), *later])
        user = self._add_user(self._pool_time(), self._earlier())
        first, last = (TEST_FROM, TEST_FROM + 10 * _SECONDS_PER_DAY) if is_test else (TRAIN_FROM, TEST_FROM)
        self._add_row(user, "n", situation, self._draw.randrange(first, last), target_label)

    def _earlier(self) -> list[tuple[str, str, int]]:
        return [(self._draw.choice("ab"), "", label) for label in _fair_labels(self._draw, _NUM_EARLIER)]

    def _pool_time(self) -> int:
        return START_TIME + self._draw.randrange(TRAIN_FROM - START_TIME - _SECONDS_PER_DAY)

    def _add_user(self, time: int, rows: Sequence[tuple[str, str, int]]) -> str:
        user = _name("u", self._num_users)
        self._num_users += 1
        for place, (group, situation, label) in enumerate(rows):
            self._add_row(user, group, situation, time + 600 * place, label)
        return user

    def _add_row(self, user: str, group: str, situation: str, time: int, label: int) -> None:
        item = _name(group, self._draw.randrange(_ITEMS_PER_GROUP))
        self.rows.append((user, item, situation, time, label))


def write_tables(tables: Mapping[str, Table], folder: Path) -> None:
    """Writes tables as CSV files, with a header line and newlines as line ends, whatever the system."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table.header)
            writer.writerows(table.rows)


def run(folder: Path, kind: str, num_rows: int | None, seed: int) -> None:
    """Makes a log and writes its files.

    Raises:
        ValueError: an unknown kind, or too few rows.
    """
    tables = generate(kind, num_rows, seed)
    write_tables(tables, folder)
    logger.info("synthetic: wrote %s interactions to %s", f"{len(tables['interactions.csv'].rows):,}", folder)


def _check_rows(num_rows: int, least: int) -> None:
    if num_rows < least:
        raise ValueError(f"A log of this kind needs {least} rows or more. Received: {num_rows}.")


def _fair_labels(draw: random.Random, count: int) -> list[int]:
    """Half ones, half zeros (for an odd count one zero more), in a drawn order."""
    labels = [index % 2 for index in range(count)]
    draw.shuffle(labels)
    return labels


def _name(prefix: str, number: int) -> str:
    return f"{prefix}{number:03d}"


def parse_flags(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tf_lift.synthetic",
        description="Writes a made-up interaction log as CSV files: interactions, items and, for some kinds, users.",
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the files; made if it is not there"
    )
    parser.add_argument(
        "--kind",
        choices=sorted(DEFAULT_ROWS, reverse=True),
        default="simple",
        help="simple: a small shop. future: labels that only the neighbours' futures tell (default: %(default)s)",
    )
    parser.add_argument(
        "--rows", type=int, metavar="N", help="about how many interactions (default: 3000, or 24000 for future)"
    )
    parser.add_argument("--seed", type=int, default=7, metavar="S", help="of every draw (default: %(default)s)")
    return parser.parse_args(arguments)


def main() -> None:
    """The command."""
    flags = parse_flags()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        run(flags.out, flags.kind, flags.rows, flags.seed)
    except ValueError as error:
        sys.exit(f"synthetic: {error}")


if __name__ == "__main__":
    main()
