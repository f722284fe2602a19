"""Stage `encode`: the state of every position of the log (eq. 11)."""

import logging

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
_BATCH_SIZE = 4096


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

    Args:
        model: the pretrained encoder.
        datastore: the log.
        num_positions: P.

    Returns:
        float16 [P, v]; zeros where nothing precedes a position.
    """

    @tf.function(reduce_retracing=True)
    def encode(positions: tf.Tensor) -> tf.Tensor:
        window = datastore.history(positions)
        labels = label_ids(window.behaviours, window.mask)
        rows = model.encoder.encode_rows(window.fields, labels, window.mask, training=False)
        return tf.cast(model.encoder.last_states(rows, window.num_rows), tf.float16)

    states = np.zeros((num_positions, model.config.encoder.state_dim), np.float16)
    for first in tqdm(range(0, num_positions, _BATCH_SIZE), desc="encode", unit="batch", mininterval=1.0):
        positions = np.arange(first, min(first + _BATCH_SIZE, num_positions))
        states[positions] = encode(tf.constant(positions)).numpy()
    return states


def read_datastore(workspace: Workspace, dataset: Dataset) -> Datastore:
    """The log with its states.

    Raises:
        ValueError: the states are missing or stale.
    """
    workspace.check_fresh("encode")
    states = np.load(workspace.stage_dir("encode") / _STATES)
    return build_datastore(dataset.log, states, workspace.config.retrieval.context_length)
