"""The pool's rows as slates: each as of its own time, with drawn items beside it only where the log has positives alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tf_lift.baselines.pool_slates import PoolSlates
from tf_lift.data.dataset_files import Dataset
from tf_lift.schema import UNKNOWN_ID


def read_all(dataset: Dataset, seed: int = 1) -> dict[str, np.ndarray]:
    batches = [{key: value.numpy() for key, value in batch.items()} for batch in PoolSlates(dataset).batches(seed)]
    return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


@pytest.fixture(scope="module")
def labelled(tiny: Any) -> Dataset:
    return tiny.dataset()


@pytest.fixture(scope="module")
def positives(tiny: Any) -> Dataset:
    return tiny.dataset(*tiny.honest)


def test_every_row_of_the_pool_stands_once_with_its_label(labelled: Dataset) -> None:
    slates = read_all(labelled)
    pool = np.flatnonzero(labelled.log.time < labelled.info.boundaries.train_from)
    np.testing.assert_array_equal(np.sort(slates["row"]), pool)
    assert slates["label"].shape == (len(pool), 1)
    np.testing.assert_array_equal(slates["label"][:, 0], labelled.positive[slates["row"]])
    assert (read_all(labelled, seed=2)["row"] != slates["row"]).any()


@pytest.mark.parametrize("name", ["labelled", "positives"])
def test_slates_are_as_of_their_time(name: str, request: pytest.FixtureRequest) -> None:
    dataset = request.getfixturevalue(name)
    slates, log = read_all(dataset), dataset.log
    width = slates["fields"].shape[1]
    times = np.repeat(log.time[slates["row"]], width)
    fields = slates["fields"].reshape(-1, slates["fields"].shape[-1])
    np.testing.assert_array_equal(dataset.known_as_of(fields, times), fields)
    assert (fields == UNKNOWN_ID).any()
    begin, count = log.windows_at(slates["history_position"], 1000)
    own = log.fields[slates["row"], dataset.config.schema.user_index]
    for row, user, first, number in zip(slates["row"], own, begin, count, strict=True):
        expected = np.flatnonzero(
            (log.fields[:, dataset.config.schema.user_index] == user) & (log.time < log.time[row])
        )
        np.testing.assert_array_equal(np.arange(first, first + number), expected)


def test_drawn_items_bring_their_own_fields(positives: Dataset) -> None:
    slates, schema = read_all(positives), positives.config.schema
    assert slates["label"].shape[1] == 5
    assert (slates["label"] == [1, 0, 0, 0, 0]).all()
    drawn = slates["fields"][:, 1:]
    assert len(np.unique(drawn[..., schema.item_index])) > 10
    for index in range(len(schema)):
        if index not in schema.indices("item"):
            assert (drawn[..., index] == slates["fields"][:, :1, index]).all()
    table = positives.info.entity_fields["item"]
    known = drawn[..., schema.item_index] > UNKNOWN_ID
    items = drawn[known]
    genre = schema.index("genre")
    expected = table[items[:, schema.item_index] - 2, genre]
    assert ((items[:, genre] == expected) | (items[:, genre] == UNKNOWN_ID)).all()


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.15), (0.5, 0.4, 0.6), (1.0, 0.85, 0.95)])
def test_share_drawn_by_popularity(plant: Callable[..., Any], share: float, low: float, high: float) -> None:
    """Nine rows of ten have one of twenty items."""
    rng = np.random.default_rng(2)
    items = np.where(rng.random(2000) < 0.9, 0, rng.integers(1, 20, 2000))
    items[:20] = np.arange(20)
    cuts = (1500, 1700, 1800)
    planted = plant(np.arange(2000) % 50, items, np.arange(2000), np.ones(2000, int), np.zeros(20, int), cuts)
    negatives = dataclasses.replace(planted.config.negatives, popularity_share=share)
    dataset = planted.dataset
    dataset.config = dataclasses.replace(planted.config, negatives=negatives)
    drawn = read_all(dataset)["fields"][:, 1:, 1]
    assert low < np.mean(drawn == 2) < high
