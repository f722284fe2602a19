"""What the client returns: plain frozen dataclasses, without gRPC or TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RankedItem:
    """A candidate and the model's answer for it.

    Attributes:
        item: The item's id, as in the request.
        probability: Of the positive behaviour, in 0..1.
    """

    item: str
    probability: float


@dataclass(frozen=True)
class Neighbour:
    """A retrieved interaction: somebody in the same situation, and what they did next.

    Attributes:
        user: Who interacted.
        item: With which item.
        time: When, in epoch seconds, UTC.
        score: BM25 score of the retrieval.
        attention: Weight in the prediction, in 0..1.
        next_items: Items of the neighbour's future, in the order that the model gives.
    """

    user: str
    item: str
    time: int
    score: float
    attention: float
    next_items: tuple[str, ...]


@dataclass(frozen=True)
class Reason:
    """One of the user's last items, and how often the candidate followed it.

    Attributes:
        item: The item that the user had.
        went_on: How many of `times` the candidate was among what the same person liked next.
        times: How often somebody liked the item: as many people where nobody has an item twice.
    """

    item: str
    went_on: int
    times: int


@dataclass(frozen=True)
class Explanation:
    """A candidate, the model's answer for it, and what it rests on, as the model orders it.

    Attributes:
        item: The item's id, as in the request.
        probability: Of the positive behaviour, in 0..1.
        neighbours: The interactions that were retrieved for it.
        reasons: What followed the user's last items, where the model has tables of that.
    """

    item: str
    probability: float
    neighbours: tuple[Neighbour, ...]
    reasons: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class TensorMetadata:
    """An input or output of a signature: dtype, such as `string`, and sizes, where -1 is any; None is any rank."""

    dtype: str
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class SignatureMetadata:
    """The named inputs and outputs of one signature."""

    inputs: dict[str, TensorMetadata]
    outputs: dict[str, TensorMetadata]


@dataclass(frozen=True)
class ModelMetadata:
    """A served model: its name, version and named signatures."""

    model_name: str
    version: int
    signatures: dict[str, SignatureMetadata]


@dataclass(frozen=True)
class VersionStatus:
    """The state of one version, such as `AVAILABLE` or `LOADING`, and the error message where there is one."""

    version: int
    state: str
    error: str


@dataclass(frozen=True)
class PairProbability:
    """A user, an item, and the probability of the positive behaviour, in 0..1."""

    user: str
    item: str
    probability: float


@dataclass(frozen=True)
class ServiceHealth:
    """A gRPC service of the server, "" for all of it, and its state, such as `SERVING` or `NOT_SERVING`."""

    service: str
    state: str


Answer = (  # Of one call of the client.
    list[RankedItem] | list[Explanation] | list[PairProbability] | list[VersionStatus] | ServiceHealth | ModelMetadata
)
