"""The section `[situation]`."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from tf_lift.config.checks import check_range

Relation = Literal["future", "past", "any"]
# `relations` -> what the predictor reads, in the order of its features
RELATIONS: Mapping[str, tuple[Relation, ...]] = {
    "all": ("future", "past", "any"),
    "both": ("future", "past"),
    "future": ("future",),
    "past": ("past",),
    "any": ("any",),
    "none": (),
}


@dataclasses.dataclass(frozen=True)
class Transitions:
    """The settings that the transition tables of a data set depend on; see `Situation`."""

    window: int
    max_followers: int
    num_snapshots: int


@dataclasses.dataclass(frozen=True)
class SituationFeatures:
    """The settings that the predictor's features depend on; see `Situation`."""

    relations: str
    history_rows: int
    overlap: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Situation:
    """What people who had the user's last items went on to: counts of directed transitions between items and categories."""

    relations: Literal["none", "all", "both", "future", "past", "any"] = "none"
    """What the predictor reads. `future`: what followed the items of the history; `past`: what preceded them; `both`: the one beside the
    other; `any`: both added, whatever the direction; `all`: all three; `none`: nothing."""
    tables: bool = False
    """True: preprocessing builds the tables even if `relations` is "none", so that runs with and without share a data set."""
    window: int = 20
    """How many positive rows after one count as what followed it; `overlap`: how many rows before and after one are read."""
    history_rows: int = 20
    """m, the newest rows of a history that are looked up; no more than `retrieval.context_length` are."""
    max_followers: int = 1000
    """F: of each item or category, its F most frequent followers are kept, at each snapshot."""
    overlap: bool = False
    """True: the predictor reads what the neighbours of the situation did next and before: of each of the m items, the newest rows of other
    users whose preceding rows share most with the history."""
    overlap_rows: int = 500
    """`overlap`: newest rows of each item that are compared with the history."""
    overlap_neighbours: int = 50
    """`overlap`: K, rows of each item that are kept."""
    encoded_neighbours: int = 0
    """`overlap`: of each item's kept rows, so many of most overlap whose encoded futures each candidate attends to: eq. 14 with the
    situation as the query, an experiment. 0: none."""
    num_snapshots: int = 8
    """Rolling mode: states of the tables from train_from to test_from, evenly spaced, and at the same distance after it."""

    def __post_init__(self) -> None:
        for name, high in (("window", 1000), ("history_rows", 127), ("max_followers", 1 << 24), ("num_snapshots", 32)):
            check_range("situation", name, getattr(self, name), 1, high)
        check_range("situation", "overlap_rows", self.overlap_rows, 1, 1 << 16)
        check_range("situation", "overlap_neighbours", self.overlap_neighbours, 1, self.overlap_rows)
        check_range("situation", "encoded_neighbours", self.encoded_neighbours, 0, self.overlap_neighbours)
        if self.encoded_neighbours and not self.overlap:
            raise ValueError(
                "`situation.encoded_neighbours` needs `situation.overlap`. Received: "
                f"encoded_neighbours = {self.encoded_neighbours} and overlap = false. Set overlap to true."
            )

    @property
    def relation_names(self) -> tuple[Relation, ...]:
        """The relations that the predictor reads, in the order of its features."""
        return RELATIONS[self.relations]

    @property
    def transitions(self) -> Transitions | None:
        """What the tables depend on; None: none are built."""
        if self.relations == "none" and not self.tables:
            return None
        return Transitions(self.window, self.max_followers, self.num_snapshots)

    @property
    def features(self) -> SituationFeatures | None:
        """What the features depend on; None: there are none."""
        if self.relations == "none" and not self.overlap:
            return None
        overlap: tuple[int, ...] = ()
        if self.overlap:
            overlap = (self.overlap_rows, self.overlap_neighbours, self.window)
            overlap += (self.encoded_neighbours,) if self.encoded_neighbours else ()
        return SituationFeatures(self.relations, self.history_rows, overlap)
