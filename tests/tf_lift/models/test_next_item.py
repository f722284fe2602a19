"""What the next item is told from, and which rows count; the predictor's logit of it."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.config import Config
from tf_lift.data.dataset import read_examples, window_batches
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.data.windows import read_windows
from tf_lift.datastore import Datastore, build_datastore
from tf_lift.fit import build_predictor
from tf_lift.models.pretrainer import Pretrainer
from tf_lift.pretrain import build_pretrainer
from tf_lift.schema import FIRST_VALUE_ID, UNKNOWN_ID

LENGTH, NUM_WINDOWS = 6, 60
SHARED, OWN = {"next_item": True}, {"next_item": True, "share_encoder": False}
CROSSED = SHARED | {"next_item_gap": True, "next_item_user": True}


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
    batch = next(iter(window_batches(first, count, (LENGTH + 1, model.noise_width), NUM_WINDOWS, 5, True)))
    return model, store, {name: value.numpy() for name, value in batch.items()}


def replace_log(model: Pretrainer, dataset: Dataset, store: Datastore, **arrays: np.ndarray) -> Pretrainer:
    """The same weights over another log."""
    other = build_pretrainer(
        dataset, dataclasses.replace(store, **{name: tf.constant(value) for name, value in arrays.items()})
    )
    other.set_weights(model.get_weights())
    return other


def losses(model: Pretrainer, batch: dict[str, np.ndarray], training: bool = False) -> np.ndarray:
    return model(batch, training=training).next_items.losses.numpy()


def one_window_a_user(dataset: Dataset, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Some of a batch's windows; no row is in two of them."""
    _, of_users = np.unique(dataset.log.user_indices()[batch["first_row"]], return_index=True)
    return {name: value[of_users] for name, value in batch.items()}


