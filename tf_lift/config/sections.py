"""The sections of a configuration on the data: frozen dataclasses, checked where they are built."""

import dataclasses
import datetime
import difflib
from typing import Literal

from tf_lift.config.checks import check_range

_TIME_FORMATS = ("epoch_seconds", "epoch_milliseconds", "iso")


def _check_files(section: str, files: "AttributeTable | Source") -> None:
    if not files.paths:
        raise ValueError(f"`{section}.paths` must name at least one file. Received: an empty list.")
    if not files.separator:
        raise ValueError(f"`{section}.separator` must have at least one character. Received: ''.")
    if len(files.quote) > 1:
        raise ValueError(f"`{section}.quote` must be one character or empty. Received: {files.quote!r}.")
    try:
        is_line_based = "\n,".encode(files.encoding).endswith(b"\n,")
    except LookupError:
        is_line_based = False
    if not is_line_based:
        raise ValueError(
            f"`{section}.encoding` must be a text encoding of Python that writes a line's end as one byte, such as "
            f"'utf-8' or 'latin-1'. Received: {files.encoding!r}. Convert other files, such as with `iconv -t utf-8`."
        )


def _check_iso_time(section: str, name: str, text: str) -> None:
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"`{section}.{name}` must be ISO 8601, such as '2017-11-25T00:00:00Z'. Received: {text!r}."
        ) from error


@dataclasses.dataclass(frozen=True)
class AttributeTable:
    """A table with one row a user or an item, joined to the log."""

    paths: tuple[str, ...]
    """Files, as in `source.paths`."""
    entity: Literal["user", "item"]
    """What the table describes."""
    key: str
    """Column that holds the entity's identifier."""
    format: Literal["delimited", "json_lines", "parquet"] = "delimited"
    """File format."""
    separator: str = ","
    """Separator of delimited text, one character or more."""
    columns: tuple[str, ...] = ()
    """Column names of delimited text without a header line; empty: the first line is the header."""
    encoding: str = "utf-8"
    """Text encoding."""
    quote: str = ""
    """Quote character of delimited text; empty: quotes are ordinary characters."""
    required: bool = False
    """True: interactions of an entity without a row here are left out (and counted)."""

    def __post_init__(self) -> None:
        _check_files("source.attributes", self)


