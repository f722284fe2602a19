"""Baselines without learning, on numbers that can be checked by hand."""

import dataclasses
import warnings
from typing import Any

import numpy as np
import pytest

from tf_lift.baselines.no_learning import Candidates, fit_platt, score_baselines
from tf_lift.config import Config
from tf_lift.data.dataset_files import Dataset

# Rows of the log: user, item, positive, time. Ids start at 2. Train begins at 100, so the last two rows are not the pool's.
LOG = [
    (2, 2, 1, 10),
    (2, 3, 0, 20),
    (2, 2, 1, 30),
    (3, 3, 1, 40),
    (3, 2, 0, 50),
    (4, 4, 1, 60),
    (4, 2, 1, 110),
    (4, 3, 1, 210),
]


def log_loss(scores: np.ndarray, labels: np.ndarray, slope: float, intercept: float) -> float:
    logits = slope * scores + intercept
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-3, 5.0), (1e3, -1e4)])
def test_platt_is_the_best_of_a_grid(scale: float, shift: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=400)
    labels = (rng.random(400) < 1 / (1 + np.exp(-(1.7 * scores - 0.6)))).astype(float)
    slope, intercept = fit_platt(scores * scale + shift, labels)
    slope, intercept = slope * scale, intercept + slope * shift  # on the scores as they were
    grid = [(a, b) for a in np.linspace(0, 4, 81) for b in np.linspace(-2, 2, 81)]
    best = min(grid, key=lambda pair: log_loss(scores, labels, *pair))
    assert log_loss(scores, labels, slope, intercept) <= log_loss(scores, labels, *best) + 1e-9
    assert (slope, intercept) == pytest.approx(best, abs=0.06)


def test_platt_of_a_constant_is_the_rate() -> None:
    slope, intercept = fit_platt(np.full(8, 3.0), np.array([1, 0, 0, 0, 1, 0, 0, 0]))
    assert slope * 3.0 + intercept == pytest.approx(np.log(0.25 / 0.75), abs=1e-4)


@pytest.mark.parametrize("far", [1.0, 1e6])
def test_platt_of_scores_that_separate_the_labels_stays_finite(far: float) -> None:
    scores = np.append(np.zeros(3000), far)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slope, intercept = fit_platt(scores, (scores > 0).astype(float))
    assert np.isfinite([slope, intercept]).all() and slope > 0


@dataclasses.dataclass
class LogRows:
    """What the baselines read of an `InteractionLog`."""

    fields: np.ndarray
    time: np.ndarray
    synthetic: np.ndarray


@pytest.fixture
def dataset(tiny: Any) -> Dataset:
    """The tiny data set's fields with the log above in them."""
    real = tiny.dataset()
    schema = real.config.schema
    fields = np.full((len(LOG), len(schema)), 2, np.int32)
    table = np.array(LOG)
    fields[:, schema.user_index], fields[:, schema.item_index] = table[:, 0], table[:, 1]
    boundaries = dataclasses.replace(real.info.boundaries, train_from=100, validation_from=150, test_from=200)
    made = dataclasses.replace(real, info=dataclasses.replace(real.info, boundaries=boundaries))
    made.__dict__["log"] = LogRows(fields, table[:, 3], np.zeros(len(LOG), bool))
    made.__dict__["positive"] = table[:, 2].astype(bool)
    return made


