"""Training by epochs, with checkpoints to resume from and early stopping on validation."""

import dataclasses
import logging
import math
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

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
    epochs = tf.Variable(0, dtype=tf.int64)
    best = tf.Variable(float("inf"), dtype=tf.float64)
    best_epoch = tf.Variable(-1, dtype=tf.int64)
    latest = tf.train.Checkpoint(
        model=model, optimizer=model.optimizer, epochs=epochs, best=best, best_epoch=best_epoch
    )
    manager = tf.train.CheckpointManager(latest, str(folder / "latest"), max_to_keep=1)
    # Two: of the best epoch, and of one that seemed better and was killed before `latest` was written.
    keeper = tf.train.CheckpointManager(tf.train.Checkpoint(model=model), str(folder / "best"), max_to_keep=2)
    history_file = folder / "history.tsv"
    earlier = tf.train.latest_checkpoint(str(resume_from / "latest")) if resume_from is not None else None
    if earlier:
        latest.restore(earlier).expect_partial()
        logger.info("%s: goes on after epoch %d", name, int(epochs))
    model.distribute_reduction_method = "first"  # a metric's result is that of all replicas, in each of them
    writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
    num_steps: int | None = None
    while int(epochs) < schedule.num_epochs and int(epochs) - 1 - int(best_epoch) < schedule.patience:
        epoch = int(epochs)
        bar = _EpochBar(f"{name} epoch {epoch + 1}", num_steps)
        fitted = model.fit(train_data(epoch), epochs=1, verbose=0, callbacks=[bar])
        num_steps = fitted.params.get("steps")
        trained = {f"train_{key}": float(values[-1]) for key, values in fitted.history.items() if key in _REPORTED}
        metrics = {**trained, **validate()}
        if not math.isfinite(metrics["loss"]):
            raise ValueError(
                f"The validation loss must be a finite number. Received: {metrics['loss']} after epoch {epoch + 1} of {name}. Lower its "
                "learning rate, or look for extreme values in the data."
            )
        with writer.as_default(step=epoch + 1):
            for key, value in metrics.items():
                tf.summary.scalar(key, value)
        writer.flush()
        epochs.assign_add(1)
        if metrics["loss"] < float(best):
            best.assign(metrics["loss"])
            best_epoch.assign(epoch)
            keeper.save(checkpoint_number=epoch)
        _append_history(history_file, epoch, metrics)
        manager.save(checkpoint_number=epoch)
        logger.info(
            "%s epoch %d: %s", name, epoch + 1, ", ".join(f"{key} {value:.4f}" for key, value in metrics.items())
        )
    best_path = folder / "best" / f"ckpt-{int(best_epoch)}"
    if best_path.with_name(f"{best_path.name}.index").is_file():
        tf.train.Checkpoint(model=model).restore(str(best_path)).expect_partial()
    return _read_history(history_file, int(epochs))


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
