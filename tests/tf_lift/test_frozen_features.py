"""Frozen features, found once for a split, are what the predictor finds for a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from tf_lift.data.dataset import read_examples
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.datastore import build_datastore
from tf_lift.fit import build_predictor
from tf_lift.frozen_features import find_frozen_features
from tf_lift.models.predictor import FROZEN, OF_CANDIDATES, Predictor

ENCODED = {"last_state", "queries", "next_item"}


def build_model(dataset: Dataset, **sections: Mapping[str, Any]) -> tuple[Predictor, Any]:
    """A predictor with drawn weights, sections' values as given, and a function that reads its test examples."""
    changed = {name: dataclasses.replace(getattr(dataset.config, name), **values) for name, values in sections.items()}
    dataset = dataclasses.replace(dataset, config=dataclasses.replace(dataset.config, **changed))
    spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
    shape = (dataset.log.num_positions, dataset.config.encoder.state_dim)
    states = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    store = build_datastore(dataset.log, states, dataset.config.retrieval.context_length)
    return build_predictor(dataset, store, spec), lambda size: read_examples(dataset, "test", spec, size)


@pytest.fixture(scope="module")
def overlap(tiny: Any) -> Dataset:
    return tiny.dataset(
        *tiny.honest, "situation.overlap=true", "situation.overlap_neighbours=5", "situation.relations=all"
    )


@pytest.mark.parametrize("encoded", [0, 2])
def test_joined_features_are_those_that_the_predictor_finds(overlap: Dataset, encoded: int) -> None:
    model, read = build_model(
        overlap,
        situation={"encoded_neighbours": encoded},
        pretraining={"next_item": True},
        predictor={"next_item_logit": True},
    )
    found = find_frozen_features(model, read(64), len(overlap.log), "test")
    assert found is not None
    batch = next(iter(read(7)))
    joined = found.join(batch)
    expected = model.read_frozen(batch, model.datastore.history(batch["history_position"]))
    futures = {"future_rows", "future_overlaps", "num_future"} if encoded else set()
    assert set(joined[FROZEN]) == set(expected) == {*ENCODED, "transitions", "overlaps", *futures}
    for name, values in expected.items():
        assert values.numpy().any(), name
        assert (values.shape[:2] == batch["mask"].shape) == (name in OF_CANDIDATES), name
        np.testing.assert_allclose(joined[FROZEN][name], values, atol=1e-6)
    logits = [model(inputs, training=False).logits for inputs in (batch, joined)]
    np.testing.assert_allclose(*logits, atol=1e-5)


def test_slates_of_fewer_candidates_are_padded_and_cut(overlap: Dataset) -> None:
    model, read = build_model(overlap)
    batches = [
        {name: values[:, :width] if values.shape.rank > 1 else values for name, values in batch.items()}
        for width, batch in zip((3, 8), read(8).take(2), strict=True)
    ]
    found = find_frozen_features(model, batches, len(overlap.log), "test")
    assert found is not None
    assert found.found["overlaps"].shape[:2] == (16, 8)
    for batch in batches:
        joined = found.join(batch)[FROZEN]
        np.testing.assert_allclose(model(found.join(batch)).logits, model(batch).logits, atol=1e-5)
        assert joined["overlaps"].shape[:2] == batch["mask"].shape


def test_an_encoder_that_is_trained_is_not_frozen(overlap: Dataset) -> None:
    model, read = build_model(overlap, predictor={"joint": True})
    found = find_frozen_features(model, read(64), len(overlap.log), "test")
    assert found is not None and set(found.found) == {"transitions", "overlaps"}
    batch = next(iter(read(7)))
    before = model(found.join(batch)).logits.numpy()
    for weight in model.encoder.trainable_weights:
        weight.assign(weight + 0.5)
    after = model(found.join(batch)).logits.numpy()
    assert np.abs(after - before).max() > 1e-3


def test_features_that_take_too_much_memory_are_not_kept(overlap: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    model, read = build_model(overlap)
    with caplog.at_level("INFO"):
        assert find_frozen_features(model, read(64), len(overlap.log), "test", max_bytes=1 << 10) is None
    assert "found anew in every step" in caplog.text


def test_a_predictor_that_asks_for_nothing_has_none(tiny: Any) -> None:
    dataset = tiny.dataset(*tiny.honest)
    model, read = build_model(dataset, predictor={"own_history": False, "target_state": False})
    assert find_frozen_features(model, read(64), len(dataset.log), "test") is None
