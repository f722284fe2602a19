"""Stage `pretrain`: the encoder learns to tell hidden behaviours (eqs. 9 and 10), and next items if configured."""

import json
import logging
from pathlib import Path

import numpy as np
import tensorflow as tf

from tf_lift.config import Config
from tf_lift.data.dataset import window_batches
from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.windows import read_windows
from tf_lift.datastore import Datastore, build_datastore
from tf_lift.models.encoder import Encoder
from tf_lift.models.pretrainer import Pretrainer
from tf_lift.schema import FIRST_VALUE_ID
from tf_lift.strategy import build_strategy, worker_index
from tf_lift.training_loop import Schedule, build_learning_rate, train_epochs
from tf_lift.workspace import Progress, Workspace

logger = logging.getLogger(__name__)

_VALIDATION_SHARE = 0.05  # of the windows, drawn by the seed, to stop pretraining by
_WEIGHTS = "weights"


def run(workspace: Workspace) -> None:
    """Pretrains the encoder and writes it, unless a fresh one is there.

    Args:
        workspace: the configuration's folders.

    Raises:
        ValueError: the data set is missing or stale.
    """
    if workspace.is_fresh("pretrain"):
        logger.info("pretrain: %s is up to date", workspace.stage_dir("pretrain"))
        return
    dataset = open_dataset(workspace)
    config = workspace.config
    strategy = build_strategy(config.training)
    tf.keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        model = build_pretrainer(dataset, build_datastore(dataset.log, None, config.retrieval.context_length))
    with workspace.training("pretrain", worker_index(config.training)) as progress:
        history = _train(model, dataset, progress) if config.pretraining.enabled else {}
        with progress.finish({"epochs": len(history.get("loss", []))}) as folder:
            write_encoder(model, folder)
            (folder / "history.json").write_text(json.dumps(history, indent=1), encoding="utf-8")


def build_pretrainer(dataset: Dataset, datastore: Datastore) -> Pretrainer:
    """Builds the pretrainer, with its variables.

    Args:
        dataset: the data set.
        datastore: its log; the states are not read.
    """
    config, schema = dataset.config, dataset.config.schema
    encoder = Encoder(
        config.encoder,
        dataset.info.num_pool_ids,
        config.behaviour.num_classes,
        config.retrieval.context_length,
        field_indices=config.encoded_indices,
    )
    table = np.concatenate([np.zeros((FIRST_VALUE_ID, len(schema)), np.int32), dataset.info.entity_fields["item"]])
    in_pool = (dataset.log.time < dataset.info.boundaries.train_from) & ~dataset.log.synthetic
    popular = dataset.log.fields[in_pool, schema.item_index]
    num_pool_items = dataset.info.num_pool_ids[schema.item_index]
    model = Pretrainer(
        encoder,
        config,
        datastore,
        tf.constant(table[:num_pool_items]),
        tf.constant(popular),
    )
    model(
        {
            "first_row": tf.zeros([1], tf.int32),
            "num_rows": tf.ones([1], tf.int32),
            "noise": tf.zeros([1, model.window_length, model.noise_width]),
        }
    )
    return model


def write_encoder(model: Pretrainer, folder: Path) -> None:
    """Writes the weights of the encoder and its heads."""
    _checkpoint(model).write(str(folder / _WEIGHTS))


def read_encoder(model: Pretrainer, folder: Path) -> None:
    """Reads what `write_encoder` wrote into a built model."""
    _checkpoint(model).read(str(folder / _WEIGHTS)).assert_existing_objects_matched()


def _checkpoint(model: Pretrainer) -> tf.train.Checkpoint:
    parts = {"encoder": model.encoder, "head": model.head}
    if model.next_item is not None:
        parts |= {"next_item_encoder": model.next_item.encoder, "next_item_head": model.next_item.head}
        if model.next_item.cross is not None:
            parts["next_item_cross"] = model.next_item.cross
    return tf.train.Checkpoint(**parts)


def _train(model: Pretrainer, dataset: Dataset, progress: Progress) -> dict[str, list[float]]:
    config: Config = dataset.config
    first, count = read_windows(dataset.dataset_dir / "windows.tfrecord")
    if not len(first):
        raise ValueError(
            "Pretraining needs windows of two interactions or more in the pool. Received: none. Move split.train_from, or set "
            "pretraining.enabled = false."
        )
    held_out = np.random.default_rng(config.seed).random(len(first)) < _VALIDATION_SHARE
    if held_out.all() or not held_out.any():
        held_out = np.arange(len(first)) == 0  # too few windows to share out
    train = ~held_out if len(first) > 1 else held_out
    section = config.pretraining
    with model.distribute_strategy.scope():
        rate = build_learning_rate(
            section.learning_rate,
            section.learning_rate_decay,
            num_epochs=section.num_epochs,
            num_examples=int(train.sum()),
            batch_size=section.batch_size,
        )
        model.compile(optimizer=tf.keras.optimizers.Adam(rate))

    def batches(chosen: np.ndarray, seed: int, shuffle: bool) -> tf.data.Dataset:
        shape, size = (model.window_length, model.noise_width), config.pretraining.batch_size
        return window_batches(first[chosen], count[chosen], shape, size, seed, shuffle)

    def validate() -> dict[str, float]:
        metrics = model.evaluate(batches(held_out, config.seed, False), verbose=0, return_dict=True)
        loss = metrics["log_loss"] + config.pretraining.next_item_weight * metrics.get("next_item_loss", 0.0)
        return {"loss": loss} | {name: metrics[name] for name in ("auc", "next_item_loss") if name in metrics}

    return train_epochs(
        "pretrain",
        model,
        lambda epoch: batches(train, config.seed * 1000 + epoch, True),
        validate,
        Schedule.of_falling_rate(section.num_epochs, section.patience, section.learning_rate_decay),
        progress.folder,
        progress.resume_from,
    )
