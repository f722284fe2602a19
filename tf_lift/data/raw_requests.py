"""Examples as the requests that a client would send: raw identifiers."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tf_lift.data.dataset_files import Dataset
from tf_lift.schema import PADDING_ID, UNKNOWN_ID


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

    def names(index: int, ids: np.ndarray) -> np.ndarray:
        return np.array([vocabularies[index].value(int(value)) for value in ids.reshape(-1)], object).reshape(ids.shape)

    request = {"user": names(schema.user_index, own[:, schema.user_index]), "candidates": names(item, candidates)}
    request["time"] = slate["time"].numpy()
    for index in schema.indices("context"):
        request[schema.names[index]] = names(index, own[:, index])
    return request
