"""Stage `encode`: the state of every position of the log (eq. 11)."""

import logging
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_lift.data.dataset_files import Dataset, open_dataset
from tf_lift.data.masking import label_ids
from tf_lift.datastore import Datastore, build_datastore
from tf_lift.interactions import InteractionLog
from tf_lift.models.pretrainer import Pretrainer
from tf_lift.pretrain import build_pretrainer, read_encoder
from tf_lift.workspace import Workspace

logger = logging.getLogger(__name__)

_STATES = "states.npy"
_BATCH_SIZE = 256  # windows whose states fit a core's cache: of 4096, each takes half as long again
_BATCH_SIZE_ON_GPU = 4096  # there the launches count


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
        np.save(folder / _STATES, encode_positions(model, dataset.log, datastore))


def encode_positions(model: Pretrainer, log: InteractionLog, datastore: Datastore) -> np.ndarray:
    """States of all positions.

    A user's first L positions are encoded at once, as the states of the rows of one window, unless rows see later ones; every other
    position is the last of a window of its own.

    Args:
        model: the pretrained encoder.
        log: the log.
        datastore: the same as tensors.

    Returns:
        float16 [P, v]; zeros where nothing precedes a position.
    """
    encoder, length = model.encoder, datastore.context_length

    @tf.function(reduce_retracing=True)
    def encode(first_rows: tf.Tensor, num_rows: tf.Tensor, of_all_rows: bool) -> tf.Tensor:
        window = datastore.window(first_rows, num_rows)
        inputs = window.fields, label_ids(window.behaviours, window.mask), window.mask
        encoded = encoder.encode_rows(*inputs, training=False) if of_all_rows else encoder.encode_last(*inputs)
        return tf.cast(encoded, tf.float16)

    states = np.zeros((log.num_positions, model.config.encoder.state_dim), np.float16)
    starts = log.user_starts[:-1]
    nowhere = starts + np.arange(log.num_users) + 1  # each user's position without rows
    is_left = np.ones(log.num_positions, bool)
    is_left[0] = False
    is_left[nowhere] = False
    places = np.arange(length)
    if encoder.config.kind != "bidirectional":
        counts = np.minimum(np.diff(log.user_starts), length).astype(np.int32)
        for users in _batches(log.num_users, "encode users"):
            rows = encode(tf.constant(starts[users]), tf.constant(counts[users]), of_all_rows=True).numpy()
            mask = places < counts[users, None]
            positions = (nowhere[users, None] + 1 + places)[mask]
            states[positions], is_left[positions] = rows[mask], False
    left = np.flatnonzero(is_left)
    firsts, counts = log.windows_at(left, length)
    for part in _batches(len(left), "encode positions"):
        num_rows = tf.constant(counts[part].astype(np.int32))
        states[left[part]] = encode(tf.constant(firsts[part]), num_rows, of_all_rows=False).numpy()
    return states


def _batches(count: int, description: str) -> Iterator[slice]:
    """Slices of so many things, with a progress bar."""
    size = _BATCH_SIZE_ON_GPU if tf.config.list_logical_devices("GPU") else _BATCH_SIZE
    for first in tqdm(range(0, count, size), desc=description, unit="batch", mininterval=1.0):
        yield slice(first, first + size)


def read_datastore(workspace: Workspace, dataset: Dataset) -> Datastore:
    """The log with its states.

    Raises:
        ValueError: the states are missing or stale.
    """
    workspace.check_fresh("encode")
    states = np.load(workspace.stage_dir("encode") / _STATES)
    return build_datastore(dataset.log, states, workspace.config.retrieval.context_length)
