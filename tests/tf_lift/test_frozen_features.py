"""Frozen features, found once for a split, are what the predictor finds for a batch, and what it reads in their place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift import fit
from tf_lift.data.dataset import read_examples
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.datastore import build_datastore
from tf_lift.fit import build_predictor
from tf_lift.frozen_features import FrozenFeatures, find_frozen_features
from tf_lift.models.predictor import CANDIDATE_FEATURES, FROZEN, Predictor

GROUPS = {
    "recency": {"counts", "seconds"},
    "transitions": {"weights"},
    "overlap": {"sums"},
    "encoded": {"last_state", "queries", "next_item"},
}
ALL = {
    "pretraining": {"next_item": True},
    "predictor": {"next_item_logit": True, "recency_days": (1.0,)},
}


def build_model(dataset: Dataset, **sections: Mapping[str, Any]) -> tuple[Predictor, Callable[..., tf.data.Dataset]]:
    """A predictor with drawn weights, sections' values as given, and a function that reads batches of its test examples."""
    changed = {name: dataclasses.replace(getattr(dataset.config, name), **values) for name, values in sections.items()}
    dataset = dataclasses.replace(dataset, config=dataclasses.replace(dataset.config, **changed))
    spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
    shape = (dataset.log.num_positions, dataset.config.encoder.state_dim)
    states = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    store = build_datastore(dataset.log, states, dataset.config.retrieval.context_length)
    return build_predictor(dataset, store, spec), lambda size, split="test": read_examples(dataset, split, spec, size)


def find(model: Predictor, examples: Any, dataset: Dataset, **limits: int) -> FrozenFeatures:
    """The features, which there must be."""
    found = find_frozen_features(model, examples, len(dataset.log), "test", **limits)
    assert found is not None
    return found


def cut(batch: dict[str, tf.Tensor], width: int) -> dict[str, tf.Tensor]:
    """The batch with no more candidates than `width`."""
    return {name: values[:, :width] if values.shape.rank > 1 else values for name, values in batch.items()}


@pytest.fixture(scope="module")
def dataset(tiny: Any) -> Dataset:
    return tiny.dataset(
        *tiny.honest, "situation.overlap=true", "situation.overlap_neighbours=5", "situation.relations=all"
    )


@pytest.mark.parametrize("encoded", [0, 2])
def test_joined_features_are_those_that_the_predictor_finds(dataset: Dataset, encoded: int) -> None:
    model, read = build_model(dataset, situation={"encoded_neighbours": encoded}, **ALL)
    batch = next(iter(read(7)))
    joined = find(model, read(64), dataset).join(batch)
    expected = model.read_frozen(batch, model.datastore.history(batch["history_position"]))
    futures = {"future_rows", "future_overlaps", "num_future"} if encoded else set()
    assert {group: set(named) for group, named in expected.items()} == GROUPS | {"overlap": {"sums", *futures}}
    tf.nest.assert_same_structure(joined[FROZEN], expected)
    for group, named in expected.items():
        for name, values in named.items():
            assert values.numpy().any(), name
            assert (values.shape[:2] == batch["mask"].shape) == (name in CANDIDATE_FEATURES), name
            assert values.dtype == joined[FROZEN][group][name].dtype
            np.testing.assert_allclose(joined[FROZEN][group][name], values, atol=1e-6)
    logits = [model(inputs, training=False).logits for inputs in (batch, joined)]
    np.testing.assert_allclose(*logits, atol=1e-5)


@pytest.mark.parametrize("group", GROUPS)
def test_the_predictor_reads_what_is_joined(dataset: Dataset, group: str) -> None:
    model, read = build_model(dataset, **ALL)
    batch = next(iter(read(7)))
    joined = find(model, read(64), dataset).join(batch)
    changed = joined[FROZEN] | {group: tf.nest.map_structure(lambda values: values + 1, joined[FROZEN][group])}
    before, after = (model(inputs).logits for inputs in (joined, joined | {FROZEN: changed}))
    assert np.abs(after - before).max() > 1e-4


