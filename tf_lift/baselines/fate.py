"""FATE (Wu et al., "Towards Open-World Feature Extrapolation: An Inductive Graph Learning Approach", NeurIPS 2021)."""

import dataclasses

import tensorflow as tf

from tf_lift.baselines.peer import check_setting, join_fields
from tf_lift.baselines.pool_peer import PoolPeer, PoolPeerSettings
from tf_lift.baselines.value_rows import ValueRows
from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore, Window
from tf_lift.layers.logit_mlp import LogitMLP
from tf_lift.schema import FIRST_VALUE_ID


@dataclasses.dataclass(frozen=True)
class FATESettings(PoolPeerSettings):
    """Settings of FATE."""

    num_rows: int = 8
    """Newest rows of a value that send it messages."""
    hidden_rate: float = 0.3
    """Share of the values whose own embedding is hidden in training, so that they must be told by their rows alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_setting("num_rows", self.num_rows, 1, 1 << 10)
        check_setting("hidden_rate", self.hidden_rate, 0.0, 1.0)


class FATE(PoolPeer):
    """Embeddings of values by messages between the rows of the log and the values that they hold.

    One round on the bipartite graph: a row is the mean of the embeddings of its values; a value is a linear map of its own embedding
    plus one of the mean of its rows; and an MLP reads a candidate's values. A value that training did not know has no embedding of
    its own and is extrapolated from its rows, which are those strictly before the slate's time. In training values are hidden by
    chance to learn that, as the paper does by its training on subsets of the features.

    Differences from the paper: the graph is as of each slate's time; each value's newest rows in the place of all of them, or of a
    random batch; a row's message to a value leaves out that value itself; the MLP reads the fields side by side, not their sum.
    """

    settings: FATESettings

    def __init__(
        self, settings: FATESettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        fields, times = datastore.fields.numpy(), datastore.times.numpy()
        self._value_rows = [ValueRows(fields[:, field], times) for field in range(fields.shape[1])]
        self._is_shared = [field.entity != "item" for field in config.schema.fields]  # one value for a slate
        width = settings.embedding_dim
        self._own = [tf.keras.layers.Dense(width, name=f"own_{name}") for name in config.schema.names]
        self._message = [tf.keras.layers.Dense(width, name=f"message_{name}") for name in config.schema.names]
        self._mlp = LogitMLP(settings.hidden_dims, settings.dropout_rate, name="mlp")

    def logits(self, slate: dict[str, tf.Tensor], history: Window, training: bool | None) -> tf.Tensor:
        """See `Peer.logits`; the history is not read."""
        fields = slate["fields"]
        known = (fields >= FIRST_VALUE_ID) & (fields < tf.constant(self.info.num_train_ids))
        if training:
            known &= tf.random.uniform(tf.shape(fields)) >= self.settings.hidden_rate
        embedded = tf.where(known[..., None], self.embedding(fields), 0.0)  # [B, C, M, w]
        values = []
        for field, (own, message) in enumerate(zip(self._own, self._message, strict=True)):
            asked = fields[:, :1, field] if self._is_shared[field] else fields[..., field]
            rows = self.row_messages(field, asked, slate["time"])
            values.append(tf.nn.relu(own(embedded[..., field, :]) + message(rows)))
        return self._mlp(tf.concat([join_fields(embedded), *values], axis=-1), training=training)

    def row_messages(self, field: int, values: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
        """The mean of the rows of values, float32 [B, C, w]: zeros where there are none.

        Args:
            field: of the M, the values' own.
            values: int32 [B, C] ids.
            times: int64 [B] as-of times.
        """
        rows = self._value_rows[field].newest(values, times, self.settings.num_rows)
        others = self.embedding(tf.gather(self.datastore.fields, tf.maximum(rows, 0)))  # [B, C, R, M, w]
        is_other = tf.one_hot(field, others.shape[-2], on_value=0.0, off_value=1.0)
        of_rows = tf.einsum("bcrmw,m->bcrw", others, is_other) / float(max(others.shape[-2] - 1, 1))
        found = tf.cast(rows >= 0, tf.float32)
        number = tf.maximum(tf.reduce_sum(found, axis=-1, keepdims=True), 1.0)
        return tf.einsum("bcrw,bcr->bcw", of_rows, found) / number