@dataclasses.dataclass(frozen=True)
class Source:
    """The interaction log's files."""

    paths: tuple[str, ...]
    """Files or globs on any file system that Beam reads. `package:NAME/PATH` is a file inside an installed Python package."""
    time: str = "time"
    """Column that holds the time of the interaction."""
    format: Literal["delimited", "json_lines", "parquet"] = "delimited"
    """File format. Delimited text and JSON lines may be compressed: .gz .bz2 .xz .zst."""
    separator: str = ","
    """Separator of delimited text, one character or more."""
    columns: tuple[str, ...] = ()
    """Column names of delimited text without a header line; empty: the first line is the header."""
    encoding: str = "utf-8"
    """Text encoding."""
    quote: str = ""
    """Quote character of delimited text; empty: quotes are ordinary characters."""
    time_format: str = "epoch_seconds"
    """`epoch_seconds`, `epoch_milliseconds`, `iso` (ISO 8601; UTC where no zone is given) or a strptime pattern, in UTC."""
    time_from: str = ""
    """Interactions before this time (ISO 8601, UTC) are left out and counted; empty: none are."""
    time_until: str = ""
    """Interactions at or after this time (ISO 8601, UTC) are left out and counted; empty: none are."""
    max_rejected_share: float = 0.01
    """More rejected rows than this share of the input stop the run: a wrong separator should not end in an empty data set."""
    attributes: tuple[AttributeTable, ...] = ()
    """Attribute tables."""

    def __post_init__(self) -> None:
        _check_files("source", self)
        if self.time_format not in _TIME_FORMATS and "%" not in self.time_format:
            near = difflib.get_close_matches(self.time_format, _TIME_FORMATS, n=1)
            raise ValueError(
                f"`source.time_format` must be one of {', '.join(map(repr, _TIME_FORMATS))} or a strptime pattern with %. "
                f"Received: {self.time_format!r}." + (f" Did you mean {near[0]!r}?" if near else "")
            )
        for name in ("time_from", "time_until"):
            if getattr(self, name):
                _check_iso_time("source", name, getattr(self, name))
        check_range("source", "max_rejected_share", self.max_rejected_share, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """What the user did with the item: the label, and what pretraining masks (eq. 9)."""

    kind: Literal["positive_only", "column", "threshold", "classes"] = "positive_only"
    """Every row a positive; a 0/1 column; a threshold on a number; or a map from values to classes."""
    column: str = ""
    """Column of the log, for every kind but `positive_only`."""
    threshold: float = 0.0
    """`threshold`: the label is 1 where the number is at least this."""
    classes: dict[str, int] = dataclasses.field(default_factory=dict)
    """`classes`: the class of each value, from 0 without gaps."""
    positive_classes: tuple[int, ...] = (1,)
    """`classes`: the classes whose label is 1."""

    def __post_init__(self) -> None:
        if self.kind != "positive_only" and not self.column:
            raise ValueError(
                f"`behaviour.column` must name a column when `behaviour.kind` is {self.kind!r}. Received: ''."
            )
        if self.kind == "classes":
            found = sorted(set(self.classes.values()))
            if len(found) < 2 or found != list(range(len(found))):
                raise ValueError(
                    f"`behaviour.classes` must map to 0, 1, .. without gaps, two or more. Received: {self.classes}."
                )
            strange = set(self.positive_classes) - set(found)
            if strange or not 0 < len(set(self.positive_classes)) < len(found):
                raise ValueError(
                    f"`behaviour.positive_classes` must be some of the classes {found}, not all. Received: {self.positive_classes}."
                )

    @property
    def num_classes(self) -> int:
        """Number of behaviours, without padding and mask."""
        return len(set(self.classes.values())) if self.kind == "classes" else 2

    def is_positive(self, behaviour: int) -> bool:
        """Whether a behaviour's label is 1."""
        return behaviour in self.positive_classes if self.kind == "classes" else behaviour == 1


@dataclasses.dataclass(frozen=True)
class Split:
    """The global-time split: pool, then train (its end is validation), then test."""

    mode: Literal["static", "rolling"] = "rolling"
    """`static`: the pool ends where train begins (the paper). `rolling`: every interaction is in the pool from its own time on."""
    by: Literal["quantiles", "times"] = "quantiles"
    """Whether the two boundaries are shares of the interactions or times."""
    train_from: float | str = 0.6
    """Where train begins: a share of the interactions, epoch seconds, or ISO 8601 in UTC."""
    test_from: float | str = 0.8
    """Where test begins, likewise."""
    validation_share: float = 0.1
    """Share of the train window's interactions, its end, that is validation."""
    train_rate: float = 1.0
    """Share of the train and validation windows' rows that become targets, drawn by a hash of the row."""
    test_rate: float = 1.0
    """Share of the test window's rows that become targets."""

    def __post_init__(self) -> None:
        if self.by == "quantiles":
            if isinstance(self.train_from, str) or isinstance(self.test_from, str):
                raise ValueError(
                    "`split.train_from` and `split.test_from` must be shares when `split.by` is 'quantiles'. Received: "
                    f'{self.train_from!r}, {self.test_from!r}. Set `by = "times"` for times.'
                )
            if not 0.0 < self.train_from < self.test_from < 1.0:
                raise ValueError(
                    f"0 < train_from < test_from < 1 must hold. Received: {self.train_from}, {self.test_from}."
                )
        check_range("split", "validation_share", self.validation_share, 0.001, 0.9)
        check_range("split", "train_rate", self.train_rate, 0.0, 1.0)
        check_range("split", "test_rate", self.test_rate, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Negatives:
    """Sampled negatives, for logs of positives only."""

    protocol: Literal["none", "rim", "honest"] = "none"
    """`none`: the log's own labels. `rim`: the paper's. `honest`: no item that the user had before the target's time."""
    per_target: int = 100
    """Negatives of one positive; a slate has 1 + per_target candidates."""
    popularity_share: float = 0.0
    """`honest`: share of the negatives drawn by popularity before the target's time; the rest are uniform."""
    own_share: float = 0.1
    """`rim`: share of the negatives drawn from the user's own pool rows."""
    per_pool_row: int = 0
    """`rim`: uniform negatives drawn for every pool row."""
    drawn_rows: Literal["keep", "drop"] = "keep"
    """`rim`: whether the log holds what was drawn for pool rows. `drop`: contexts, neighbours and counts are of real rows alone; the
    candidates are the same, as their draws go on from those."""
    new_items: Literal["keep", "drop"] = "drop"
    """`honest`: what happens to targets whose item nobody had before. As negatives are items seen before, such a target would be
    the only new item of its slate, and newness alone would give it away; `drop` leaves it out of the targets (not of the pool)."""
    repeats: Literal["keep", "drop"] = "drop"
    """`honest`: what happens to targets whose item the user had before. As negatives are items the user never had, one bit would
    tell such a target from all of them; `drop` leaves it out of the targets (not of the pool)."""

    def __post_init__(self) -> None:
        check_range("negatives", "per_target", self.per_target, 1, 10_000)
        check_range("negatives", "popularity_share", self.popularity_share, 0.0, 1.0)
        check_range("negatives", "own_share", self.own_share, 0.0, 1.0)
        check_range("negatives", "per_pool_row", self.per_pool_row, 0, 10)
        if self.protocol != "rim" and self.per_pool_row:
            raise ValueError(
                f"`negatives.per_pool_row` belongs to protocol 'rim'. Received: {self.per_pool_row} with {self.protocol!r}."
            )
        if self.drawn_rows == "drop" and not self.per_pool_row:
            raise ValueError(
                "`negatives.drawn_rows = 'drop'` needs rows that are drawn. Received: negatives.per_pool_row = 0. Set that to 1 or more."
            )

    @property
    def logged_per_pool_row(self) -> int:
        """Negatives that the log holds for every pool row."""
        return self.per_pool_row if self.drawn_rows == "keep" else 0

    @property
    def dropped_per_pool_row(self) -> int:
        """Negatives that are numbered for every pool row, and not logged."""
        return self.per_pool_row - self.logged_per_pool_row


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """BM25 over categorical fields (eqs. 12 and 13)."""

    num_neighbours: int = 10
    """K, neighbours of a candidate."""
    context_length: int = 20
    """L, interactions of a history and of a future."""
    idf: Literal["lucene", "paper"] = "lucene"
    """`lucene`: ln(1 + (N - n + .5)/(n + .5)). `paper`: eq. 13, ln((N - n + .5)/(n + .5)), clamped at 0."""
    min_future: int = 0
    """Static mode: rows whose future holds at least this many interactions are preferred among equal scores."""
    exclude_own_user: bool = False
    """True: a target's neighbours are other users' rows."""

    def __post_init__(self) -> None:
        check_range("retrieval", "num_neighbours", self.num_neighbours, 1, 1000)
        check_range("retrieval", "context_length", self.context_length, 1, 127)
        check_range("retrieval", "min_future", self.min_future, 0, self.context_length)


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """How preprocessing cuts its work. None of it changes with the number of workers, so that the output does not either."""

    num_shards: int = 8
    """Buckets of users: shards of the interaction log."""
    example_shards: int = 4
    """TFRecord files of each split."""
    rows_per_batch: int = 65536
    """Lines of an element while parsing."""
    targets_per_batch: int = 512
    """Targets of an element while examples are built."""
    join: Literal["auto", "broadcast", "grouped"] = "auto"
    """How targets find their neighbours. `broadcast`: every worker holds all posting lists. `grouped`: targets and posting lists are
    grouped by key, and no worker holds them all. `auto`: `broadcast` if the lists are expected to take at most `broadcast_gib`."""
    broadcast_gib: float = 4.0
    """`auto`: GiB of posting lists that a worker may hold."""
    pool_slice_rows: int = 1_048_576
    """Rows of a slice of the pool's order: what is grouped by key at once before the shuffle."""
    key_parts: int = 4
    """Parts of each match set's keys, a power of two: posting lists of one part are merged by one worker, in some 40
    bytes a row."""
    hot_key_rows: int = 4_000_000
    """Rolling mode: a key with twice as many pool rows is split by slices of the pool's order, one with fewer never is."""

    def __post_init__(self) -> None:
        for name in ("num_shards", "example_shards", "rows_per_batch", "targets_per_batch", "pool_slice_rows"):
            check_range("pipeline", name, getattr(self, name), 1, 1 << 24)
        check_range("pipeline", "broadcast_gib", self.broadcast_gib, 0.0, 1 << 16)
        check_range("pipeline", "hot_key_rows", self.hot_key_rows, 1, 1 << 31)
        if self.key_parts not in (1 << power for power in range(13)):
            raise ValueError(f"`pipeline.key_parts` must be a power of two up to 4096. Received: {self.key_parts}.")
