"""What pretraining may know of a behaviour that it is asked for, and that it learns."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.config import Config
from tf_lift.data.dataset import window_batches
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.masking import choose_masked
from tf_lift.data.windows import read_windows
from tf_lift.datastore import Datastore, build_datastore
from tf_lift.models.pretrainer import Pretrainer
from tf_lift.pretrain import build_pretrainer

LENGTH, NUM_WINDOWS = 6, 40
PLACES = LENGTH + 1  # a window is read with the row before it


def change(dataset: Dataset, **sections: dict[str, Any]) -> Dataset:
    """The same data set with values of its configuration's sections replaced."""
    config: Config = dataset.config
    replaced = {name: dataclasses.replace(getattr(config, name), **values) for name, values in sections.items()}
    return dataclasses.replace(dataset, config=dataclasses.replace(config, **replaced))


def build(dataset: Dataset) -> tuple[Pretrainer, Datastore, dict[str, np.ndarray]]:
    """A pretrainer, its log, and a batch of windows."""
    tf.keras.utils.set_random_seed(1)
    store = build_datastore(dataset.log, None, LENGTH)
    model = build_pretrainer(dataset, store)
    first, count = read_windows(dataset.dataset_dir / "windows.tfrecord")
    batch = next(iter(window_batches(first, count, (PLACES, model.noise_width), NUM_WINDOWS, 5, True)))
    return model, store, {name: value.numpy() for name, value in batch.items()}


def replace_log(model: Pretrainer, dataset: Dataset, store: Datastore, **arrays: np.ndarray) -> Pretrainer:
    """The same weights over another log."""
    other = build_pretrainer(
        dataset, dataclasses.replace(store, **{name: tf.constant(value) for name, value in arrays.items()})
    )
    other.set_weights(model.get_weights())
    return other


