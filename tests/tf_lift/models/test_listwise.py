"""The listwise loss: a softmax over the real candidates of slates that have two or more."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift import fit
from tf_lift.baselines.no_learning import fit_platt
from tf_lift.data.dataset import read_examples
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.examples import build_example_spec
from tf_lift.datastore import build_datastore
from tf_lift.encode import read_datastore
from tf_lift.evaluate import predict_split
from tf_lift.fit import build_predictor, read_predictor
from tf_lift.models.predictor import Predictor

LENGTH = 6


def build(dataset: Dataset, **training: Any) -> tuple[Predictor, dict[str, tf.Tensor]]:
    """A predictor and a batch of slates, some of them padded."""
    config = dataclasses.replace(dataset.config, training=dataclasses.replace(dataset.config.training, **training))
    spec = build_example_spec(config, len(dataset.info.statistic_sets))
    states = np.random.default_rng(0).normal(size=(dataset.log.num_positions, 8)).astype(np.float16)
    tf.keras.utils.set_random_seed(2)
    model = build_predictor(
        dataclasses.replace(dataset, config=config), build_datastore(dataset.log, states, LENGTH), spec
    )
    model.compile(optimizer=tf.keras.optimizers.Adam(0.01))
    return model, next(iter(read_examples(dataset, "test", spec, 32)))


def evaluate(model: Predictor, slates: dict[str, tf.Tensor]) -> dict[str, float]:
    return model.evaluate(tf.data.Dataset.from_tensors(slates), verbose=0, return_dict=True)


def test_loss_is_the_mean_log_probability_of_the_positive_among_real_candidates(tiny: Any) -> None:
    model, slates = build(tiny.dataset(*tiny.honest), loss="listwise", l2=0.0)
    mask, labels = slates["mask"].numpy(), slates["label"].numpy()
    assert not mask.all() and (labels.sum(axis=1) == 1).all()
    weights = np.where(mask, np.exp(model(slates).logits.numpy()), 0.0)
    expected = -np.log(weights[labels == 1] / weights.sum(axis=1))
    assert evaluate(model, slates)["listwise_loss"] == pytest.approx(expected.mean(), rel=1e-4)
    assert float(model.compute_loss(slates)) == pytest.approx(expected.sum() / 32, rel=1e-4)


def test_slates_of_one_candidate_and_slates_without_a_positive_teach_nothing(tiny: Any) -> None:
    model, slates = build(tiny.dataset(*tiny.honest), loss="listwise", l2=0.0)
    whole = float(model.compute_loss(slates))
    mask, labels = slates["mask"].numpy().copy(), slates["label"].numpy().copy()
    mask[:10, 1:] = False
    labels[10:20] = 0
    few = slates | {"mask": tf.constant(mask), "label": tf.constant(labels)}
    left = {name: value[20:] for name, value in slates.items()}
    loss = float(model.compute_loss(few))
    assert 0 < loss < whole
    assert loss == pytest.approx(float(model.compute_loss(left)), rel=1e-4)


def test_training_by_slates_lowers_their_loss_and_pointwise_does_not_know_it(tiny: Any) -> None:
    model, slates = build(tiny.dataset(*tiny.honest), loss="listwise")
    before = evaluate(model, slates)["listwise_loss"]
    model.fit(tf.data.Dataset.from_tensors(slates).repeat(15), verbose=0)
    assert evaluate(model, slates)["listwise_loss"] < before - 0.1
    plain, _ = build(tiny.dataset(*tiny.honest))
    assert "listwise_loss" not in evaluate(plain, slates)


def test_probabilities_of_a_listwise_model_are_calibrated_on_validation(tiny: Any) -> None:
    workspace = tiny.trained(*tiny.honest, "training.loss=listwise", "run=calibrated")
    dataset = open_dataset(workspace)
    spec = build_example_spec(workspace.config, len(dataset.info.statistic_sets))
    model = read_predictor(workspace, dataset, read_datastore(workspace, dataset), spec)
    found = predict_split(model, dataset, spec, "validation")
    labels = found.candidates.labels
    assert found.probabilities.mean() == pytest.approx(labels.mean(), rel=1e-3)  # which holds for no other intercept
    odds = np.log(found.probabilities / (1 - found.probabilities)).astype(np.float64)
    assert fit_platt(odds, labels) == pytest.approx((1.0, 0.0), abs=0.02)


def test_a_calibration_keeps_the_order_and_refuses_to_turn_it(tiny: Any) -> None:
    model, slates = build(tiny.dataset(*tiny.honest), loss="listwise")
    before = model(slates, training=False).logits.numpy()
    model.calibrate(0.25, -3.0)
    np.testing.assert_allclose(model(slates, training=False).logits, 0.25 * before - 3.0, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"above 0\. Received: -0\.5"):
        model.calibrate(-0.5, 0.0)


def test_a_model_that_ranks_nothing_stays_uncalibrated(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, slates = build(tiny.dataset(*tiny.honest), loss="listwise")
    before = model(slates, training=False).logits.numpy()
    monkeypatch.setattr(fit, "fit_platt", lambda *_: (-0.1, 2.0))
    fit._calibrate(model, tf.data.Dataset.from_tensors(slates))
    np.testing.assert_array_equal(model(slates, training=False).logits, before)
    assert "probabilities are not calibrated" in caplog.text
