"""The rules that count up to each target's time, beside counts of the log by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tf_lift.baselines import rules
from tf_lift.baselines.no_learning import Candidates, loss_after_platt
from tf_lift.baselines.ranker_job import RankerJob
from tf_lift.baselines.rules import score_rule
from tf_lift.baselines.rules_up_to_now import (
    SPAN_DAYS,
    count_item_positives,
    score_popularity_up_to_now,
    score_recent_popularity,
    score_transitions_up_to_now,
)
from tf_lift.baselines.transition_counts import score_by_transitions
from tf_lift.data.dataset_files import Dataset
from tf_lift.workspace import Workspace

DAY = 86_400
WINDOW = 6  # of the tables, as long as `tiny`'s contexts, which are the other rules' window
RULES = [
    "popularity, up to t",
    "recent popularity, up to t",
    "transitions, future, up to t",
    "transitions, past, up to t",
    "transitions, any, up to t",
]


@pytest.fixture(scope="module")
def rolling(tiny: Any) -> Dataset:
    return tiny.dataset(*tiny.honest, "situation.tables=true", f"situation.window={WINDOW}")


def candidates_of(dataset: Dataset, split: str = "test") -> Candidates:
    return RankerJob("", Workspace(dataset.config), {}, 7, Path(), (split,)).candidates(split)


def test_popularity_is_the_positives_before_each_target(rolling: Dataset) -> None:
    candidates, log, item = candidates_of(rolling), rolling.log, rolling.config.schema.item_index
    days = (1.0, 3.0)
    spans = [*count_item_positives(rolling, candidates, days), *score_popularity_up_to_now(rolling, candidates)]
    for place in range(0, len(candidates.labels), 29):
        ages = candidates.times[place] - log.time[log.fields[:, item] == candidates.fields[place, item]]
        expected = [((ages > 0) & (ages <= length * DAY)).sum() for length in (*days, 10_000)]
        np.testing.assert_allclose([span[place] for span in spans], np.log1p(expected))
    assert (spans[0] < spans[1]).any() and (spans[1] < spans[2]).any()
    assert len(score_recent_popularity(rolling, candidates)) == len(SPAN_DAYS)


def test_negative_rows_are_not_counted(tiny: Any) -> None:
    dataset = tiny.dataset()
    candidates, log, item = candidates_of(dataset), dataset.log, dataset.config.schema.item_index
    (counts,) = score_popularity_up_to_now(dataset, candidates)
    for place in range(0, len(candidates.labels), 11):
        same = log.fields[:, item] == candidates.fields[place, item]
        before = same & (log.time < candidates.times[place])
        assert np.expm1(counts[place]) == pytest.approx((before & dataset.positive).sum())
        assert (before & ~dataset.positive).any()


@pytest.mark.parametrize("direction", ["future", "past", "any"])
def test_transitions_are_those_counted_until_the_newest_snapshot(rolling: Dataset, direction: Any) -> None:
    candidates, snapshots = candidates_of(rolling), rolling.transitions.times
    (scores,) = score_transitions_up_to_now(rolling, candidates, direction)
    used = np.searchsorted(snapshots, candidates.times, side="right") - 1
    assert len(np.unique(used)) > 1
    for snapshot in np.unique(used):
        until = score_by_transitions(rolling, candidates, int(snapshots[snapshot]), direction)
        chosen = used == snapshot
        np.testing.assert_allclose(scores[chosen], until[chosen], rtol=1e-5)
    fixed = score_by_transitions(rolling, candidates, rolling.info.boundaries.test_from, direction)
    assert not np.allclose(scores, fixed)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_of_the_registry_scores_both_splits(rolling: Dataset, tmp_path: Path, rule: str) -> None:
    found = score_rule(RankerJob(rule, Workspace(rolling.config), {}, 7, tmp_path, ("validation", "test")))
    assert len(found.test) == len(candidates_of(rolling).labels) and not found.is_probability
    assert found.validation_loss > 0 and np.ptp(found.test) > 0


def test_validation_chooses_the_span_by_the_order_of_slates(
    rolling: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alternatives(_: Dataset, candidates: Candidates) -> list[np.ndarray]:
        noise = np.random.default_rng(1).random(len(candidates.labels))
        # In reverse, from which Platt's scaling tells the labels; in order but for one score, far off; chance.
        ordered = candidates.labels + 1e6 * (np.arange(len(noise)) == 1)
        return [-candidates.labels, ordered, noise]

    rule = "recent popularity, up to t"
    monkeypatch.setitem(rules._OF_LOG_UP_TO_NOW, rule, alternatives)
    found = score_rule(RankerJob(rule, Workspace(rolling.config), {}, 7, tmp_path, ("test",)))
    test, validation = candidates_of(rolling), candidates_of(rolling, "validation")
    losses = [loss_after_platt(scores, validation.labels) for scores in alternatives(rolling, validation)]
    assert np.argmin(losses) != 1
    np.testing.assert_array_equal(found.test, alternatives(rolling, test)[1])
    assert found.validation_loss == losses[1]


def test_what_is_not_there_is_told(tiny: Any, rolling: Dataset) -> None:
    static = tiny.dataset(*tiny.rim)
    for rule in RULES:
        with pytest.raises(ValueError, match="needs a rolling pool. Received: split.mode = 'static'"):
            score_rule(RankerJob(rule, Workspace(static.config), {}, 7, Path(), ("test",)))
    bare = tiny.dataset()
    with pytest.raises(ValueError, match="Received: a data set without. Set `situation.tables = true`"):
        score_transitions_up_to_now(bare, candidates_of(bare), "any")
