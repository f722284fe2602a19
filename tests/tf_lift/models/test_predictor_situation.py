"""What the transition tables add to the predictor, and what it does without them."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift.config import Situation
from tf_lift.data.dataset import read_examples
from tf_lift.data.dataset_files import Dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.data.situation_graphs import SituationGraphs
from tf_lift.datastore import Datastore, build_datastore
from tf_lift.fit import build_predictor
from tf_lift.models.predictor import Predictor
from tf_lift.situation.graph import build_transition_graph

LENGTH = 6


@pytest.fixture(scope="module")
def dataset(tiny: Any) -> Dataset:
    return tiny.dataset("situation.tables=true")


@pytest.fixture(scope="module")
def store(dataset: Dataset) -> Datastore:
    states = np.random.default_rng(0).normal(size=(dataset.log.num_positions, 8)).astype(np.float16)
    return build_datastore(dataset.log, states, LENGTH)


@pytest.fixture(scope="module")
def slates(dataset: Dataset) -> dict[str, tf.Tensor]:
    spec = build_example_spec(dataset.config, len(dataset.info.statistic_sets))
    return next(iter(read_examples(dataset, "test", spec, 32)))


def build(dataset: Dataset, store: Datastore, **settings: Any) -> Predictor:
    config = dataclasses.replace(dataset.config, situation=Situation(tables=True, **settings))
    spec = build_example_spec(config, len(dataset.info.statistic_sets))
    tf.keras.utils.set_random_seed(2)
    model = build_predictor(dataclasses.replace(dataset, config=config), store, spec)
    for weight in model.weights:
        if "situation_attention/slope" in weight.name:
            weight.assign(tf.fill(weight.shape, 0.1))
    return model


def width(model: Predictor) -> int:
    return next(weight for weight in model.weights if "dense_0/kernel" in weight.name).shape[0]


@pytest.mark.parametrize(
    ("relations", "num_relations"), [("all", 3), ("both", 2), ("future", 1), ("past", 1), ("any", 1)]
)
def test_each_relation_adds_a_feature_at_each_level(
    dataset: Dataset, store: Datastore, relations: str, num_relations: int
) -> None:
    with_them, without = build(dataset, store, relations=relations), build(dataset, store)
    assert width(with_them) - width(without) == 3 * num_relations
    assert without.situation.transitions is None and not any("situation" in weight.name for weight in without.weights)


@pytest.mark.parametrize("relations", ["future", "past"])
def test_the_logit_grows_with_what_followed_the_history(
    dataset: Dataset, store: Datastore, slates: dict[str, tf.Tensor], relations: str
) -> None:
    """With the MLP's last layer at zero, the linear part is all that is left."""
    model = build(dataset, store, relations=relations, history_rows=4)
    for weight in model.weights:
        if "predictor/logit" in weight.name or weight.name.startswith("logit"):
            weight.assign(tf.zeros_like(weight))
    model.config = dataclasses.replace(
        model.config, predictor=dataclasses.replace(model.config.predictor, residual_logit=False)
    )
    log = dataset.log
    first, count = log.windows_at(slates["history_position"].numpy(), LENGTH)
    ages = np.arange(4)
    mask = ages < count[:, None]
    history = log.fields[np.where(mask, (first + count - 1)[:, None] - ages, 0)]
    fields, times = slates["fields"].numpy(), slates["time"].numpy()
    weights = dataset.transitions.weights(history, mask, fields, times, (relations,))
    sums = np.einsum("bcmr,m->bcr", weights, np.exp(-0.1 * ages))
    expected = 10 * 0.1 * (np.log1p(100 * sums) / 4).sum(axis=-1)
    np.testing.assert_allclose(model(slates, training=False).logits, expected, atol=1e-5)
    assert len(np.unique(expected)) > 20


def test_transitions_of_later_snapshots_are_not_read(
    dataset: Dataset, store: Datastore, slates: dict[str, tf.Tensor]
) -> None:
    model = build(dataset, store, relations="all")
    expected = model(slates, training=False).logits.numpy()
    table, earliest = dataset.transitions, slates["time"].numpy().min()
    visible = int(np.searchsorted(table.times, earliest, side="right"))
    assert 1 < visible < len(table.times)
    is_seen = slates["time"].numpy() < table.times[visible]
    assert is_seen.any() and not is_seen.all()
    later = table.keys % 64 >= visible
    changed = dataclasses.replace(table, counts=np.where(later, table.counts + 50, table.counts))
    model.situation = SituationGraphs(build_transition_graph(changed))
    answers = model(slates, training=False).logits.numpy()
    np.testing.assert_array_equal(answers[is_seen], expected[is_seen])
    assert np.abs(answers[~is_seen] - expected[~is_seen]).max() > 1e-3


def test_all_weights_of_the_attention_are_trained(
    dataset: Dataset, store: Datastore, slates: dict[str, tf.Tensor]
) -> None:
    model = build(dataset, store, relations="all")
    with tf.GradientTape() as tape:
        loss = model.compute_loss(slates, training=True)
    names = [weight.name for weight in model.trainable_variables]
    gradients = dict(zip(names, tape.gradient(loss, model.trainable_variables), strict=True))
    ours = {name: gradient for name, gradient in gradients.items() if "situation_attention" in name}
    assert len(ours) == 4
    assert all(float(tf.reduce_max(tf.abs(gradient))) > 0 for gradient in ours.values())