def longer_windows(dataset: Dataset, batch: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Row ids [B, L + 1], of the windows and the row before each, and where they are; row by row."""
    owners = dataset.log.user_indices()
    shape = (len(batch["first_row"]), LENGTH + 1)
    rows, mask = np.zeros(shape, np.int64), np.zeros(shape, bool)
    for window, (first, count) in enumerate(zip(batch["first_row"], batch["num_rows"], strict=True)):
        if first > 0 and owners[first - 1] == owners[first]:
            first, count = first - 1, count + 1
        rows[window, :count] = np.arange(first, first + count)
        mask[window, :count] = True
    return rows, mask


def test_positive_rows_after_another_time_count_the_one_behind_a_full_history_too(tiny: Any) -> None:
    dataset = change(tiny.dataset(), pretraining=SHARED)
    model, _, batch = build(dataset)
    rows, mask = longer_windows(dataset, batch)
    times, positive = dataset.log.time[rows], dataset.positive[rows]
    expected = mask & positive & (times > times[:, :1])
    np.testing.assert_array_equal(model(batch).next_items.weights, expected.astype(np.float32))
    assert expected[:, LENGTH].any() and not mask[:, LENGTH].all()
    assert ((times == times[:, :1]) & mask & positive).sum() >= NUM_WINDOWS / 3
    assert not losses(model, batch)[~expected].any() and losses(model, batch)[expected].min() > 0


@pytest.mark.parametrize(("switches", "kind"), [(SHARED, "causal"), (OWN, "causal"), (SHARED, "gru")])
def test_an_item_is_told_from_the_rows_strictly_before_it_alone(tiny: Any, switches: dict[str, Any], kind: str) -> None:
    dataset = change(tiny.dataset(), encoder={"kind": kind}, pretraining=switches | {"mask_ratio": 0.0})
    model, store, batch = build(dataset)
    batch = one_window_a_user(dataset, batch)
    rows, mask = longer_windows(dataset, batch)
    times, counts = dataset.log.time[rows], model(batch).next_items.weights.numpy() > 0
    before, item = losses(model, batch), dataset.config.schema.item_index
    for place in range(1, LENGTH + 1):
        asked = counts[:, place]
        fields, behaviours = store.fields.numpy(), store.behaviours.numpy()
        now_or_later = mask & (times >= times[:, place : place + 1])
        others = now_or_later & (np.arange(LENGTH + 1) != place)
        fields[rows[others]] = 2
        behaviours[rows[others]] = 1 - behaviours[rows[others]]
        after = losses(replace_log(model, dataset, store, fields=fields, behaviours=behaviours), batch)
        np.testing.assert_allclose(after[asked, place], before[asked, place], atol=1e-5)
        fields = store.fields.numpy()
        fields[rows[asked, place], item] = 2 + (fields[rows[asked, place], item] - 1) % 5
        after = losses(replace_log(model, dataset, store, fields=fields), batch)
        assert np.abs(after - before)[asked, place].max() > 1e-4
        fields = store.fields.numpy()
        fields[rows[mask & (times < times[:, place : place + 1])], item] = 2
        after = losses(replace_log(model, dataset, store, fields=fields), batch)
        assert np.abs(after - before)[asked, place].max() > 1e-4


def draw_cross(model: Pretrainer) -> None:
    """Gives weights to what crosses the state, which begin at 0."""
    rng = np.random.default_rng(2)
    for weight in model.next_item.cross.weights:
        weight.assign(rng.normal(size=weight.shape))


def test_the_gap_before_a_row_counts_and_what_is_later_does_not(tiny: Any) -> None:
    dataset = change(tiny.dataset(), pretraining=CROSSED | {"mask_ratio": 0.0})
    model, store, batch = build(dataset)
    draw_cross(model)
    batch = one_window_a_user(dataset, batch)
    rows, mask = longer_windows(dataset, batch)
    log_times, counts = dataset.log.time, model(batch).next_items.weights.numpy() > 0
    times, before = log_times[rows], losses(model, batch)
    for place in range(1, LENGTH + 1):
        asked, moved = counts[:, place], log_times.copy()
        moved[rows[mask & (times > times[:, place : place + 1])]] += 10**8
        after = losses(replace_log(model, dataset, store, times=moved), batch)
        np.testing.assert_allclose(after[asked, place], before[asked, place], atol=1e-5)
        moved = log_times.copy()
        moved[rows[mask & (times < times[:, place : place + 1])]] -= 10**8
        after = losses(replace_log(model, dataset, store, times=moved), batch)
        assert np.abs(after - before)[asked, place].min() > 1e-4


@pytest.mark.parametrize("switches", [SHARED, CROSSED], ids=["plain", "crossed"])
def test_logits_of_a_history_are_those_of_the_loss(tiny: Any, switches: dict[str, Any]) -> None:
    dataset = change(tiny.dataset(), encoder={"unknown_rate": 0.0}, pretraining=switches | {"mask_ratio": 0.0})
    model, store, batch = build(dataset)
    if model.next_item.cross is not None:
        draw_cross(model)
    log, item = dataset.log, dataset.config.schema.item_index
    rows, mask = longer_windows(dataset, batch)
    users = log.user_indices()
    of_start = (rows[:, 0] == log.user_starts[users[rows[:, 0]]])[:, None]  # their windows hold all that came before
    asked = of_start & (model(batch).next_items.weights.numpy() > 0)
    visible = (mask[:, None, :] & (log.time[rows][:, None, :] < log.time[rows][:, :, None])).sum(axis=2)
    stops, targets = (rows[:, :1] + visible)[asked], rows[asked]
    history = store.history(tf.constant(stops + users[targets] + 1))
    states = model.encoder.encode_rows(history.fields, history.behaviours + 1, history.mask)
    items = np.tile(np.arange(model.next_item.head.num_items, dtype=np.int32), (len(targets), 1))
    logits = model.next_item.logits(history, states, tf.constant(items), tf.constant(log.time[targets]))
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(log.fields[targets, item], logits)
    np.testing.assert_allclose(losses(model, batch)[asked], expected, atol=1e-4)
    assert len(targets) > 20
    later = model.next_item.logits(history, states, tf.constant(items), tf.constant(log.time[targets] + 10**8))
    assert (np.abs(later - logits).max() > 0.1) == (switches is CROSSED)


def test_hidden_items_are_the_unknown_id_in_training_alone(tiny: Any) -> None:
    dataset = change(tiny.dataset(), pretraining=SHARED, encoder={"unknown_rate": 0.3})
    model, _, batch = build(dataset)
    (bias,) = [weight for weight in model.next_item.head.weights if weight.shape.rank == 1]
    bias.assign(np.where(np.arange(bias.shape[0]) == UNKNOWN_ID, 30.0, 0.0))
    counts = model(batch).next_items.weights.numpy() > 0
    hidden = counts & (batch["noise"][..., 1] < 0.3)
    after = losses(model, batch, training=True)
    assert after[hidden].max() < 1e-3 and after[counts & ~hidden].min() > 20
    assert hidden[:, LENGTH].any() and losses(model, batch)[counts].min() > 20


@pytest.mark.parametrize("place", [1, LENGTH])
def test_who_asks_does_not_tell_that_the_item_is_hidden(tiny: Any, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pretraining = CROSSED | {"mask_ratio": 0.0, "next_item_user_dropout": 0.0}
    dataset = change(tiny.dataset(), pretraining=pretraining, encoder={"unknown_rate": 0.3, "dropout_rate": 0.0})
    model, _, batch = build(dataset)
    draw_cross(model)
    head, asked = model.next_item.head, []
    cross_entropy = head.cross_entropy

    def record(states: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        asked.append((states.numpy(), items.numpy()))
        return cross_entropy(states, items)

    monkeypatch.setattr(head, "cross_entropy", record)
    for drawn in (0.0, 0.99, 0.0):  # hidden, not hidden; and the row before it hidden
        noise = np.full_like(batch["noise"], 0.99)
        noise[:, place if len(asked) < 2 else place - 1, 1] = drawn
        model(batch | {"noise": noise}, training=True)
    is_place = np.argwhere(model(batch).next_items.weights.numpy() > 0)[:, 1] == place
    (hidden, hidden_items), (shown, shown_items), (hidden_before, _), _ = asked
    assert is_place.any() and (hidden_items[is_place] == UNKNOWN_ID).all() and (shown_items != UNKNOWN_ID).any()
    np.testing.assert_array_equal(hidden[is_place], shown[is_place])
    assert np.abs(hidden_before - shown)[is_place].max() > 1e-3


def test_behind_no_rows_there_is_nothing_to_cross(tiny: Any) -> None:
    dataset = change(tiny.dataset(), pretraining=CROSSED)
    model, store, _ = build(dataset)
    draw_cross(model)
    (bias,) = [weight for weight in model.next_item.head.weights if weight.shape.rank == 1]
    bias.assign(np.random.default_rng(3).normal(size=bias.shape))
    history = store.history(tf.constant([0], tf.int64))
    states = model.encoder.encode_rows(history.fields, tf.zeros_like(history.behaviours), history.mask)
    items = np.arange(FIRST_VALUE_ID, bias.shape[0], dtype=np.int32)
    logits = model.next_item.logits(history, states, tf.constant(items[None]), tf.constant([1_600_000_000], tf.int64))
    np.testing.assert_allclose(logits[0], bias.numpy()[items], atol=1e-6)


def test_own_encoder_sees_behaviours_that_are_masked_for_the_shared_one(tiny: Any) -> None:
    for switches, is_blind in ((SHARED, True), (OWN, False)):
        dataset = change(tiny.dataset(), pretraining=switches | {"mask_ratio": 1.0})
        model, store, batch = build(dataset)
        model.next_item._is_positive = tf.constant([True, True])
        before = losses(model, batch)
        other = replace_log(model, dataset, store, behaviours=1 - store.behaviours.numpy())
        other.next_item._is_positive = tf.constant([True, True])
        assert (np.abs(losses(other, batch) - before).max() < 1e-5) == is_blind


def test_samples_are_drawn_at_the_rates_that_they_are_corrected_for(tiny: Any) -> None:
    dataset = change(tiny.dataset(), pretraining=SHARED, encoder={"unknown_rate": 0.3})
    model, store, batch = build(dataset)
    bias, table = sorted(model.next_item.head.weights, key=lambda weight: weight.shape.rank)
    first_is_likeliest = np.linspace(2.0, -2.0, bias.shape[0])  # as early items have the most rows
    bias.assign(np.where(np.arange(bias.shape[0]) == 0, -50.0, first_is_likeliest))  # padding is never drawn
    table.assign(np.random.default_rng(0).normal(scale=0.3, size=table.shape))
    sampled = build_pretrainer(change(dataset, pretraining={"next_item_samples": 20_000}), store)
    sampled.set_weights(model.get_weights())
    np.testing.assert_allclose(losses(sampled, batch), losses(model, batch), atol=0.1)
    few = build_pretrainer(change(dataset, pretraining={"next_item_samples": 4}), store)
    few.set_weights(model.get_weights())
    np.testing.assert_array_equal(losses(few, batch), losses(few, batch))
    assert np.abs(losses(few, batch | {"noise": batch["noise"] / 2}) - losses(few, batch)).max() > 0.1


def test_both_losses_are_added_with_their_weight(tiny: Any) -> None:
    dataset = tiny.dataset()
    model, store, batch = build(change(dataset, pretraining=SHARED | {"next_item_weight": 0.25}))
    plain = build_pretrainer(dataset, store)
    plain.encoder.set_weights(model.encoder.get_weights())
    plain.head.set_weights(model.head.get_weights())
    of_next = model(batch).next_items
    per_window = of_next.losses.numpy().sum(axis=1) / np.maximum(of_next.weights.numpy().sum(axis=1), 1)
    expected = 0.25 * per_window.sum() / dataset.config.pretraining.batch_size
    assert plain.next_item is None and plain(batch).next_items is None
    difference = float(model.compute_loss(batch)) - float(plain.compute_loss(batch))
    assert difference == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def slates_of(tiny: Any) -> Any:
    def read(dataset: Dataset) -> dict[str, tf.Tensor]:
        spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
        return next(iter(read_examples(dataset, "test", spec, 32)))

    return read


@pytest.mark.parametrize("pretraining", [SHARED, OWN], ids=["shared", "own"])
def test_predictor_adds_a_multiple_of_the_logit_and_reads_it(
    tiny: Any, slates_of: Any, pretraining: dict[str, Any]
) -> None:
    switches = {"next_item_logit": True, "residual_logit": False, "own_history": False, "target_state": False}
    dataset = change(tiny.dataset(), pretraining=pretraining, predictor=switches)
    slates = slates_of(dataset)
    spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
    states = np.zeros((dataset.log.num_positions, 8), np.float16)
    model = build_predictor(dataset, build_datastore(dataset.log, states, LENGTH), spec)
    off = change(dataset, predictor={"next_item_logit": False})
    without = build_predictor(off, model.datastore, spec)
    widths = [
        next(weight.shape[0] for weight in one.weights if "dense_0/kernel" in weight.name) for one in (model, without)
    ]
    assert widths[0] == widths[1] + 1 and without.next_item is None
    untaught = change(dataset, pretraining={"enabled": False})
    assert build_predictor(untaught, model.datastore, spec).next_item is None
    assert not model.next_item.trainable_weights
    for weight in model.weights:
        if "logit/" in weight.name:
            weight.assign(tf.zeros_like(weight))
        if "next_item_weight" in weight.name:
            weight.assign(1.5)
    history = model.datastore.history(slates["history_position"])
    encoder, head = model.next_item.encoder, model.next_item.head
    assert (encoder is model.encoder) == (pretraining is SHARED)
    labels = tf.where(history.mask, history.behaviours + 1, 0)
    rows = encoder.encode_rows(history.fields, labels, history.mask)
    items = slates["fields"][..., dataset.config.schema.item_index]
    assert model.next_item.cross is None
    expected = head(encoder.last_states(rows, history.num_rows), items)
    np.testing.assert_allclose(model(slates).logits, 1.5 * expected, atol=1e-5)
    assert np.ptp(expected) > 1e-3