def window_rows(dataset: Dataset, batch: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row ids [B, L + 1], of the windows and the row before each; where they are; and where the windows' own are."""
    first = batch["first_row"]
    has_before = ~np.isin(first, dataset.log.user_starts)
    mask = np.arange(PLACES) < (batch["num_rows"] + has_before)[:, None]
    assert mask[:, LENGTH].any() and not mask[:, LENGTH].all()
    rows = np.where(mask, (first - has_before)[:, None] + np.arange(PLACES), 0)
    return rows, mask, mask & (np.arange(PLACES) >= has_before[:, None])


def of_one_window_a_user(dataset: Dataset, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a batch in which no row is in two windows."""
    _, first = np.unique(dataset.log.user_indices()[batch["first_row"]], return_index=True)
    return {name: value[first] for name, value in batch.items()}


@pytest.mark.parametrize("kind", ["causal", "bidirectional", "gru"])
def test_masked_behaviours_do_not_influence_any_logit(tiny: Any, kind: str) -> None:
    dataset = change(tiny.dataset(), encoder={"kind": kind}, pretraining={"targets": "masked", "mask_ratio": 0.4})
    model, store, batch = build(dataset)
    batch = of_one_window_a_user(dataset, batch)
    rows, mask, own = window_rows(dataset, batch)
    masked = choose_masked(batch["noise"][..., 0], dataset.log.time[rows], mask, 0.4).numpy()
    behaviours = store.behaviours.numpy()
    has_partner = (np.diff(dataset.log.time[rows], axis=1) == 0) & mask[:, 1:]
    assert masked.any() and (has_partner & masked[:, 1:]).any()
    logits, truth, weights, _ = model(batch)
    assert (masked & ~own).any()
    np.testing.assert_array_equal(weights, (masked & own).astype(np.float32))
    np.testing.assert_array_equal(truth.numpy()[masked], behaviours[rows[masked]])

    flipped = behaviours.copy()
    flipped[rows[masked]] = 1 - flipped[rows[masked]]
    after = replace_log(model, dataset, store, behaviours=flipped)(batch)[0]
    np.testing.assert_array_equal(after.numpy()[mask], logits.numpy()[mask])

    seen = mask & ~masked
    flipped = behaviours.copy()
    flipped[rows[seen]] = 1 - flipped[rows[seen]]
    after = replace_log(model, dataset, store, behaviours=flipped)(batch)[0]
    assert np.abs(after - logits).max() > 1e-4


@pytest.mark.parametrize("kind", ["causal", "gru"])
def test_a_query_knows_no_behaviour_of_its_time_or_later(tiny: Any, kind: str) -> None:
    dataset = change(tiny.dataset(), encoder={"kind": kind}, pretraining={"targets": "queries", "mask_ratio": 0.0})
    model, store, batch = build(dataset)
    batch = of_one_window_a_user(dataset, batch)
    rows, mask, own = window_rows(dataset, batch)
    times = dataset.log.time[rows]
    logits, truth, weights = (value.numpy() for value in model(batch)[:3])
    assert (mask & ~own).any()
    np.testing.assert_array_equal(weights, own.astype(np.float32))
    np.testing.assert_array_equal(truth[mask], dataset.log.behaviour[rows[mask]])
    for place in range(1, PLACES):
        behaviours, fields = store.behaviours.numpy(), store.fields.numpy()
        now_or_later = mask & (times >= times[:, place : place + 1])
        behaviours[rows[now_or_later]] = 1 - behaviours[rows[now_or_later]]
        others = now_or_later & (np.arange(PLACES) != place)
        fields[rows[others]] = 2
        after = replace_log(model, dataset, store, behaviours=behaviours, fields=fields)(batch)[0].numpy()
        real = mask[:, place]
        np.testing.assert_allclose(after[real, place], logits[real, place], atol=1e-6)
        earlier = (mask & (times < times[:, place : place + 1])).any(axis=1) & real
        behaviours = 1 - store.behaviours.numpy()
        after = replace_log(model, dataset, store, behaviours=behaviours)(batch)[0].numpy()
        assert np.abs(after - logits)[earlier, place].max() > 1e-4


def test_all_behaviours_hidden_leaves_nothing_to_know(tiny: Any) -> None:
    dataset = change(tiny.dataset(), pretraining={"targets": "queries", "mask_ratio": 1.0})
    model, store, batch = build(dataset)
    after = replace_log(model, dataset, store, behaviours=1 - store.behaviours.numpy())(batch)[0]
    np.testing.assert_array_equal(after, model(batch)[0])


@pytest.mark.parametrize("targets", ["masked", "queries"])
def test_loss_is_the_mean_over_places_over_the_batch_size(tiny: Any, targets: str) -> None:
    dataset = change(tiny.dataset(), pretraining={"targets": targets, "batch_size": 64})
    model, _, batch = build(dataset)
    logits, truth, weights = (value.numpy() for value in model(batch)[:3])
    entropy = np.logaddexp(0, logits[..., 0]) - truth * logits[..., 0]
    expected = ((entropy * weights).sum(axis=1) / weights.sum(axis=1)).sum() / 64
    assert float(model.compute_loss(batch)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("targets", ["masked", "queries"])
def test_several_behaviours_are_a_softmax(tiny: Any, targets: str) -> None:
    dataset = change(tiny.dataset(*tiny.classes), pretraining={"targets": targets})
    model, _, batch = build(dataset)
    logits, truth, weights = (value.numpy() for value in model(batch)[:3])
    assert logits.shape[-1] == 3 and set(truth[weights > 0]) == {0, 1, 2}
    entropy = np.log(np.exp(logits).sum(axis=-1)) - np.take_along_axis(logits, truth[..., None], axis=-1)[..., 0]
    expected = ((entropy * weights).sum(axis=1) / weights.sum(axis=1)).sum() / 32
    assert float(model.compute_loss(batch)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("targets", ["masked", "queries"])
def test_training_lowers_the_loss(tiny: Any, targets: str) -> None:
    dataset = change(tiny.dataset(), pretraining={"targets": targets, "mask_ratio": 0.3})
    model, store, _ = build(dataset)
    model = replace_log(
        model, dataset, store, behaviours=store.user_indices.numpy() % 2
    )  # a behaviour that the user tells
    first, count = read_windows(dataset.dataset_dir / "windows.tfrecord")
    data = window_batches(first, count, (PLACES, model.noise_width), 32, 1, False)
    model.compile(optimizer=tf.keras.optimizers.Adam(5e-3))
    losses = model.fit(data, epochs=15, verbose=0).history["log_loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_hidden_ids_leave_labels_alone_to_know(tiny: Any) -> None:
    dataset = change(tiny.dataset(), encoder={"unknown_rate": 0.5}, pretraining={"targets": "queries"})
    model, store, batch = build(dataset)
    unknown = np.broadcast_to(np.arange(NUM_WINDOWS)[:, None] % 2 == 0, batch["noise"].shape[:2])
    batch["noise"][..., 1] = np.where(unknown, 0.499, 0.5)
    fields = store.fields.numpy()
    other = replace_log(model, dataset, store, fields=np.where(fields > 1, 2 + (fields - 1) % 3, fields))
    logits, after = model(batch, training=True)[0].numpy(), other(batch, training=True)[0].numpy()
    _, mask, _ = window_rows(dataset, batch)
    np.testing.assert_array_equal(after[unknown & mask], logits[unknown & mask])
    assert np.abs(after - logits)[~unknown & mask].max() > 1e-4
    assert (
        np.abs(other(batch)[0] - model(batch)[0])[unknown & mask].max() > 1e-4
    )  # outside of training all ids are known


def test_share_of_hidden_ids_is_the_unknown_rate(tiny: Any) -> None:
    dataset = change(
        tiny.dataset(), encoder={"unknown_rate": 0.3}, pretraining={"targets": "queries", "mask_ratio": 1.0}
    )
    model, _, batch = build(dataset)
    _, mask, _ = window_rows(dataset, batch)
    first = mask & (np.arange(PLACES) == 0)  # sees nothing but itself
    noise = np.random.default_rng(0).random((200, *batch["noise"].shape)).astype(np.float32)
    plain = model(batch)[0].numpy()[first]
    differs = [
        np.abs(model(batch | {"noise": part}, training=True)[0].numpy()[first] - plain).max(axis=-1) > 1e-7
        for part in noise[:40]
    ]
    assert abs(np.mean(differs) - 0.3) < 0.05


def test_drawn_items_are_hidden_as_often_as_logged_ones(tiny: Any) -> None:
    """Else an unknown item would mean a positive."""
    dataset = change(tiny.dataset(*tiny.honest), encoder={"unknown_rate": 0.5}, pretraining={"negatives_per_row": 2})
    model, store, batch = build(dataset)
    assert model.num_negatives == 2 and batch["noise"].shape[-1] == model.noise_width == 6
    logits, truth, weights = (value.numpy() for value in model(batch)[:3])
    assert logits.shape == (NUM_WINDOWS, 3 * PLACES, 1)
    np.testing.assert_array_equal(truth[:, PLACES:], 0)
    _, _, own = window_rows(dataset, batch)
    np.testing.assert_array_equal(weights, np.tile(own, 3))
    batch["noise"][..., 1] = 0.0
    hidden = model(batch, training=True)[0].numpy()[:, :, 0]
    genre, fields = dataset.config.schema.index("genre"), store.fields.numpy()
    possible = []  # a missing genre stays missing
    for value in (0, 2):
        fields[:, genre] = value
        possible.append(replace_log(model, dataset, store, fields=fields)(batch, training=True)[0].numpy()[:, 0, 0])
    for place in (0, PLACES, 2 * PLACES):  # of each window's first row, which sees nothing, and its drawn items
        assert np.minimum(*(np.abs(hidden[:, place] - one) for one in possible)).max() < 1e-6


def test_drawn_items_are_of_the_pool_and_by_popularity_where_asked(tiny: Any) -> None:
    dataset = change(tiny.dataset(*tiny.honest), pretraining={"negatives_per_row": 1})
    model, _, batch = build(dataset)
    logits = model(batch)[0].numpy()[:, PLACES:]
    by_popularity = change(dataset, negatives={"popularity_share": 1.0})
    other = build_pretrainer(by_popularity, build_datastore(dataset.log, None, LENGTH))
    other.set_weights(model.get_weights())
    _, mask, _ = window_rows(dataset, batch)
    assert np.abs(other(batch)[0].numpy()[:, PLACES:] - logits)[mask].max() > 1e-4
    batch["noise"][..., 3] = 1.0 - 2**-24  # the largest draw stays inside the tables
    assert np.isfinite(model(batch)[0]).all() and np.isfinite(other(batch)[0]).all()


def test_training_asks_about_a_share_of_the_rows(tiny: Any) -> None:
    everything = change(tiny.dataset(*tiny.honest), encoder={"dropout_rate": 0.0, "unknown_rate": 0.3})
    dataset = change(everything, pretraining={"query_share": 0.6})
    model, store, batch = build(dataset)
    assert batch["noise"].shape[-1] == model.noise_width == 5
    _, _, own = window_rows(dataset, batch)
    chosen = np.argsort(-np.where(own, batch["noise"][..., -1], -1.0), axis=1, kind="stable")[:, :4]  # .6 of 7 rows
    assert not np.take_along_axis(own, chosen, axis=1).all()  # short windows have fewer
    places = np.concatenate([chosen, PLACES + chosen], axis=1)  # logged rows and drawn items
    asks_all = replace_log(model, everything, store)
    whole = asks_all(batch | {"noise": batch["noise"][..., : asks_all.noise_width]}, training=True)
    some = model(batch, training=True)
    for all_places, drawn in zip(whole[:3], some[:3], strict=True):
        values = all_places.numpy()
        expected = np.take_along_axis(values, places.reshape(*places.shape, *[1] * (values.ndim - 2)), axis=1)
        np.testing.assert_allclose(drawn, expected, atol=1e-5)
    assert model(batch)[0].shape[1] == 2 * PLACES  # validation asks about all


def test_the_head_has_the_same_answer_after_config_and_weights(tiny: Any) -> None:
    head = build(tiny.dataset())[0].head
    states = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    copied = type(head).from_config(head.get_config())
    copied(states)
    copied.set_weights(head.get_weights())
    np.testing.assert_array_equal(copied(states), head(states))
