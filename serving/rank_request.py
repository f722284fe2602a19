"""What the client is asked: plain frozen dataclasses, without gRPC or TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_TIME_LIMIT = 1 << 63  # Times are int64.


@dataclass(frozen=True)
class HistoryInteraction:
    """One interaction of the history that a request brings.

    Attributes:
        item: The item's id, not empty.
        behaviour: The label's column as the log has it: `1` or `0`, the rating where the label is a threshold of it, the
            name of the class, or `1` where every logged interaction is positive.
        time: When, epoch seconds, UTC.
        context: Context field -> value; a field that is not named is unknown.

    Raises:
        ValueError: The item is empty, or the time is not int64.
    """

    item: str
    behaviour: str
    time: int
    context: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.item:
            raise ValueError(
                "An interaction of a history must have an item, as an empty one is padding. "
                f"Received: {self!r}. Name the item, or leave the interaction out."
            )
        _check_time(self.time)


@dataclass(frozen=True)
class RankRequest:
    """A slate to be ranked for a user.

    Attributes:
        user: The user's id; an unknown one is no error.
        items: The candidates' ids, at least one, none empty; unknown ones are no error.
        time: As-of time, epoch seconds, UTC; where None, the time of the call.
        context: Context field -> value; a field that is not named is unknown.
        history: The user's latest interactions, in place of those in the model's log: () for none, None for those in the
            log. In any order; where times are equal, the first listed came first. The model ignores those at or after
            `time`.
        user_attributes: Field of the user -> value; a field that is not named has the value of the model's log. With
            attributes and `history` None the user has no history, since the log's is for the log's users.

    Raises:
        ValueError: There are no items or an empty one, or the time is not int64.
    """

    user: str
    items: Sequence[str]
    time: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    history: Sequence[HistoryInteraction] | None = None
    user_attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.items, str) or not self.items or "" in self.items:
            raise ValueError(
                "Items must be a list of at least one id, none of them empty. "
                f"Received: {self.items!r}. Name the items to be ranked."
            )
        _check_time(self.time)

    @property
    def brings_user(self) -> bool:
        """Whether the request says itself who the user is: by a history or by attributes."""
        return self.history is not None or bool(self.user_attributes)


@dataclass(frozen=True)
class UserItemPair:
    """A user and one candidate, to be classified: `time` and `context` are those of a RankRequest.

    Raises:
        ValueError: The item is empty, or the time is not int64.
    """

    user: str
    item: str
    time: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.item:
            raise ValueError(f"A pair must have an item. Received: {self!r}. Name the item.")
        _check_time(self.time)


def _check_time(time: int | None) -> None:
    if time is not None and not -_TIME_LIMIT <= time < _TIME_LIMIT:
        raise ValueError(
            f"A time must be epoch seconds that fit int64. Received: {time}. Is it in seconds, and not in nanoseconds?"
        )
