"""The stage `pretrain`: its learning rate."""

from typing import Any

import pytest
import tensorflow as tf

from tf_lift import pretrain
from tf_lift.training_loop import train_epochs
from tf_lift.workspace import Workspace


def test_a_cosine_ends_with_the_last_step(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("learning_rate_decay=cosine", "num_epochs=2", "batch_size=48")
    config = tiny.dataset(*(f"pretraining.{setting}" for setting in settings)).config
    optimizers: list[tf.keras.optimizers.Optimizer] = []

    def train_and_keep(name: str, model: tf.keras.Model, *others: Any) -> dict[str, list[float]]:
        history = train_epochs(name, model, *others)
        optimizers.append(model.optimizer)
        return history

    monkeypatch.setattr(pretrain, "train_epochs", train_and_keep)
    pretrain.run(Workspace(config))
    (optimizer,) = optimizers
    rate = optimizer._learning_rate
    assert float(rate(0)) == pytest.approx(config.pretraining.learning_rate)
    assert float(rate(optimizer.iterations - 1)) > 0.0 == float(rate(optimizer.iterations))
