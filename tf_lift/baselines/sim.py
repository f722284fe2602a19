"""SIM (Pi et al., "Search-based User Interest Modeling with Lifelong Sequential Behavior Data", CIKM 2020)."""

import dataclasses

import tensorflow as tf

from tf_lift.baselines.search_peer import SearchPeer, SearchSettings
from tf_lift.config import Config
from tf_lift.data.dataset_info import DatasetInfo
from tf_lift.datastore import Datastore, Window
from tf_lift.schema import PADDING_ID


@dataclasses.dataclass(frozen=True)
class SIMSettings(SearchSettings):
    """Settings of SIM."""


class SIM(SearchPeer):
    """Hard search: the newest rows of the user's long history whose item is of the candidate's category (eq. 1, hard-search).

    Then multi-head attention of the candidate to these rows, each with the time that has passed since (the exact search unit),
    and to the last `context_length` rows (the short-term interest). The category is the first field of the item that is not its
    key; without one it is the item itself.

    Differences from the paper: attention over the short history in the place of DIEN; rows of every behaviour, the behaviour being
    a part of the row; the number of hits as an input; the first stage's own loss, which only soft search needs, is not there.
    """

    settings: SIMSettings

    def __init__(
        self, settings: SIMSettings, config: Config, info: DatasetInfo, datastore: Datastore, name: str
    ) -> None:
        super().__init__(settings, config, info, datastore, name)
        schema = config.schema
        others = [index for index in schema.indices("item") if index != schema.item_index]
        self._category = others[0] if others else schema.item_index
        self._short_attention = self.build_attention("short_attention")

    def relevance(self, fields: tf.Tensor, rows: Window) -> tf.Tensor:
        """See `SearchPeer.relevance`: 1 for a row of the candidate's category."""
        wanted = fields[..., self._category, None]  # [B, C, 1]
        same = (rows.fields[:, None, :, self._category] == wanted) & (wanted != PADDING_ID)
        return tf.cast(same, tf.float32)

    def interests(
        self, target: tf.Tensor, slate: dict[str, tf.Tensor], history: Window, training: bool | None
    ) -> list[tf.Tensor]:
        """See `SearchPeer.interests`: the short-term interest beside the long-term one."""
        places = tf.concat([tf.shape(target)[:2], [self.datastore.context_length]], 0)
        visible = tf.broadcast_to(history.mask[:, None], places)
        short = self.embed_rows(history, slate["time"])
        return [
            *super().interests(target, slate, history, training),
            self.attend(self._short_attention, target, short, visible, training),
        ]
