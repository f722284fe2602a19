"""GBDT learns rates; its features are counts as of the slate's time."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.baselines.gbdt import GBDTSettings, score_gbdt
from tf_lift.baselines.gbdt_features import build_features
from tf_lift.baselines.no_learning import Candidates
from tf_lift.config import RELATIONS
from tf_lift.data.situation_graphs import build_item_recency
from tf_lift.metrics import auc, log_loss
from tf_lift.retrieval.graph_recency import NEVER
from tf_lift.schema import UNKNOWN_ID
from tf_lift.situation.levels import find_levels
from tf_lift.situation.transition_counts import add_counts, count_transitions, keep_most_frequent
from tf_lift.situation.transition_table import build_transition_table

NUM_ROWS, NUM_ITEMS, LENGTH, SLATE = 3000, 12, 5, 10
CUTS = (1000, 2000, 2300)


@pytest.fixture(scope="module")
def noisy(plant: Callable[..., Any]) -> Any:
    rng = np.random.default_rng(9)
    users, items = rng.integers(0, 60, NUM_ROWS), rng.integers(0, NUM_ITEMS, NUM_ROWS)
    labels = rng.integers(0, 2, NUM_ROWS)
    return plant(users, items, np.arange(NUM_ROWS), labels, np.arange(NUM_ITEMS) % 3, CUTS)


def candidates_of(planted: Any, split: str) -> Candidates:
    """Single candidates whose one statistic is a rate, and whose labels are drawn with it."""
    rng = np.random.default_rng(len(split))
    rows = planted.rows_of(split)
    counts = rng.integers(50, 100, (len(rows), 1)).astype(np.int32)
    positives = rng.binomial(counts, rng.random((len(rows), 1))).astype(np.int32)
    labels = (rng.random(len(rows)) < (positives / counts)[:, 0]).astype(np.float32)
    return Candidates(planted.log.fields[rows], labels, np.arange(len(rows)), planted.log.time[rows], counts, positives)


def make_job(planted: Any, **settings: Any) -> Any:
    splits = {split: candidates_of(planted, split) for split in ("train", "validation", "test")}
    return SimpleNamespace(
        dataset=planted.dataset,
        candidates=splits.__getitem__,
        settings=GBDTSettings(context_length=LENGTH, **settings),
        seed=3,
        splits=("validation", "test"),
    )


def test_rates_are_learnt(noisy: Any) -> None:
    pytest.importorskip("lightgbm")
    job = make_job(noisy)
    scores = score_gbdt(job)
    test = job.candidates("test")
    rate = (test.match_positives / test.match_counts)[:, 0]
    assert auc(test.labels, scores.test) > auc(test.labels, rate) - 0.02
    assert log_loss(test.labels, scores.test) < log_loss(test.labels, rate) + 0.05  # a constant has .69, the rate .48
    assert scores.is_probability and scores.num_parameters > 0
    assert scores.validation_loss == log_loss(job.candidates("validation").labels, scores.validation)
    np.testing.assert_array_equal(score_gbdt(job).test, scores.test)


@pytest.mark.parametrize("objective", ["lambdarank", "rank_xendcg"])
def test_slates_are_learnt_to_be_ordered(noisy: Any, objective: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    train, stopped_by = lightgbm.train, []

    def train_and_note(*arguments: Any, **named: Any) -> Any:
        booster = train(*arguments, **named)
        stopped_by.extend(booster.best_score["valid_0"])
        return booster

    monkeypatch.setattr(lightgbm, "train", train_and_note)
    job, splits = make_job(noisy, objective=objective, min_rows=5), {}
    for split in ("train", "validation", "test"):
        flat = job.candidates(split)
        count = len(flat.labels) // SLATE * SLATE
        rates = (flat.match_positives / flat.match_counts)[:count, 0].reshape(-1, SLATE)
        best_first = np.argsort(-rates, axis=1) + np.arange(0, count, SLATE)[:, None]
        part = Candidates(*[getattr(flat, field.name)[best_first.ravel()] for field in dataclasses.fields(flat)])
        # As in examples, the positive is first.
        labels = np.tile(np.eye(1, SLATE, dtype=np.float32)[0], count // SLATE)
        splits[split] = dataclasses.replace(part, labels=labels, slates=np.arange(count) // SLATE)
    job.candidates = splits.__getitem__
    scores = score_gbdt(job)
    assert stopped_by == ["ndcg@10"]
    grid = scores.test.reshape(-1, SLATE)
    assert (grid[:, :1] > grid[:, 1:]).all(axis=1).mean() > 0.75  # of 1 in SLATE; unshuffled slates give .5 to .6
    labels = job.candidates("validation").labels
    constant = np.full(len(labels), 1 / SLATE)
    assert not scores.is_probability and 0 < scores.validation_loss < 0.8 * log_loss(labels, constant)
    np.testing.assert_array_equal(score_gbdt(job).test, scores.test)


def test_short_slates_are_not_ranked(noisy: Any) -> None:
    pytest.importorskip("lightgbm")
    with pytest.raises(
        ValueError, match=r"'lambdarank' needs slates of 10 candidates or more\. Received: 1 at most in train"
    ):
        score_gbdt(make_job(noisy, objective="lambdarank"))
    with pytest.raises(ValueError, match="objective.*Received: 'ndcg'"):
        GBDTSettings(objective="ndcg")


def test_features_of_a_history_are_those_counted_by_hand(noisy: Any) -> None:
    test = candidates_of(noisy, "test")
    features, id_columns = build_features(noisy.dataset, test, LENGTH)
    log = noisy.log
    for place in range(0, len(test.labels), 41):
        user, item, category = test.fields[place]
        rows = np.flatnonzero((log.fields[:, 0] == user) & (log.time < test.times[place]))[-LENGTH:]
        assert features[place, 2] == len(rows)
        assert features[place, 4] == test.times[place] - log.time[rows[-1]]
        for column, (field, value) in zip((5, 7), ((1, item), (2, category)), strict=True):
            same = rows[log.fields[rows, field] == value]
            assert features[place, column] == len(same)
            prior = noisy.dataset.positive[log.time < CUTS[0]].mean()
            rate = (log.behaviour[same].sum() + 3 * prior) / (len(same) + 3)
            assert features[place, column + 1] == pytest.approx(rate)
        assert features[place, id_columns] == [category]


def rolling(planted: Any, **changes: Any) -> Any:
    config = planted.config
    config = dataclasses.replace(config, split=dataclasses.replace(config.split, mode="rolling"))
    return dataclasses.replace(planted, config=config, **changes).dataset


def test_features_of_recency_are_those_counted_by_hand(noisy: Any) -> None:
    test, log = candidates_of(noisy, "test"), noisy.log
    test = dataclasses.replace(test, fields=np.where(np.arange(len(test.labels))[:, None] % 5, test.fields, UNKNOWN_ID))
    seconds = (20, 300)
    dataset = rolling(noisy)
    without, _ = build_features(dataset, test, LENGTH)
    features, id_columns = build_features(dataset, test, LENGTH, [length / 86_400 for length in seconds])
    first = without.shape[1] - 1  # before the category's id
    np.testing.assert_array_equal(np.delete(features, range(first, first + 6), axis=1), without)
    assert id_columns == [features.shape[1] - 1]
    for place in range(0, len(test.labels), 41):
        expected, gaps = [], []
        for field in (1, 2):
            met = (log.fields[:, field] == test.fields[place, field]) & (log.time < test.times[place])
            ages = test.times[place] - log.time[met]
            expected += [(ages <= length).sum() for length in seconds]
            gaps.append(ages.min() if len(ages) else -1)
        assert features[place, first : first + 6].tolist() == [*expected, *gaps]


def test_drawn_negatives_were_not_met(noisy: Any) -> None:
    drawn = noisy.log.fields[:, 1] == noisy.log.fields[7, 1]
    fields, time = tf.constant(noisy.log.fields[None, :10]), tf.constant([NUM_ROWS], tf.int64)
    logs = (noisy.log, dataclasses.replace(noisy.log, synthetic=drawn))
    before, after = (build_item_recency(rolling(noisy, log=log), [1.0]).read(fields, time) for log in logs)
    items, was, became = drawn[:10], before.counts.numpy()[0, :, 0, 0], after.counts.numpy()[0, :, 0, 0]
    assert items.any() and (was > 0).all()
    np.testing.assert_array_equal(became, np.where(items, 0, was))
    np.testing.assert_array_equal(after.seconds.numpy()[0, :, 0] == NEVER, items)


def test_recency_of_a_static_pool_and_of_the_future_is_refused(noisy: Any) -> None:
    with pytest.raises(ValueError, match="rolling pool. Received: split.mode = 'static'"):
        build_features(noisy.dataset, candidates_of(noisy, "test"), LENGTH, [1.0])
    with pytest.raises(ValueError, match="recency_days.*Received: -1"):
        GBDTSettings(recency_days=(7.0, -1.0))


def with_tables(planted: Any, times: list[int]) -> Any:
    """The planted data set and transition tables of these snapshots."""
    situation = dataclasses.replace(planted.config.situation, tables=True)
    dataset = dataclasses.replace(planted, config=dataclasses.replace(planted.config, situation=situation)).dataset
    levels, snapshots = find_levels(planted.config.schema), np.array(times)
    added = add_counts(count_transitions(planted.log, dataset.positive, levels, 3, snapshots))
    num_ids = [vocabulary.num_ids for vocabulary in planted.info.vocabularies]
    dataset.transitions = build_transition_table(levels, snapshots, keep_most_frequent(added, 1 << 20), num_ids)
    return dataset


def test_features_of_transitions_are_sums_over_the_history(noisy: Any) -> None:
    dataset, test, log = with_tables(noisy, [1000, 2500]), candidates_of(noisy, "test"), noisy.log
    table, relations = dataset.transitions, RELATIONS["both"]
    without, _ = build_features(dataset, test, LENGTH)
    features, _ = build_features(dataset, test, LENGTH, relations=relations)
    first, width = without.shape[1] - 1, len(table.levels) * len(relations)
    np.testing.assert_array_equal(np.delete(features, range(first, first + 2 * width), axis=1), without)
    assert (
        (test.times.min() < 2500)
        and (test.times.max() > 2500)
        and features[:, first : first + 2 * width].any(axis=0).all()
    )
    for place in range(0, len(test.labels), 41):
        rows = np.flatnonzero((log.fields[:, 0] == test.fields[place, 0]) & (log.time < test.times[place]))[::-1][
            :LENGTH
        ]
        weights = [
            table.weights(
                log.fields[None, [row]],
                dataset.positive[None, [row]],
                test.fields[None, [place]],
                test.times[[place]],
                relations,
            )[0, 0, 0]
            for row in rows
        ]
        total = sum(np.exp(-0.1 * age) * weight for age, weight in enumerate(weights))
        np.testing.assert_allclose(features[place, first : first + width], total, rtol=1e-5)
        np.testing.assert_allclose(features[place, first + width : first + 2 * width], weights[0], rtol=1e-5)
    with pytest.raises(ValueError, match=r"Received: relations \['future'\] .* Set `situation.tables = true`"):
        build_features(noisy.dataset, test, LENGTH, relations=RELATIONS["future"])


def test_features_of_transitions_end_with_the_newest_snapshot(noisy: Any) -> None:
    test, snapshots, relations = candidates_of(noisy, "test"), [1000, 2500], RELATIONS["all"]
    dataset = with_tables(noisy, snapshots)
    features, _ = build_features(dataset, test, LENGTH, relations=relations)
    is_early, rng = test.times < 2500, np.random.default_rng(8)
    for cut in (2500, 1000):
        fields, later = noisy.log.fields.copy(), np.flatnonzero(noisy.log.time >= cut)
        fields[later, 1:] = rng.permutation(fields[later, 1:])
        changed = dataclasses.replace(noisy, log=dataclasses.replace(noisy.log, fields=fields))
        dataset.transitions = with_tables(changed, snapshots).transitions
        found, _ = build_features(dataset, test, LENGTH, relations=relations)
        np.testing.assert_array_equal(found[is_early], features[is_early])
        assert np.array_equal(found, features) == (cut == 2500)


def test_what_followed_is_learnt_with_relations_alone(plant: Callable[..., Any]) -> None:
    """Users go from item to item + 1, or anywhere now and then; a candidate is liked where it is what they went on to."""
    pytest.importorskip("lightgbm")
    rng = np.random.default_rng(4)
    steps, users = np.divmod(np.arange(NUM_ROWS), 60)
    items = (rng.integers(0, NUM_ITEMS, 60)[users] + steps) % NUM_ITEMS
    items = np.where(rng.random(NUM_ROWS) < 0.1, rng.integers(0, NUM_ITEMS, NUM_ROWS), items)
    planted = plant(users, items, np.arange(NUM_ROWS), np.ones(NUM_ROWS, int), np.zeros(NUM_ITEMS, int), CUTS)
    aucs = []
    for relations in ("none", "all"):
        job = make_job(planted, relations=relations, min_rows=5)
        job.dataset, splits = with_tables(planted, [1000]), {}
        rng = np.random.default_rng(5)  # the same candidates both times
        for split in ("train", "validation", "test"):
            flat = job.candidates(split)
            other = rng.random(len(flat.labels)) < 0.5
            fields = flat.fields.copy()
            fields[other, 1] = rng.choice(np.unique(fields[:, 1]), other.sum())
            labels = (fields[:, 1] == flat.fields[:, 1]).astype(np.float32)
            nothing = np.zeros_like(flat.match_counts)
            splits[split] = dataclasses.replace(
                flat, fields=fields, labels=labels, match_counts=nothing, match_positives=nothing
            )
        job.candidates = splits.__getitem__
        aucs.append(auc(splits["test"].labels, score_gbdt(job).test))
    assert aucs[1] > 0.85 and aucs[0] < 0.8, aucs


def test_without_lightgbm_the_error_names_the_extra(noisy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)  # an import of it fails
    with pytest.raises(ValueError, match=r"Ranker 'gbdt' needs LightGBM. Received: .*tf_lift\[benchmark\]"):
        score_gbdt(make_job(noisy))


@pytest.mark.parametrize(("name", "value"), [("num_leaves", 1), ("learning_rate", 2.0), ("patience", 0)])
def test_settings_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be from .* Received: {value}"):
        GBDTSettings(**{name: value})
