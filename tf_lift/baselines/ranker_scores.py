"""A ranker's answers, in memory and on disk."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tf_lift.workspace import write_json

_ANSWERS, _REST = "scores.npz", "scores.json"


@dataclasses.dataclass(frozen=True)
class RankerScores:
    """A ranker's answers on validation and test.

    Attributes:
        validation: float64 [n], one for each real candidate in the order of `evaluate.read_candidates`; [0] if not asked for.
        test: likewise.
        is_probability: whether they are probabilities; else the higher, the better, and Platt's scaling is the caller's.
        seconds: of each step, wall time.
        num_parameters: numbers of all weights; of trees, their leaves.
        validation_loss: what settings of this ranker may be compared by, lower is better.
    """

    validation: np.ndarray
    test: np.ndarray
    is_probability: bool
    seconds: Mapping[str, float]
    num_parameters: int
    validation_loss: float


def write_scores(scores: RankerScores, folder: Path, stamp: str) -> None:
    """Writes answers; what they are the answers to is in the stamp.

    Args:
        scores: the answers.
        folder: where to.
        stamp: hash of the data set, the ranker, its settings and the seed.
    """
    np.savez_compressed(folder / _ANSWERS, validation=scores.validation, test=scores.test)
    rest = {
        "is_probability": scores.is_probability,
        "seconds": dict(scores.seconds),
        "num_parameters": scores.num_parameters,
        "validation_loss": scores.validation_loss,
    }
    write_json(folder / _REST, {"stamp": stamp, **rest})  # last: it says that the answers are whole


def read_scores(folder: Path, stamp: str, splits: Sequence[str]) -> RankerScores | None:
    """Reads what `write_scores` wrote; None where there is nothing of this stamp, or not all of the splits."""
    path = folder / _REST
    rest = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if rest.pop("stamp", None) != stamp:
        return None
    with np.load(folder / _ANSWERS) as answers:
        scores = RankerScores(answers["validation"], answers["test"], **rest)
    return scores if all(len(getattr(scores, split)) for split in splits) else None
