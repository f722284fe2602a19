"""The pools and targets that every engine gets: MovieLens-1M, and synthetic logs of any size."""

import dataclasses
import lzma
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tf_lift.schema import FIRST_VALUE_ID

ML_1M_FIELDS = ("user", "movie", "gender", "age", "occupation", "genre")
ML_1M_DETERMINED = {0: (2, 3, 4), 1: (5,)}
POOL_SHARE = 0.8

SYNTHETIC_FIELDS = ("user", "item", "category", "hour")
SYNTHETIC_DETERMINED = {1: (2,)}
ROWS_PER_USER, ROWS_PER_ITEM = 50, 100
NUM_CATEGORIES, NUM_HOURS = 100, 24
# At 1 million rows the largest user has 0.6 % of them, the largest item 4.7 %, the largest category 9 % and the largest hour 10 %.
USER_EXPONENT, ITEM_EXPONENT, CATEGORY_EXPONENT, HOUR_EXPONENT = 0.6, 0.9, 0.8, 0.5
_ROWS_PER_DRAW = 1 << 20
_CATEGORY_STREAM, _POOL_STREAM, _TARGET_STREAM = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What a process needs to make its data set.

    Attributes:
        name: of the table's rows.
        source: `ml_1m` or `synthetic`.
        num_rows: N of a synthetic log; 0 for ML-1M, whose files decide.
        rolling: whether a target sees only the rows before it; else the whole pool precedes every target.
        exclude_own_user: whether neighbours are other users' rows.
        seed: of the synthetic log, and of the choice of targets.
    """

    name: str
    source: Literal["ml_1m", "synthetic"]
    num_rows: int = 0
    rolling: bool = False
    exclude_own_user: bool = False
    seed: int = 7

    def is_for_peers(self) -> bool:
        """Whether engines that know neither as-of times nor the own user can answer."""
        return not self.rolling and not self.exclude_own_user


class Rows(NamedTuple):
    """A pool, oldest row first, or targets.

    Attributes:
        fields: int32 [n, M] value ids.
        time: int64 [n] epoch seconds.
        user: int32 [n] user ids.
        positive: bool [n].
    """

    fields: np.ndarray
    time: np.ndarray
    user: np.ndarray
    positive: np.ndarray

    def take(self, which: slice | np.ndarray) -> "Rows":
        """Some of the rows."""
        return Rows(*(column[which] for column in self))


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A pool, targets, and what is known of their fields.

    Attributes:
        pool: the N rows that may be retrieved; a row's id is its index.
        targets: the queries.
        num_ids: M numbers of ids.
        determined: for a key field, the fields whose value it determines.
    """

    pool: Rows
    targets: Rows
    num_ids: tuple[int, ...]
    determined: Mapping[int, tuple[int, ...]]


def load(spec: DataSpec, num_targets: int) -> DataSet:
    """Reads or draws a data set; the same one in every process."""
    return load_ml_1m(spec, num_targets) if spec.source == "ml_1m" else draw_synthetic(spec, num_targets)


def ml_1m_dir() -> Path | None:
    """Folder of MovieLens-1M, where the environment names one that has it."""
    folder = Path(os.environ.get("TF_LIFT_DATA", "")) / "ml_1m"
    return folder if "TF_LIFT_DATA" in os.environ and (folder / "ratings.dat.xz").is_file() else None


def load_ml_1m(spec: DataSpec, num_targets: int) -> DataSet:
    """MovieLens-1M by time. Targets are of the last fifth; the pool is what precedes it, or in rolling mode the whole log."""
    folder = ml_1m_dir()
    if folder is None:
        raise ValueError(
            "ML-1M must lie in ${TF_LIFT_DATA}/ml_1m (see configs/ml_1m.toml). "
            f"Received: TF_LIFT_DATA={os.environ.get('TF_LIFT_DATA')!r}. Set it, or measure synthetic logs only."
        )
    user, movie, rating, time = _read_integers(folder / "ratings.dat.xz").T
    order = np.argsort(time, kind="stable")
    user, movie, rating, time = user[order], movie[order], rating[order], time[order]
    people = {int(line[0]): line[1:4] for line in _read_lines(folder / "users.dat.xz")}
    genres = {int(line[0]): line[2].split("|")[0] for line in _read_lines(folder / "movies.dat.xz")}
    values = [user, movie]
    values += [_look_up({key: person[place] for key, person in people.items()}, user) for place in range(3)]
    values += [_look_up(genres, movie)]
    fields = np.stack([_number(column) for column in values], axis=1)
    rows = Rows(fields, time, fields[:, 0].copy(), rating >= 4)
    split = int(POOL_SHARE * len(time))
    chosen = np.random.default_rng(spec.seed).permutation(np.arange(split, len(time)))[:num_targets]
    pool = rows if spec.rolling else rows.take(slice(0, split))
    num_ids = tuple(int(size) for size in fields.max(axis=0) + 1)
    return DataSet(pool, rows.take(chosen), num_ids, ML_1M_DETERMINED)


