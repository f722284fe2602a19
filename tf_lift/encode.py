"""Stage `encode`: the state of every position of the log (eq. 11)."""

import logging
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.masking import label_ids
from tf_lift.datastore import Datastore, build_datastore
from tf_lift.models.pretrainer import Pretrainer
from tf_lift.pretrain import build_pretrainer, read_encoder
from tf_lift.workspace import Workspace

logger = logging.getLogger(__name__)

_STATES = "states.npy"
_BATCH_SIZE = 256  # windows whose states fit a core's cache: of 4096, each takes half as long again


def run(workspace: Workspace) -> None:
    """Encodes the log and writes the datastore's states, unless fresh ones are there.

    Raises:
        ValueError: the data set or the encoder is missing or stale.
    """
    if workspace.is_fresh("encode"):
        logger.info("encode: %s is up to date", workspace.stage_dir("encode"))
        return
    workspace.check_fresh("pretrain")
    dataset = open_dataset(workspace)
    datastore = build_datastore(dataset.log, None, workspace.config.retrieval.context_length)
    model = build_pretrainer(dataset, datastore)
    read_encoder(model, workspace.stage_dir("pretrain"))
    manifest: dict[str, int] = {"positions": dataset.log.num_positions}
    with workspace.writing("encode", manifest) as folder:
        np.save(folder / _STATES, encode_positions(model, datastore, dataset.log.num_positions))


def encode_positions(model: Pretrainer, datastore: Datastore, num_positions: int) -> np.ndarray:
    """States of all positions.

    A user's first L positions are encoded at once, as the states of the rows of one window, unless rows see later ones; every other
    position is the last of a window of its own.

    Args:
        model: the pretrained encoder.
        datastore: the log.
        num_positions: P.

    Returns:
        float16 [P, v]; zeros where nothing precedes a position.
    """
    encoder, length = model.encoder, datastore.context_length

    @tf.function(reduce_retracing=True)
    def encode_rows(positions: tf.Tensor) -> tf.Tensor:
        window = datastore.history(positions)
        labels = label_ids(window.behaviours, window.mask)
        return tf.cast(encoder.encode_rows(window.fields, labels, window.mask, training=False), tf.float16)

    @tf.function(reduce_retracing=True)
    def encode_last(positions: tf.Tensor) -> tf.Tensor:
        window = datastore.history(positions)
        return tf.cast(
            encoder.encode_last(window.fields, label_ids(window.behaviours, window.mask), window.mask), tf.float16
        )

    starts = datastore.user_starts.numpy()
    firsts = starts[:-1] + np.arange(len(starts) - 1) + 1  # each user's position without rows
    states = np.zeros((num_positions, model.config.encoder.state_dim), np.float16)
    is_left = np.ones(num_positions, bool)
    is_left[0] = False
    is_left[firsts] = False
    if encoder.config.kind != "bidirectional":
        num_rows = np.minimum(np.diff(starts), length)
        for users in _batches(np.arange(len(firsts)), "encode users"):
            rows = encode_rows(tf.constant(firsts[users] + num_rows[users])).numpy()
            places = np.arange(length)
            mask = places < num_rows[users, None]
            positions = (firsts[users, None] + 1 + places)[mask]
            states[positions], is_left[positions] = rows[mask], False
    for positions in _batches(np.flatnonzero(is_left), "encode positions"):
        states[positions] = encode_last(tf.constant(positions)).numpy()
    return states


def _batches(items: np.ndarray, description: str) -> Iterator[np.ndarray]:
    """Parts of an array, with a progress bar."""
    parts = np.split(items, np.arange(_BATCH_SIZE, len(items), _BATCH_SIZE)) if len(items) else []
    yield from tqdm(parts, desc=description, unit="batch", mininterval=1.0)


def read_datastore(workspace: Workspace, dataset: Dataset) -> Datastore:
    """The log with its states.

    Raises:
        ValueError: the states are missing or stale.
    """
    workspace.check_fresh("encode")
    states = np.load(workspace.stage_dir("encode") / _STATES)
    return build_datastore(dataset.log, states, workspace.config.retrieval.context_length)
