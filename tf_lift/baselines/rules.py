"""The rankers that learn nothing, as rankers of the registry."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from tf_lift.baselines.item_cosine import score_by_cosine
from tf_lift.baselines.no_learning import Candidates, loss_after_platt, score_baselines
from tf_lift.baselines.objective import choose_setting
from tf_lift.baselines.ranker_job import RankerJob, measured
from tf_lift.baselines.ranker_scores import RankerScores
from tf_lift.baselines.rules_up_to_now import (
    score_popularity_up_to_now,
    score_recent_popularity,
    score_transitions_up_to_now,
)
from tf_lift.baselines.transition_counts import score_by_transitions
from tf_lift.data.dataset_files import Dataset

# Rules of the log alone; the others are `score_baselines`'.
_OF_LOG: dict[str, Callable[[Dataset, Candidates, int], np.ndarray]] = {
    "item cosine, last 20": score_by_cosine,
    "transitions, future": functools.partial(score_by_transitions, direction="future"),
    "transitions, past": functools.partial(score_by_transitions, direction="past"),
    "transitions, any": functools.partial(score_by_transitions, direction="any"),
}
# Rules of the log up to each target's time; of the settings of one, validation chooses.
_OF_LOG_UP_TO_NOW: dict[str, Callable[[Dataset, Candidates], list[np.ndarray]]] = {
    "popularity, up to t": score_popularity_up_to_now,
    "recent popularity, up to t": score_recent_popularity,
    "transitions, future, up to t": functools.partial(score_transitions_up_to_now, direction="future"),
    "transitions, past, up to t": functools.partial(score_transitions_up_to_now, direction="past"),
    "transitions, any, up to t": functools.partial(score_transitions_up_to_now, direction="any"),
}


@dataclasses.dataclass(frozen=True)
class RuleSettings:
    """A rule has nothing to choose: its few strengths or spans are tried on validation."""


def score_rule(job: RankerJob) -> RankerScores:
    """Scores one rule.

    Args:
        job: what to score.

    Raises:
        ValueError: the data set lacks what the rule reads.
    """
    boundaries = job.dataset.info.boundaries
    seconds: dict[str, float] = {}
    with measured(seconds, "score"):
        train, validation, test = (job.candidates(split) for split in ("train", "validation", "test"))
        on_validation = _score(job, [train], validation, boundaries.validation_from)
        best = choose_setting(validation, on_validation)
        on_test = _score(job, [train, validation], test, boundaries.test_from)[best]
    loss = loss_after_platt(on_validation[best], validation.labels)
    return RankerScores(on_validation[best], on_test, False, seconds, 0, loss)


def _score(job: RankerJob, known: list[Candidates], target: Candidates, until: int) -> list[np.ndarray]:
    """Scores of each setting of the rule, float64 [n]."""
    if job.ranker in _OF_LOG:
        return [_OF_LOG[job.ranker](job.dataset, target, until)]
    if job.ranker in _OF_LOG_UP_TO_NOW:
        return _OF_LOG_UP_TO_NOW[job.ranker](job.dataset, target)
    scores = score_baselines(job.dataset, known, target, until)
    if job.ranker not in scores:
        raise ValueError(
            f"Rule {job.ranker!r} must find the match sets that it reads among the examples' statistics. Received: a data set whose "
            "query fields lack the user's or the item's key. Leave the rule out, or set `query = true` on both keys."
        )
    return scores[job.ranker]
