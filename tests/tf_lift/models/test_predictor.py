"""What each switch of the predictor adds to its inputs, and what it leaves out."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.config import Behaviour
from tf_lift.data.dataset import read_examples
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.datastore import Datastore, build_datastore
from tf_lift.encode import read_datastore
from tf_lift.evaluate import read_candidates
from tf_lift.fit import build_predictor, positive_rate, read_predictor, read_predictor_weights
from tf_lift.layers.match_statistics import MatchStatistics
from tf_lift.layers.recency_statistics import RecencyStatistics
from tf_lift.models.predictor import Predictor

LENGTH = 6
OFF = {"own_history": False, "target_state": False}
NONE = {
    **OFF,
    "contexts": "none",
    "neighbour_label": False,
    "raw_inputs": False,
    "score_bias": False,
    "match_statistics": False,
    "history_statistics": False,
    "recency_days": (),
}


@pytest.fixture(scope="module")
def dataset(tiny: Any) -> Dataset:
    return tiny.dataset()


@pytest.fixture(scope="module")
def slates(dataset: Dataset) -> dict[str, tf.Tensor]:
    return first_batch(dataset)


@pytest.fixture(scope="module")
def store(dataset: Dataset) -> Datastore:
    states = np.random.default_rng(0).normal(size=(dataset.log.num_positions, 8)).astype(np.float16)
    states[0] = 0
    return build_datastore(dataset.log, states, LENGTH)


def first_batch(dataset: Dataset) -> dict[str, tf.Tensor]:
    spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
    return next(iter(read_examples(dataset, "test", spec, 32)))


def build(dataset: Dataset, store: Datastore, **switches: Any) -> Predictor:
    config = dataclasses.replace(dataset.config, predictor=dataclasses.replace(dataset.config.predictor, **switches))
    spec = build_example_spec(config, len(dataset.info.statistic_sets))
    tf.keras.utils.set_random_seed(2)
    return build_predictor(dataclasses.replace(dataset, config=config), store, spec)


def logits(model: Predictor, slates: dict[str, tf.Tensor], store: Datastore | None = None) -> np.ndarray:
    """Logits of slates, over another datastore if one is given."""
    own = model.datastore
    model.datastore = store or own
    answers = model(slates, training=False).logits.numpy()
    model.datastore = own
    return answers


def change_states(store: Datastore, kept: np.ndarray) -> Datastore:
    """Other states at the positions that are not kept."""
    states = store.states.numpy()
    other = np.where(np.isin(np.arange(len(states)), kept)[:, None], states, -states + 1).astype(np.float16)
    return dataclasses.replace(store, states=tf.constant(other))


def context_positions(store: Datastore, slates: dict[str, tf.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the neighbours' histories and of their futures, 0 among both."""
    rows, num_future = slates["neighbour_rows"].numpy().ravel(), slates["neighbour_num_future"].numpy().ravel()
    position = rows + store.user_indices.numpy()[rows] + 1
    return np.append(position[rows >= 0], 0), np.append((position + 1 + num_future)[num_future > 0], 0)


@pytest.mark.parametrize("contexts", ["both", "history", "future", "none"])
def test_contexts_read_the_states_that_they_name(
    dataset: Dataset, store: Datastore, slates: dict[str, tf.Tensor], contexts: str
) -> None:
    model = build(dataset, store, contexts=contexts)
    before, after = context_positions(store, slates)
    read = np.concatenate(
        [before if contexts in ("both", "history") else [0], after if contexts in ("both", "future") else [0]]
    )
    expected = logits(model, slates)
    np.testing.assert_array_equal(logits(model, slates, change_states(store, read)), expected)
    everything = np.arange(len(store.states))
    for part, is_read in ((before, contexts in ("both", "history")), (after, contexts in ("both", "future"))):
        kept = np.setdiff1d(everything, part[part > 0])
        changed = np.abs(logits(model, slates, change_states(store, kept)) - expected).max()
        only_here = len(np.setdiff1d(part, after if part is before else before))
        assert only_here
        assert changed > 1e-4 if is_read or contexts == "both" else True


@pytest.mark.parametrize("neighbour_label", [True, False])
def test_neighbours_behaviours(
    dataset: Dataset, store: Datastore, slates: dict[str, tf.Tensor], neighbour_label: bool
) -> None:
    model = build(dataset, store, **OFF, neighbour_label=neighbour_label)
    flipped = dataclasses.replace(store, behaviours=1 - store.behaviours)
    difference = np.abs(logits(model, slates, flipped) - logits(model, slates)).max()
    assert difference > 1e-4 if neighbour_label else difference == 0


@pytest.mark.parametrize("switch", ["own_history", "target_state", "history_statistics"])
def test_own_history_is_read_by_either_switch_alone(
    dataset: Dataset, store: Datastore, slates: dict[str, tf.Tensor], switch: str
) -> None:
    empty = slates | {"history_position": tf.zeros_like(slates["history_position"])}
    model = build(dataset, store, **OFF)
    np.testing.assert_array_equal(logits(model, empty), logits(model, slates))
    model = build(dataset, store, **OFF | {switch: True})
    assert np.abs(logits(model, empty) - logits(model, slates)).max() > 1e-4


