"""The one definition of an example: Beam writes with it, tf.data reads with it, the signature parses with it.

An example is a slate (DESIGN.md section 3): a user at a time, C candidates, and K neighbours and S' match statistics for
each candidate. Ids are those of the vocabularies as of the slate's time: a value that had not appeared is UNKNOWN_ID.

Rows are named by their time ranks (`InteractionLog`), not by their ids: later interactions then leave an example's bytes as they
are. `RowReferences.resolve` makes rows and positions of them.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tf_lift.config import Config
from tf_lift.schema import PADDING_ID

NO_RANK = -1  # in the place of a time rank where there is no row


@dataclasses.dataclass(frozen=True)
class ExampleSpec:
    """Names, shapes and types of an example's features.

    | feature | type | shape |
    | --- | --- | --- |
    | `time` | int64, epoch seconds | [] |
    | `rank` | int64, time rank of the target, -1 for a request | [] |
    | `history_rank` | int64, time rank of the user's last row strictly before `time`, -1 if there is none | [] |
    | `field/<name>` | int64 id; [C] for item fields, [] for the others | |
    | `label` | int64 | [C] |
    | `neighbour/rank` | int64 time rank, -1 where there is none | [C, K] |
    | `neighbour/score` | float32 BM25 | [C, K] |
    | `neighbour/num_future` | int64, visible rows of its future | [C, K] |
    | `match/count`, `match/positives` | int64 | [C, S'] |

    Attributes:
        shared_fields: names of the user and context fields.
        candidate_fields: names of the item fields, its key first: a place without a key is padding.
        field_names: names of all M fields, in order.
        num_neighbours: K.
        num_statistics: S'.
    """

    shared_fields: tuple[str, ...]
    candidate_fields: tuple[str, ...]
    field_names: tuple[str, ...]
    num_neighbours: int
    num_statistics: int

    def parsing_spec(self) -> dict[str, tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature]:
        """What `tf.io.parse_example` takes; lists come back padded to the longest slate of the batch."""
        scalar = tf.io.FixedLenFeature([], tf.int64)
        spec: dict[str, tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature] = {
            "time": scalar,
            "rank": scalar,
            "history_rank": scalar,
        }
        spec |= {f"field/{name}": scalar for name in self.shared_fields}
        spec |= {f"field/{name}": _list_feature(tf.int64, PADDING_ID) for name in self.candidate_fields}
        spec["label"] = _list_feature(tf.int64, 0)
        spec["neighbour/rank"] = _list_feature(tf.int64, NO_RANK)
        spec["neighbour/score"] = _list_feature(tf.float32, 0.0)
        spec["neighbour/num_future"] = _list_feature(tf.int64, 0)
        spec["match/count"] = _list_feature(tf.int64, 0)
        spec["match/positives"] = _list_feature(tf.int64, 0)
        return spec

    def parse(self, serialized: tf.Tensor) -> dict[str, tf.Tensor]:
        """Parses a batch of serialized examples.

        Args:
            serialized: string [B].

        Returns:
            `time`, `rank`, `history_rank` int64 [B]; `fields` int32 [B, C, M]; `label` float32 [B, C];
            `mask` bool [B, C], True where a candidate is real; `neighbour_ranks` int32 [B, C, K];
            `neighbour_scores` float32 [B, C, K]; `neighbour_num_future` int32 [B, C, K];
            `match_counts` and `match_positives` int32 [B, C, S'].
        """
        parsed = tf.io.parse_example(serialized, self.parsing_spec())
        first = parsed[f"field/{self.candidate_fields[0]}"]
        batch, num_candidates = tf.unstack(tf.shape(first))
        columns = [
            parsed[f"field/{name}"]
            if name in self.candidate_fields
            else tf.broadcast_to(parsed[f"field/{name}"][:, None], tf.shape(first))
            for name in self.field_names
        ]

        def grid(name: str, width: int, dtype: tf.DType) -> tf.Tensor:
            return tf.cast(tf.reshape(parsed[name], [batch, num_candidates, width]), dtype)

        return {
            "time": parsed["time"],
            "rank": parsed["rank"],
            "history_rank": parsed["history_rank"],
            "fields": tf.cast(tf.stack(columns, axis=-1), tf.int32),
            "label": tf.cast(parsed["label"], tf.float32),
            "mask": first != PADDING_ID,
            "neighbour_ranks": grid("neighbour/rank", self.num_neighbours, tf.int32),
            "neighbour_scores": grid("neighbour/score", self.num_neighbours, tf.float32),
            "neighbour_num_future": grid("neighbour/num_future", self.num_neighbours, tf.int32),
            "match_counts": grid("match/count", self.num_statistics, tf.int32),
            "match_positives": grid("match/positives", self.num_statistics, tf.int32),
        }

    def serialize(self, slate: Mapping[str, np.ndarray]) -> bytes:
        """Serializes one slate, with the names and shapes of `parse` without the batch axis (and without `mask`)."""
        fields = {name: slate["fields"][:, index] for index, name in enumerate(self.field_names)}
        values = {name: slate[name] for name in ("time", "rank", "history_rank")}
        values |= {f"field/{name}": fields[name][:1] for name in self.shared_fields}
        values |= {f"field/{name}": fields[name] for name in self.candidate_fields}
        values["label"] = slate["label"]
        values["neighbour/rank"] = slate["neighbour_ranks"]
        values["neighbour/num_future"] = slate["neighbour_num_future"]
        values["match/count"] = slate["match_counts"]
        values["match/positives"] = slate["match_positives"]
        features = {
            name: tf.train.Feature(int64_list=tf.train.Int64List(value=np.ravel(value).tolist()))
            for name, value in values.items()
        }
        scores = np.ravel(slate["neighbour_scores"]).tolist()
        features["neighbour/score"] = tf.train.Feature(float_list=tf.train.FloatList(value=scores))
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def build_example_spec(config: Config, num_statistics: int) -> ExampleSpec:
    """The spec of a configuration's examples.

    Args:
        config: the configuration.
        num_statistics: S', from `DatasetInfo.statistic_sets`.
    """
    schema = config.schema
    others = [index for index in schema.indices("item") if index != schema.item_index]
    candidate = tuple(schema.names[index] for index in [schema.item_index, *others])
    return ExampleSpec(
        tuple(name for name in schema.names if name not in candidate),
        candidate,
        schema.names,
        config.retrieval.num_neighbours,
        num_statistics,
    )


def _list_feature(dtype: tf.DType, default: float) -> tf.io.FixedLenSequenceFeature:
    return tf.io.FixedLenSequenceFeature([], dtype, allow_missing=True, default_value=default)
