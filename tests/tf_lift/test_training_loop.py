"""Early stopping, and runs that are cut off between any two of their writes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_lift import training_loop
from tf_lift.training_loop import Schedule, build_learning_rate, train_epochs


class Run:
    """A process with a small model. Each epoch has its own data; the validation losses are given.

    Attributes:
        epochs: the epochs that this run trained.
        weights: the weights after each of them.
    """

    def __init__(
        self, folder: Path, losses: list[float], num_epochs: int = 4, patience: int = 9, decay: Any = "none"
    ) -> None:
        tf.keras.utils.set_random_seed(1)
        self.model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(2,))])
        metric = tf.keras.metrics.MeanSquaredError(name="log_loss")
        rate = build_learning_rate(0.1, decay, num_epochs=4, num_examples=8, batch_size=4)
        self.model.compile(optimizer=tf.keras.optimizers.Adam(rate), loss="mse", metrics=[metric])
        self.folder, self.schedule = folder, Schedule(num_epochs, patience)
        self.epochs: list[int] = []
        self.weights: dict[int, np.ndarray] = {}
        self._losses: Iterator[float] = iter(losses)

    def train(self) -> dict[str, list[float]]:
        return train_epochs("toy", self.model, self._data, self._validate, self.schedule, self.folder, self.folder)

    def _data(self, epoch: int) -> tf.data.Dataset:
        self.epochs.append(epoch)
        rng = np.random.default_rng(epoch)
        return tf.data.Dataset.from_tensor_slices((rng.normal(size=(8, 2)), rng.normal(size=(8, 1)))).batch(4)

    def _validate(self) -> dict[str, float]:
        self.weights[self.epochs[-1]] = self.kernel
        return {"loss": next(self._losses)}

    @property
    def kernel(self) -> np.ndarray:
        return self.model.layers[0].kernel.numpy().copy()


@pytest.mark.parametrize(("decay", "num_epochs"), [("none", 3), ("cosine", 4)])
def test_nothing_stops_before_a_falling_rate_has_fallen(tmp_path: Path, decay: Any, num_epochs: int) -> None:
    run = Run(tmp_path, [1.0, 2.0, 3.0, 4.0])
    run.schedule = Schedule.of_falling_rate(4, 2, decay)
    run.train()
    assert run.epochs == list(range(num_epochs))


def test_training_stops_by_patience_with_the_best_weights(tmp_path: Path) -> None:
    run = Run(tmp_path, [0.5, 0.3, 0.4, 0.35, 0.1], num_epochs=5, patience=2)
    history = run.train()
    assert run.epochs == [0, 1, 2, 3]
    assert history["loss"] == [0.5, 0.3, 0.4, 0.35] and len(history["train_log_loss"]) == 4
    np.testing.assert_array_equal(run.kernel, run.weights[1])


@pytest.mark.parametrize("decay", ["none", "cosine"])
def test_a_resumed_run_equals_one_without_a_break(tmp_path: Path, decay: str) -> None:
    whole = Run(tmp_path / "whole", [0.5, 0.4, 0.3, 0.2], decay=decay)
    expected = whole.train()
    Run(tmp_path / "cut", [0.5, 0.4], num_epochs=2, decay=decay).train()
    rest = Run(tmp_path / "cut", [0.3, 0.2], decay=decay)
    history = rest.train()
    assert rest.epochs == [2, 3] and history == expected
    np.testing.assert_array_equal(rest.kernel, whole.kernel)
    finished = Run(tmp_path / "cut", [])
    assert finished.train() == expected and finished.epochs == []
    np.testing.assert_array_equal(finished.kernel, whole.kernel)


def test_patience_counts_over_a_break(tmp_path: Path) -> None:
    Run(tmp_path, [0.2, 0.3], num_epochs=2, patience=3).train()
    rest = Run(tmp_path, [0.4, 0.4, 0.1], num_epochs=9, patience=3)
    assert rest.train()["loss"] == [0.2, 0.3, 0.4, 0.4][: 2 + len(rest.epochs)]
    assert rest.epochs == [2, 3]


@pytest.mark.parametrize("step", ["_append_history", "save"])
def test_an_epoch_that_was_cut_off_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Cut off after the best weights were written; the second time the epoch is not the best, and its first weights must not win."""

    def cut_off_at(calls: int, function: Callable[..., object]) -> Callable[..., object]:
        count = 0

        def call(*arguments: object, **settings: object) -> object:
            nonlocal count
            count += 1
            if count == calls:
                raise KeyboardInterrupt
            return function(*arguments, **settings)

        return call

    with monkeypatch.context() as patch:
        if step == "save":  # best 0, latest 0, best 1, latest 1: cut off before the last
            patch.setattr(tf.train.CheckpointManager, "save", cut_off_at(4, tf.train.CheckpointManager.save))
        else:
            patch.setattr(training_loop, "_append_history", cut_off_at(2, training_loop._append_history))
        with pytest.raises(KeyboardInterrupt):
            Run(tmp_path, [0.5, 0.4]).train()
    rest = Run(tmp_path, [0.6, 0.7], num_epochs=3)
    history = rest.train()
    assert rest.epochs == [1, 2] and history["loss"] == [0.5, 0.6, 0.7]
    whole = Run(tmp_path / "whole", [0.5, 0.6, 0.7], num_epochs=3)
    whole.train()
    np.testing.assert_array_equal(rest.kernel, whole.weights[0])


def test_a_loss_that_is_not_a_number_is_an_error(tmp_path: Path) -> None:
    run = Run(tmp_path, [0.5, float("nan")])
    with pytest.raises(
        ValueError, match="must be a finite number. Received: nan after epoch 2 of toy. Lower its learning rate"
    ):
        run.train()
    assert Run(tmp_path, [0.4, 0.3, 0.2]).train()["loss"] == [0.5, 0.4, 0.3, 0.2]
