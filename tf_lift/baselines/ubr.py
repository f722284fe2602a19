"""UBR4CTR (Qin et al., "User Behavior Retrieval for Click-Through Rate Prediction", SIGIR 2020)."""

import dataclasses

import numpy as np
import tensorflow as tf

from tf_lift.baselines.search_peer import SearchPeer, SearchSettings
from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore, Window
from tf_lift.retrieval.bm25 import idf_units, score_from_units
from tf_lift.schema import FIRST_VALUE_ID


@dataclasses.dataclass(frozen=True)
class UBRSettings(SearchSettings):
    """Settings of UBR4CTR."""


class UBR(SearchPeer):
    """BM25 search of the user's own history with the candidate's fields, then attention of the candidate to the best rows.

    The query is every field of retrieval that does not describe the user, for that is the same in all rows of the history. A row's
    score is the sum of the idf of the fields that it shares with the candidate (BM25 where every field has one value); idf is
    of the pool before train.

    Differences from the paper: all fields are the query, where the paper chooses some by self-attention that REINFORCE trains;
    multi-head attention in the place of one learnt by an MLP; behaviour and age are parts of a row.
    """

    settings: UBRSettings

    def __init__(
        self, settings: UBRSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        schema = config.schema
        self._query = [index for index in schema.query_indices if index not in schema.indices("user")]
        pool = datastore.fields.numpy()[datastore.times.numpy() < info.boundaries.train_from]
        self._idf = []  # a table of each query field
        for index in self._query:
            counts = np.bincount(pool[:, index], minlength=info.vocabularies[index].num_ids)
            idf = score_from_units(idf_units(np.array(len(pool)), counts, config.retrieval.idf))
            idf[:FIRST_VALUE_ID] = 0.0  # no value, or one that nobody had yet, is no match
            self._idf.append(tf.constant(idf))

    def relevance(self, fields: tf.Tensor, rows: Window) -> tf.Tensor:
        """See `SearchPeer.relevance`: BM25."""
        scores = tf.zeros([1, 1, 1])
        for index, idf in zip(self._query, self._idf, strict=True):
            wanted = fields[..., index]  # [B, C]
            same = wanted[..., None] == rows.fields[:, None, :, index]
            scores += tf.where(same, tf.gather(idf, wanted)[..., None], 0.0)
        return scores
