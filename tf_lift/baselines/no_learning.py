"""Baselines without learning, from the same examples; each score is turned into a probability on validation (Platt's scaling)."""

import dataclasses
import hashlib

import numpy as np

from tf_lift import metrics
from tf_lift.data.dataset_files import Dataset
from tf_lift.schema import FIRST_VALUE_ID, UNKNOWN_ID

RATE_STRENGTHS = (1.0, 3.0, 10.0, 30.0)  # rows of the average kind that a rate is smoothed with: validation chooses
_FAR_BELOW = 1e3  # above any difference in log-popularity
_NEWTON_STEPS = 50
_RIDGE = 1e-6  # keeps Newton's steps finite when a score is constant or separates the labels


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The real candidates of a split, flat.

    Attributes:
        fields: int32 [n, M] ids as of their slate's time.
        labels: float32 [n].
        slates: int64 [n] which slate each belongs to.
        times: int64 [n] epoch seconds of the slate.
        match_counts: int32 [n, S'].
        match_positives: int32 [n, S'].
    """

    fields: np.ndarray
    labels: np.ndarray
    slates: np.ndarray
    times: np.ndarray
    match_counts: np.ndarray
    match_positives: np.ndarray


def hash_candidates(candidates: Candidates) -> str:
    """sha256 of candidates' fields, slates and labels, in hexadecimal: with the same one the same is ranked."""
    digest = hashlib.sha256()
    for values, dtype in ((candidates.fields, "<i4"), (candidates.slates, "<i8"), (candidates.labels, "<f4")):
        digest.update(np.ascontiguousarray(values, dtype).tobytes())
    return digest.hexdigest()


def score_baselines(
    dataset: Dataset, known: list[Candidates], target: Candidates, until: int
) -> dict[str, list[np.ndarray]]:
    """Scores of every baseline.

    Args:
        dataset: the data set.
        known: candidates whose labels may be used: train's, and validation's when the target is test.
        target: candidates to score.
        until: only rows of the log before this time are counted, epoch seconds.

    Returns:
        name -> float64 [n] for each setting of the baseline, higher is better; validation chooses among the settings.
    """
    schema = dataset.config.schema
    log = dataset.log
    counted = (log.time < until) & dataset.positive & ~log.synthetic
    num_items = dataset.info.vocabularies[schema.item_index].num_ids
    popularity = np.bincount(log.fields[counted, schema.item_index], minlength=num_items)
    popularity[:FIRST_VALUE_ID] = 0
    popular = np.log1p(popularity[target.fields[:, schema.item_index]])
    entities = (schema.user_index, schema.item_index)
    scores = {
        "constant": [np.zeros(len(target.labels))],
        "popularity": [popular],
        "user rate + item rate": [
            sum(
                (_rate_odds(dataset, known, target, field, strength) for field in entities),
                np.zeros(len(target.labels)),
            )
            for strength in RATE_STRENGTHS
        ],
    }
    statistic = {
        dataset.info.match_sets.generators[place]: index for index, place in enumerate(dataset.info.statistic_sets)
    }
    user, item = (statistic.get((field,)) for field in entities)
    own_labels = dataset.config.negatives.protocol == "none"
    if own_labels and user is not None and item is not None:
        prior = float(np.mean(dataset.positive[log.time < dataset.info.boundaries.train_from]))
        of_user, of_item = (
            [_odds_up_to_now(target, index, prior, strength) for strength in RATE_STRENGTHS] for index in (user, item)
        )
        scores |= {"user rate, up to t": of_user, "item rate, up to t": of_item}
        scores["user rate + item rate, up to t"] = [
            user_odds + item_odds for user_odds, item_odds in zip(of_user, of_item, strict=True)
        ]
    pair = statistic.get(tuple(sorted(entities)))
    if pair is not None:
        # Sampled negatives of the pool (protocol rim) are no sign that the user had the item.
        rows = target.match_counts if own_labels else target.match_positives
        seen = (rows[:, pair] > 0).astype(np.float64)
        scores["match rule"] = [-seen]
        scores["repeat rule"] = [seen]
        scores["popularity + match rule"] = [popular - _FAR_BELOW * seen]
    return scores


def fit_platt(scores: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the logistic regression of labels on one score, by Newton's method.

    Args:
        scores: float64 [n].
        labels: [n] 0 or 1.
    """
    centre, spread = float(np.mean(scores)), float(np.std(scores)) or 1.0
    inputs = np.stack([(scores - centre) / spread, np.ones(len(scores))], axis=1)
    weights = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        probabilities = 1.0 / (1.0 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (probabilities - labels) + _RIDGE * weights
        hessian = (inputs * (probabilities * (1 - probabilities))[:, None]).T @ inputs + _RIDGE * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        weights -= np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0] / spread), float(weights[1] - weights[0] * centre / spread)


def apply_platt(scores: np.ndarray, scaling: tuple[float, float]) -> np.ndarray:
    """Probabilities of scores, by the slope and intercept that `fit_platt` returned."""
    slope, intercept = scaling
    return 1.0 / (1.0 + np.exp(-(slope * scores + intercept)))


def loss_after_platt(scores: np.ndarray, labels: np.ndarray) -> float:
    """LogLoss of scores after Platt's scaling on the same labels, to choose among settings by."""
    return metrics.log_loss(labels, apply_platt(scores, fit_platt(scores, labels)))


def _rate_odds(
    dataset: Dataset, known: list[Candidates], target: Candidates, field: int, strength: float
) -> np.ndarray:
    """Log-odds of the smoothed rate of positives of each target's value, from the pool's rows and the known candidates."""
    log = dataset.log
    pool = log.time < dataset.info.boundaries.train_from
    ids = np.concatenate([log.fields[pool, field], *(part.fields[:, field] for part in known)])
    labels = np.concatenate([dataset.positive[pool], *(part.labels for part in known)]).astype(np.float64)
    size = dataset.info.vocabularies[field].num_ids
    counts = np.bincount(ids, minlength=size)
    positives = np.bincount(ids, weights=labels, minlength=size)
    prior = labels.mean()
    rate = (positives + strength * prior) / (counts + strength)
    rate[: UNKNOWN_ID + 1] = prior
    rate = np.clip(rate, 1e-6, 1 - 1e-6)
    return np.log(rate / (1 - rate))[target.fields[:, field]]


def _odds_up_to_now(target: Candidates, statistic: int, prior: float, strength: float) -> np.ndarray:
    """Log-odds of the smoothed rate of positives before each target's time, from its match statistics and the pool's rate."""
    counts, positives = target.match_counts[:, statistic], target.match_positives[:, statistic]
    rate = np.clip((positives + strength * prior) / (counts + strength), 1e-6, 1 - 1e-6)
    return np.log(rate / (1 - rate))