def draw_synthetic(spec: DataSpec, num_targets: int) -> DataSet:
    """A log of N rows: users, items and hours by bounded Zipf, and the category that each item has; targets of the same law."""
    num_users = max(spec.num_rows // ROWS_PER_USER, 2)
    num_items = max(spec.num_rows // ROWS_PER_ITEM, 2)
    rng = np.random.default_rng((spec.seed, _CATEGORY_STREAM))
    categories = draw_zipf(rng, NUM_CATEGORIES, CATEGORY_EXPONENT, num_items)
    sizes = (num_users, num_items, NUM_CATEGORIES, NUM_HOURS)
    return DataSet(
        _draw_rows(np.random.default_rng((spec.seed, _POOL_STREAM)), spec.num_rows, 0, sizes, categories),
        _draw_rows(np.random.default_rng((spec.seed, _TARGET_STREAM)), num_targets, spec.num_rows, sizes, categories),
        tuple(size + FIRST_VALUE_ID for size in sizes),
        SYNTHETIC_DETERMINED,
    )


def draw_zipf(rng: np.random.Generator, num_values: int, exponent: float, size: int) -> np.ndarray:
    """Draws 0 .. num_values - 1, value v with density (v + 1)**-exponent, by the inverse of its distribution function.

    Returns:
        int64 [size].
    """
    power = 1.0 - exponent
    ranks = (1.0 + rng.random(size) * ((num_values + 1.0) ** power - 1.0)) ** (1.0 / power)
    return np.clip(ranks.astype(np.int64), 1, num_values) - 1


def _draw_rows(
    rng: np.random.Generator, num_rows: int, first_time: int, sizes: tuple[int, ...], categories: np.ndarray
) -> Rows:
    fields = np.empty((num_rows, len(sizes)), np.int32)
    for begin in range(0, num_rows, _ROWS_PER_DRAW):
        part = fields[begin : begin + _ROWS_PER_DRAW]
        item = draw_zipf(rng, sizes[1], ITEM_EXPONENT, len(part))
        part[:, 0] = draw_zipf(rng, sizes[0], USER_EXPONENT, len(part))
        part[:, 1] = item
        part[:, 2] = categories[item]
        part[:, 3] = draw_zipf(rng, sizes[3], HOUR_EXPONENT, len(part))
    fields += FIRST_VALUE_ID
    time = np.arange(first_time, first_time + num_rows, dtype=np.int64)
    return Rows(fields, time, fields[:, 0].copy(), (fields[:, 0] + fields[:, 1]) % 2 == 0)


def _read_text(path: Path) -> str:
    with lzma.open(path, "rt", encoding="latin-1") as file:
        return file.read()


def _read_integers(path: Path) -> np.ndarray:
    """int64 [lines, 4] of a file of `a::b::c::d` lines."""
    return np.array(_read_text(path).replace("::", " ").split(), dtype=np.int64).reshape(-1, 4)


def _read_lines(path: Path) -> list[list[str]]:
    return [line.split("::") for line in _read_text(path).splitlines()]


def _look_up(values: dict[int, str], keys: np.ndarray) -> np.ndarray:
    unique, place = np.unique(keys, return_inverse=True)
    return np.array([values[int(key)] for key in unique])[place]


def _number(values: np.ndarray) -> np.ndarray:
    """int32 value ids, from FIRST_VALUE_ID, in the order of the values."""
    return (np.unique(values, return_inverse=True)[1] + FIRST_VALUE_ID).astype(np.int32)