def make_candidates(
    dataset: Dataset, pairs: list[tuple[int, int]], labels: list[int], seen: list[int] | None = None
) -> Candidates:
    """Candidates of (user, item); `seen`: how often each pair is in the pool."""
    schema, info = dataset.config.schema, dataset.info
    fields = np.full((len(pairs), len(schema)), 2, np.int32)
    fields[:, [schema.user_index, schema.item_index]] = pairs
    counts = np.zeros((len(pairs), len(info.statistic_sets)), np.int32)
    both = tuple(sorted((schema.user_index, schema.item_index)))
    (column,) = [index for index, place in enumerate(info.statistic_sets) if info.match_sets.generators[place] == both]
    counts[:, column] = seen or 0
    number = np.arange(len(pairs))
    return Candidates(fields, np.array(labels, np.float32), number, np.full(len(pairs), 170), counts, counts // 2)


def score(
    dataset: Dataset, pairs: list[tuple[int, int]], until: int = 200, **settings: Any
) -> dict[str, list[np.ndarray]]:
    known = [make_candidates(dataset, [(4, 2)], [1])]
    return score_baselines(dataset, known, make_candidates(dataset, pairs, [0] * len(pairs), **settings), until)


def test_popularity_counts_positives_before_the_time(dataset: Dataset) -> None:
    pairs = [(2, 2), (2, 3), (2, 4), (2, 1), (2, 5)]
    (before_test,) = score(dataset, pairs)["popularity"]
    np.testing.assert_allclose(np.expm1(before_test), [3, 1, 1, 0, 0])
    (all_of_it,) = score(dataset, pairs, until=300)["popularity"]
    np.testing.assert_allclose(np.expm1(all_of_it), [3, 2, 1, 0, 0])
    dataset.log.synthetic[0] = True
    np.testing.assert_allclose(np.expm1(score(dataset, pairs)["popularity"][0]), [2, 1, 1, 0, 0])


def test_rates_are_smoothed_towards_the_prior(dataset: Dataset) -> None:
    """Pool: 6 rows with 4 positives, and the known candidate: 5 of 7. The rows at 110 and 210 are not read off the log."""
    weak = score(dataset, [(2, 2), (4, 4), (1, 1), (9, 9)])["user rate + item rate"][0]  # one row of the average kind

    def odds(positives: int, count: int) -> float:
        rate = (positives + 5 / 7) / (count + 1)
        return float(np.log(rate / (1 - rate)))

    prior = float(np.log(5 / 2))
    np.testing.assert_allclose(
        weak, [odds(2, 3) + odds(3, 4), odds(2, 2) + odds(1, 1), 2 * prior, 2 * prior], rtol=1e-6
    )


def test_match_rules_follow_the_pair(dataset: Dataset) -> None:
    scores = score(dataset, [(2, 2), (2, 3), (2, 4)], seen=[2, 0, 1])
    np.testing.assert_array_equal(scores["repeat rule"][0], [1, 0, 1])
    np.testing.assert_array_equal(scores["match rule"][0], [-1, 0, -1])
    combined = scores["popularity + match rule"][0]
    assert combined.argmax() == 1 and combined[0] > combined[2]
    assert not scores["constant"][0].any()


def test_rates_up_to_now_are_those_of_the_candidates_own_counts(dataset: Dataset) -> None:
    """The pool has 6 rows with 4 positives; at their own times, users and items had other counts."""
    schema, info = dataset.config.schema, dataset.info
    target = make_candidates(dataset, [(2, 2), (2, 3)], [0, 0])
    counts, positives = np.zeros_like(target.match_counts), np.zeros_like(target.match_counts)
    columns = {info.match_sets.generators[place]: index for index, place in enumerate(info.statistic_sets)}
    user, item = columns[schema.user_index,], columns[schema.item_index,]
    counts[:, user], positives[:, user] = (9, 10), (3, 3)
    counts[:, item], positives[:, item] = (0, 40), (0, 39)
    target = dataclasses.replace(target, match_counts=counts, match_positives=positives)
    found = score_baselines(dataset, [], target, 200)
    both, users, items = (found[f"{name}, up to t"] for name in ("user rate + item rate", "user rate", "item rate"))
    strengths = (1.0, 3.0, 10.0, 30.0)
    for scores, of_user, of_item, strength in zip(both, users, items, strengths, strict=True):

        def odds(positive: int, count: int, strength: float = strength) -> float:
            rate = (positive + strength * 4 / 6) / (count + strength)
            return float(np.log(rate / (1 - rate)))

        np.testing.assert_allclose(of_user, [odds(3, 9), odds(3, 10)], rtol=1e-6)
        np.testing.assert_allclose(of_item, [odds(0, 0), odds(39, 40)], rtol=1e-6)
        np.testing.assert_allclose(scores, of_user + of_item, rtol=1e-6)


def test_rates_up_to_now_need_labels_of_the_log(dataset: Dataset) -> None:
    names = {"user rate + item rate, up to t", "user rate, up to t", "item rate, up to t"}
    assert names <= score(dataset, [(2, 2)]).keys()
    config: Config = dataset.config
    honest = dataclasses.replace(
        config,
        behaviour=dataclasses.replace(config.behaviour, kind="positive_only"),
        negatives=dataclasses.replace(config.negatives, protocol="honest"),
    )
    other = dataclasses.replace(dataset, config=honest)
    other.__dict__.update(log=dataset.log, positive=dataset.positive)
    assert not names & score(other, [(2, 2)]).keys()