@pytest.mark.parametrize(
    ("switch", "names"),
    [("match_statistics", ("match_counts", "match_positives")), ("score_bias", ("neighbour_scores",))],
)
def test_inputs_of_a_switch_matter_only_with_it(
    dataset: Dataset, store: Datastore, slates: dict[str, tf.Tensor], switch: str, names: tuple[str, ...]
) -> None:
    for is_on in (True, False):
        model = build(dataset, store, **{switch: is_on})
        if is_on and switch == "score_bias":
            next(weight for weight in model.weights if "score_weight" in weight.name).assign(2.0)
        for name in names:
            more = slates[name] + tf.cast(7 + tf.range(slates[name].shape[-1]), slates[name].dtype)
            other = slates | {name: tf.zeros_like(more) if name == "match_positives" else more}
            difference = np.abs(logits(model, other) - logits(model, slates)).max()
            assert difference > 1e-5 if is_on else difference == 0


@pytest.mark.parametrize(
    ("switches", "width"),
    # 5 fields of width 4: 10 products each of x_t and x_r, 20 raw numbers each, states of width 8
    [
        ({}, 20),
        ({"raw_inputs": True}, 20 + 60),
        ({"contexts": "history"}, 28),
        ({"contexts": "future"}, 28),
        ({"contexts": "both"}, 36),
        ({"neighbour_label": True}, 22),
        ({"own_history": True}, 28),
        ({"target_state": True}, 28),
        ({"match_statistics": True}, None),
        ({"history_statistics": True}, 20 + 2 * (2 + 1) + 1),  # of two item fields and of all rows; and the gap
        ({"recency_days": (1.0, 30.0)}, 20 + 2 * (2 + 1)),  # of two item fields: each window and the gap
        ({"score_bias": True}, 20),
    ],
)
def test_each_switch_adds_its_features(
    dataset: Dataset, store: Datastore, switches: dict[str, Any], width: int | None
) -> None:
    model = build(dataset, store, **NONE | switches)
    dense = next(weight for weight in model.weights if "dense_0/kernel" in weight.name)
    assert dense.shape[0] == (width or 20 + 2 * len(dataset.info.statistic_sets))


def test_encoder_has_gradients_only_when_joint(
    dataset: Dataset, store: Datastore, slates: dict[str, tf.Tensor]
) -> None:
    for joint in (False, True):
        model = build(dataset, store, joint=joint)
        weights = [*model.encoder.weights, *model.head.weights]
        with tf.GradientTape() as tape:
            loss = model.compute_loss(slates, training=True)
        gradients = tape.gradient(loss, model.trainable_variables)
        of_encoder = [
            gradient
            for weight, gradient in zip(model.trainable_variables, gradients, strict=True)
            if any(weight is own for own in weights)
        ]
        if joint:
            assert len(of_encoder) == len(weights)
            assert sum(gradient is not None for gradient in of_encoder) == len(weights)
        else:
            assert of_encoder == [] and None not in gradients


def test_frozen_embeddings_are_not_trained(dataset: Dataset, store: Datastore) -> None:
    for is_frozen in (True, False):
        model = build(dataset, store, freeze_embeddings=is_frozen)
        assert any(model.embedding.table is weight for weight in model.trainable_variables) != is_frozen


def test_l2_penalises_the_kernels_of_the_mlp_in_training_alone(
    dataset: Dataset, store: Datastore, slates: dict[str, tf.Tensor]
) -> None:
    model = build(dataset, store)
    kernels = [
        weight.numpy() for weight in model.weights if weight.name.endswith(("dense_0/kernel:0", "logit/kernel:0"))
    ]
    assert len(kernels) == 2
    penalty = dataset.config.training.l2 * sum((kernel**2).sum() / 2 for kernel in kernels)
    plain, trained = (float(model.compute_loss(slates, training=training)) for training in (False, True))
    assert trained - plain == pytest.approx(penalty, rel=1e-3)
    labels, answers = slates["label"].numpy()[:, 0], logits(model, slates)[:, 0]
    assert plain == pytest.approx((np.logaddexp(0, answers) - labels * answers).sum() / 32, rel=1e-4)


def test_candidates_of_a_slate_do_not_see_each_other_nor_padding(tiny: Any, store: Datastore) -> None:
    dataset = tiny.dataset(*tiny.honest)
    slates = first_batch(dataset)
    mask = slates["mask"].numpy()
    assert not mask.all() and mask[:, 0].all()
    model = build(dataset, store)
    together = logits(model, slates)
    shared = ("time", "row", "history_position")
    for place in (0, 3):
        alone = {name: value if name in shared else value[:, place : place + 1] for name, value in slates.items()}
        real = mask[:, place]
        np.testing.assert_allclose(logits(model, alone)[real, 0], together[real, place], atol=1e-5)
    padded = {
        name: value if name in shared else tf.pad(value, [[0, 0], [0, 3]] + [[0, 0]] * (len(value.shape) - 2))
        for name, value in slates.items()
    }
    np.testing.assert_allclose(logits(model, padded)[:, :-3][mask], together[mask], atol=1e-5)
    assert float(model.compute_loss(padded)) == pytest.approx(float(model.compute_loss(slates)), rel=1e-5)


