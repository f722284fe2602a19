"""What settings are compared by, a rule's as a learned ranker's: a number on validation."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tf_lift import metrics
from tf_lift.baselines.no_learning import Candidates, loss_after_platt
from tf_lift.baselines.ranker_scores import RankerScores
from tf_lift.slate_grid import is_ranking, slate_grid


@dataclasses.dataclass(frozen=True)
class Objective:
    """A metric on validation.

    Attributes:
        name: the metric.
        direction: which way is better.
    """

    name: str
    direction: Literal["min", "max"]

    def is_better(self, value: float, other: float) -> bool:
        """Whether one value is strictly better than another."""
        return value < other if self.direction == "min" else value > other


def choose_objective(validation: Candidates) -> Objective:
    """NDCG@10 where slates are ranked, else LogLoss."""
    return Objective("NDCG@10", "max") if is_ranking(validation.slates) else Objective("LogLoss", "min")


def measure_objective(validation: Candidates, answers: RankerScores) -> float:
    """The objective of a ranker's answers on validation."""
    return measure_scores(validation, answers.validation, answers.is_probability)


def measure_scores(validation: Candidates, scores: np.ndarray, is_probability: bool = False) -> float:
    """The objective of scores, after Platt's scaling where they are no probabilities and LogLoss is asked for.

    Args:
        validation: n candidates.
        scores: float64 [n].
        is_probability: whether they are probabilities.
    """
    if is_ranking(validation.slates):
        labels, mask = slate_grid(validation.slates, validation.labels.astype(np.float64))
        ranks = metrics.slate_ranks(labels, slate_grid(validation.slates, scores)[0], mask)
        return metrics.ranking_metrics(ranks)["NDCG@10"]
    return (
        metrics.log_loss(validation.labels, scores) if is_probability else loss_after_platt(scores, validation.labels)
    )


def choose_setting(validation: Candidates, alternatives: Sequence[np.ndarray]) -> int:
    """Which of a rule's settings is best by the objective, the first of several that are.

    Args:
        validation: n candidates.
        alternatives: of each setting, float64 [n] scores.
    """
    objective, best = choose_objective(validation), 0
    values = [measure_scores(validation, scores) for scores in alternatives]
    for place, value in enumerate(values):
        if objective.is_better(value, values[best]):
            best = place
    return best
