"""What settings are compared by: a number on validation."""

import dataclasses
from typing import Literal

import numpy as np

from tf_lift import metrics
from tf_lift.baselines.no_learning import Candidates, apply_platt, fit_platt
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


def measure_objective(validation: Candidates, scores: RankerScores) -> float:
    """The objective of a ranker's answers on validation, after Platt's scaling where they are no probabilities."""
    if is_ranking(validation.slates):
        labels, mask = slate_grid(validation.slates, validation.labels.astype(np.float64))
        ranks = metrics.slate_ranks(labels, slate_grid(validation.slates, scores.validation)[0], mask)
        return metrics.ranking_metrics(ranks)["NDCG@10"]
    probabilities = scores.validation
    if not scores.is_probability:
        probabilities = apply_platt(scores.validation, fit_platt(scores.validation, validation.labels))
    return metrics.log_loss(validation.labels, probabilities)
