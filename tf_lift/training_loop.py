"""Training by epochs, with checkpoints to resume from and early stopping on validation."""

import dataclasses
import logging
import math
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from tf_lift.config.model_sections import LearningRateDecay

logger = logging.getLogger(__name__)

_REPORTED = ("log_loss", "auc")  # Keras also reports the last batch's loss, which is noise


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When training stops.

    Attributes:
        num_epochs: most epochs.
        patience: epochs without a better validation loss before stopping.
    """

    num_epochs: int
    patience: int

    @classmethod
    def of_falling_rate(cls, num_epochs: int, patience: int, decay: LearningRateDecay) -> "Schedule":
        """Of a learning rate that falls where `decay` says so: then nothing stops before it has fallen."""
        return cls(num_epochs, patience if decay == "none" else num_epochs)


def build_learning_rate(
    peak: float, decay: LearningRateDecay, *, num_epochs: int, num_examples: int, batch_size: int
) -> float | tf.keras.optimizers.schedules.LearningRateSchedule:
    """What an optimizer takes as its learning rate.

    Args:
        peak: the rate, of the first step where it decays.
        decay: `cosine`: to 0 along half a cosine, after the last step of the last epoch; `none`: it stays.
        num_epochs: most epochs.
        num_examples: of an epoch. Its data set must know its number of batches: where it does not, Keras counts a step too many.
        batch_size: examples of a step.
    """
    if decay == "none":
        return peak
    return tf.keras.optimizers.schedules.CosineDecay(peak, num_epochs * -(-num_examples // batch_size))


class _EpochBar(tf.keras.callbacks.Callback):
    """A progress bar over the steps of an epoch."""

    def __init__(self, description: str, num_steps: int | None) -> None:
        super().__init__()
        self._bar = tqdm(total=num_steps, desc=description, unit="step", leave=False, mininterval=1.0)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._bar.update(1)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._bar.close()


def train_epochs(
    name: str,
    model: tf.keras.Model,
    train_data: Callable[[int], tf.data.Dataset],
    validate: Callable[[], dict[str, float]],
    schedule: Schedule,
    folder: Path,
    resume_from: Path | None,
) -> dict[str, list[float]]:
    """Trains until validation stops improving, and leaves the model with the weights of its best epoch.

    After every epoch a checkpoint is written, and a run that finds one goes on from it: same data, weights, optimizer and patience
    (dropout draws other numbers than it would have).

    Args:
        name: what is trained, for the log.
        model: a compiled model.
        train_data: the data set of an epoch, by its number.
        validate: metrics of the model as it is; `loss` decides.
        schedule: when to stop.
        folder: for checkpoints and TensorBoard logs.
        resume_from: the folder of an earlier run's, None to begin; the same for all workers of a strategy.

    Returns:
        History: a list a metric, one number an epoch; training's begin with "train_".

    Raises:
        ValueError: the validation loss is not finite.
    """
    run = _Run(name, model, folder)
    run.resume(resume_from)
    model.distribute_reduction_method = "first"  # a metric's result is that of all replicas, in each of them
    num_steps: int | None = None
    while run.num_epochs < schedule.num_epochs and run.num_epochs - 1 - run.best_epoch < schedule.patience:
        bar = _EpochBar(f"{name} epoch {run.num_epochs + 1}", num_steps)
        fitted = model.fit(train_data(run.num_epochs), epochs=1, verbose=0, callbacks=[bar])
        num_steps = fitted.params.get("steps")
        trained = {f"train_{key}": float(values[-1]) for key, values in fitted.history.items() if key in _REPORTED}
        metrics = {**trained, **validate()}
        if not math.isfinite(metrics["loss"]):
            raise ValueError(
                f"The validation loss must be a finite number. Received: {metrics['loss']} after epoch {run.num_epochs + 1} of "
                f"{name}. Lower its learning rate, or look for extreme values in the data."
            )
        run.finish_epoch(metrics)
    run.restore_best()
    return run.history()


class _Run:
    """The state of a training run, in its folder: checkpoints, TensorBoard logs and the history."""

    def __init__(self, name: str, model: tf.keras.Model, folder: Path) -> None:
        self._name, self._model, self._folder = name, model, folder
        self._epochs = tf.Variable(0, dtype=tf.int64)
        self._best = tf.Variable(float("inf"), dtype=tf.float64)
        self._best_epoch = tf.Variable(-1, dtype=tf.int64)
        self._latest = tf.train.Checkpoint(
            model=model, optimizer=model.optimizer, epochs=self._epochs, best=self._best, best_epoch=self._best_epoch
        )
        self._manager = tf.train.CheckpointManager(self._latest, str(folder / "latest"), max_to_keep=1)
        # Two: of the best epoch, and of one that seemed better and was killed before `latest` was written.
        weights = tf.train.Checkpoint(model=model)
        self._keeper = tf.train.CheckpointManager(weights, str(folder / "best"), max_to_keep=2)
        self._writer = tf.summary.create_file_writer(str(folder / "tensorboard"))

    @property
    def num_epochs(self) -> int:
        """Epochs done."""
        return int(self._epochs)

    @property
    def best_epoch(self) -> int:
        """The epoch of the lowest validation loss, -1 before the first."""
        return int(self._best_epoch)

    def resume(self, resume_from: Path | None) -> None:
        """Goes on from the latest checkpoint of a folder, if there is one."""
        earlier = tf.train.latest_checkpoint(str(resume_from / "latest")) if resume_from is not None else None
        if earlier:
            self._latest.restore(earlier).expect_partial()
            logger.info("%s: goes on after epoch %d", self._name, self.num_epochs)

    def finish_epoch(self, metrics: dict[str, float]) -> None:
        """Writes an epoch's metrics, and checkpoints; the `latest` one last, as it says that the epoch is done."""
        epoch = self.num_epochs
        with self._writer.as_default(step=epoch + 1):
            for key, value in metrics.items():
                tf.summary.scalar(key, value)
        self._writer.flush()
        self._epochs.assign_add(1)
        if metrics["loss"] < float(self._best):
            self._best.assign(metrics["loss"])
            self._best_epoch.assign(epoch)
            self._keeper.save(checkpoint_number=epoch)
        _append_history(self._folder / "history.tsv", epoch, metrics)
        self._manager.save(checkpoint_number=epoch)
        shown = ", ".join(f"{key} {value:.4f}" for key, value in metrics.items())
        logger.info("%s epoch %d: %s", self._name, epoch + 1, shown)

    def restore_best(self) -> None:
        """Gives the model the weights of its best epoch."""
        path = self._folder / "best" / f"ckpt-{self.best_epoch}"
        if path.with_name(f"{path.name}.index").is_file():
            tf.train.Checkpoint(model=self._model).restore(str(path)).expect_partial()

    def history(self) -> dict[str, list[float]]:
        """A list a metric, one number an epoch."""
        return _read_history(self._folder / "history.tsv", self.num_epochs)


def _append_history(path: Path, epoch: int, metrics: dict[str, float]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("\t".join([str(epoch), *(f"{key}={value!r}" for key, value in metrics.items())]) + "\n")


def _read_history(path: Path, num_epochs: int) -> dict[str, list[float]]:
    """The last line of each epoch: one that was cut off before its checkpoint was written is there twice."""
    rows: dict[int, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        epoch, *cells = line.split("\t")
        rows[int(epoch)] = {key: float(value) for key, value in (cell.split("=") for cell in cells)}
    kept = [rows[epoch] for epoch in range(num_epochs) if epoch in rows]
    return {key: [row[key] for row in kept] for key in (kept[0] if kept else {})}