def test_residual_is_the_log_odds_of_the_positive_classes(tiny: Any, store: Datastore) -> None:
    """With the last layer at zero the head's answer is all that is left."""

    def residual(positive: tuple[int, ...], classes: dict[str, int]) -> np.ndarray:
        dataset = tiny.dataset(*tiny.classes) if len(classes) == 3 else tiny.dataset()
        slates = first_batch(dataset)
        behaviour = Behaviour("classes", "verb", classes=classes, positive_classes=positive)
        config = dataclasses.replace(dataset.config, behaviour=behaviour)
        model = build(dataclasses.replace(dataset, config=config), store)
        for weight in model.weights:
            if "logit/" in weight.name:
                weight.assign(tf.zeros_like(weight))
        return logits(model, slates)

    three, two = {"view": 0, "cart": 1, "buy": 2}, {"view": 0, "buy": 1}
    np.testing.assert_allclose(residual((1, 2), three), -residual((0,), three), atol=1e-5)
    assert np.abs(residual((2,), three) - residual((1, 2), three)).max() > 1e-3
    np.testing.assert_allclose(residual((1,), two), -residual((0,), two), atol=1e-6)
    assert np.abs(residual((1,), two)).max() > 1e-3


def test_same_answer_after_saving_and_reading(
    dataset: Dataset, store: Datastore, slates: dict[str, tf.Tensor], tmp_path: Path
) -> None:
    model = build(dataset, store)
    for weight in model.weights:
        weight.assign_add(tf.random.stateless_normal(weight.shape, [1, 2], 0.0, 0.1, weight.dtype))
    tf.train.Checkpoint(model=model).write(str(tmp_path / "weights"))
    other = build(dataset, store)
    assert np.abs(logits(other, slates) - logits(model, slates)).max() > 1e-3
    read_predictor_weights(other, tmp_path)
    np.testing.assert_array_equal(logits(other, slates), logits(model, slates))


def test_the_time_since_the_last_row_is_read(dataset: Dataset, store: Datastore, slates: dict[str, tf.Tensor]) -> None:
    later = slates | {"time": slates["time"] + 86_400}
    for is_on in (True, False):
        model = build(dataset, store, **NONE | {"history_statistics": is_on})
        assert (np.abs(logits(model, later) - logits(model, slates)).max() > 1e-4) == is_on


def test_how_lately_an_item_was_met_is_read(dataset: Dataset, store: Datastore, slates: dict[str, tf.Tensor]) -> None:
    later = slates | {"time": slates["time"] + 86_400}
    for days in ((), (1.0,)):
        model = build(dataset, store, **NONE | {"recency_days": days})
        assert (np.abs(logits(model, later) - logits(model, slates)).max() > 1e-4) == bool(days)


def test_a_fit_standardises_by_the_train_candidates(tiny: Any) -> None:
    workspace = tiny.trained(
        "predictor.standardise=true",
        "predictor.history_statistics=true",
        "predictor.recency_days=[1, 30]",
        "run=standardised",
    )
    trained = open_dataset(workspace)
    spec = build_example_spec(workspace.config, len(trained.info.statistic_sets))
    model = read_predictor(workspace, trained, read_datastore(workspace, trained), spec)
    train = read_candidates(trained, spec, "train")
    plain = MatchStatistics(positive_rate(trained))
    rows = [
        (*model._count_history(slate["fields"], model.datastore.history(slate["history_position"])), slate["mask"])
        for slate in read_examples(trained, "train", spec, 32)
    ]
    of_histories = [np.concatenate([np.asarray(part[place])[part[2]] for part in rows]) for place in (0, 1)]
    assert of_histories[0][:, :-1].any() and (of_histories[1] < of_histories[0]).any()
    recency = model.situation.recency.read(tf.constant(train.fields[:, None]), tf.constant(train.times))
    for layer, features in (
        ("match_statistics", plain(train.match_counts, train.match_positives).numpy()),
        ("history_statistics", plain(*of_histories).numpy()),
        ("recency_statistics", RecencyStatistics()(*recency).numpy()[:, 0]),
    ):
        found = {
            name: weight
            for weight in model.weights
            for name in ("mean", "deviation")
            if weight.name.endswith(f"{layer}/{name}:0")
        }
        np.testing.assert_allclose(found["mean"], features.mean(axis=0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found["deviation"], np.maximum(features.std(axis=0), 1e-3), rtol=1e-2, atol=1e-4)
        assert np.ptp(found["deviation"].numpy()) > 0.1
