"""Examples and rows of the log as the requests that a client would send: raw identifiers."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tf_lift.config import Behaviour
from tf_lift.data.dataset_files import Dataset
from tf_lift.schema import HISTORY_PREFIX, PADDING_ID, UNKNOWN_ID
from tf_lift.vocabulary import Vocabulary


def build_request(dataset: Dataset, slate: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
    """The raw ids of parsed examples, as `rank_known_user` takes them.

    Args:
        dataset: the data set.
        slate: what `RowReferences.resolve` returned.

    Returns:
        `user` string [B], `candidates` string [B, C], `time` int64 [B], and each context field string [B]. A drawn candidate that was
        new at its slate's time (protocol rim) is left as padding: the example does not say which item it was.
    """
    schema, vocabularies = dataset.config.schema, dataset.info.vocabularies
    fields, rows = slate["fields"].numpy(), slate["row"].numpy()
    item = schema.item_index
    # The example's ids are as of its time; a value that was new then is taken from the log's own row.
    own = dataset.log.fields[rows]
    candidates = fields[:, :, item].copy()
    candidates[:, 0] = np.where(candidates[:, 0] == UNKNOWN_ID, own[:, item], candidates[:, 0])
    candidates[:, 1:][candidates[:, 1:] == UNKNOWN_ID] = PADDING_ID

    user = schema.user_index
    request = {
        "user": _values(vocabularies[user], own[:, user]),
        "candidates": _values(vocabularies[item], candidates),
        "time": slate["time"].numpy(),
    }
    for index in schema.indices("context"):
        request[schema.names[index]] = _values(vocabularies[index], own[:, index])
    return request


def build_history(dataset: Dataset, positions: np.ndarray, max_rows: int) -> dict[str, np.ndarray]:
    """The last rows before positions, as `rank` takes a history, and the user's attributes left to the log.

    Args:
        dataset: the data set.
        positions: int64 [B].
        max_rows: H.

    Returns:
        `history_items` and `history_behaviours` string, `history_times` int64 [B, H]; `history_<name>` string [B, H] for each
        context field; and "" [B] for each of the user's attributes.
    """
    schema, vocabularies, log = dataset.config.schema, dataset.info.vocabularies, dataset.log
    first, count = log.windows_at(positions, max_rows)
    places = np.arange(max_rows)
    mask = places < count[:, None]
    rows = np.where(mask, first[:, None] + places, 0)
    texts = np.array(
        [_behaviour_text(dataset.config.behaviour, value) for value in log.behaviour[rows].reshape(-1)], object
    )
    history = {
        "history_items": _values(vocabularies[schema.item_index], log.fields[rows, schema.item_index]),
        "history_behaviours": texts.reshape(rows.shape),
        "history_times": np.where(mask, log.time[rows], 0),
    }
    for index in schema.indices("context"):
        history[HISTORY_PREFIX + schema.names[index]] = _values(vocabularies[index], log.fields[rows, index])
    for name, values in history.items():
        if values.dtype == object:
            history[name] = np.where(mask, values, "")
    attributes = [schema.names[index] for index in schema.indices("user") if index != schema.user_index]
    return history | {name: np.full(len(positions), "", object) for name in attributes}


def _values(vocabulary: Vocabulary, ids: np.ndarray) -> np.ndarray:
    """Strings of ids, of the same shape."""
    return np.array([vocabulary.value(int(value)) for value in ids.reshape(-1)], object).reshape(ids.shape)


def _behaviour_text(behaviour: Behaviour, value: int) -> str:
    """A cell of the log that has a class."""
    if behaviour.kind == "classes":
        return next(text for text, number in behaviour.classes.items() if number == value)
    if behaviour.kind == "threshold":
        return str(behaviour.threshold if value == 1 else behaviour.threshold - 1)
    return str(value)