def test_slates_of_fewer_candidates_are_padded_and_cut(dataset: Dataset) -> None:
    model, read = build_model(dataset, **ALL)
    batches = list(read(8).take(2))
    narrow = [cut(batch, width) for width, batch in zip((3, 8), batches, strict=True)]
    found = find(model, narrow, dataset)
    for named in found.found.values():
        for name in CANDIDATE_FEATURES & set(named):
            assert named[name].shape[:2] == (16, 8), name
    for batch in narrow:
        np.testing.assert_allclose(model(found.join(batch)).logits, model(batch).logits, atol=1e-5)
    wide = cut(batches[0], 8)
    logits = model(found.join(wide)).logits
    np.testing.assert_allclose(logits[:, :3], model(wide).logits[:, :3], atol=1e-5)
    assert np.isfinite(logits).all()


def test_an_encoder_that_is_trained_is_not_frozen(dataset: Dataset) -> None:
    model, read = build_model(dataset, predictor={"joint": True})
    found = find(model, read(64), dataset)
    assert set(found.found) == {"transitions", "overlap"}
    batch = next(iter(read(7)))
    before = model(found.join(batch)).logits.numpy()
    for weight in model.encoder.trainable_weights:
        weight.assign(weight + 0.5)
    assert np.abs(model(found.join(batch)).logits - before).max() > 1e-3


def test_what_takes_too_much_memory_is_found_in_every_step(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    model, read = build_model(dataset, **ALL)
    batch = next(iter(read(7)))
    found = model.read_frozen(batch, model.datastore.history(batch["history_position"]))
    sizes = {group: sum(one.numpy().nbytes for one in named.values()) for group, named in found.items()}
    order = sorted(sizes, key=lambda group: sizes[group])
    limit = (sizes[order[0]] + sizes[order[1]]) * len(read(7))
    with caplog.at_level("INFO"):
        kept = find(model, read(7), dataset, max_bytes=limit)
        assert find_frozen_features(model, read(7), len(dataset.log), "test", max_bytes=1 << 10) is None
    assert set(kept.found) == set(order[:2]) and set(kept.join(batch)[FROZEN]) == set(order[:2])
    np.testing.assert_allclose(model(kept.join(batch)).logits, model(batch).logits, atol=1e-5)
    assert [record.message.split("'")[2] for record in caplog.records] == [*order[2:], *order]


def test_slates_of_another_split_have_no_features(dataset: Dataset) -> None:
    model, read = build_model(dataset)
    found = find(model, read(64), dataset)
    other = next(iter(read(1, "validation")))
    with pytest.raises(tf.errors.InvalidArgumentError, match="-1 is not in"):
        found.join(other)


def test_a_predictor_that_asks_for_nothing_has_none(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    dataset = tiny.dataset(*tiny.honest)
    model, read = build_model(dataset, predictor={"own_history": False, "target_state": False})
    with caplog.at_level("INFO"):
        assert find_frozen_features(model, read(64), len(dataset.log), "test") is None
    assert "found anew" not in caplog.text


def test_a_fit_finds_them_once(new_tiny: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    log = new_tiny()
    encoded, read_frozen = [], Predictor.read_frozen

    def count(self: Predictor, inputs: Any, history: Any, known: Any = ()) -> Any:
        encoded.append("encoded" not in known)
        return read_frozen(self, inputs, history, known)

    def find_and_forget(*arguments: Any) -> FrozenFeatures | None:
        found = find_frozen_features(*arguments)
        encoded.clear()
        return found

    monkeypatch.setattr(Predictor, "read_frozen", count)
    monkeypatch.setattr(fit, "find_frozen_features", find_and_forget)
    log.trained(*log.honest, "training.num_epochs=2")
    # Training and validation are traced first; what reads test later knows nothing of it.
    assert encoded and not any(encoded[:2])
