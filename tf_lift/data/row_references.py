"""From the time ranks that examples hold to rows and positions of the log as it stands."""

import dataclasses
from collections.abc import Mapping

import tensorflow as tf

from tf_lift.interactions import NO_ROW, InteractionLog


@dataclasses.dataclass(frozen=True)
class RowReferences:
    """Resolves the time ranks of parsed examples.

    The tensors may be constants (reading examples) or variables (the SavedModel).

    Attributes:
        time_order: int32 [N], the row id at each time rank.
        user_starts: int64 [U + 1], where each user's rows begin.
    """

    time_order: tf.Tensor
    user_starts: tf.Tensor

    def resolve(self, parsed: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Replaces ranks by what the models look up.

        Args:
            parsed: what `ExampleSpec.parse` returns.

        Returns:
            The same without `rank`, `history_rank` and `neighbour_ranks`, and with `row` int64 [B], the target's row id, NO_ROW for
            a request; `history_position` int64 [B], the position just after the user's last row strictly before the slate's
            time, 0 if there is none; and `neighbour_rows` int32 [B, C, K] row ids, NO_ROW where there is none.
        """
        ranks = ("rank", "history_rank", "neighbour_ranks")
        return {name: value for name, value in parsed.items() if name not in ranks} | {
            "row": tf.cast(self._rows_at(parsed["rank"]), tf.int64),
            "history_position": self._positions_after(self._rows_at(parsed["history_rank"])),
            "neighbour_rows": self._rows_at(parsed["neighbour_ranks"]),
        }

    def _rows_at(self, ranks: tf.Tensor) -> tf.Tensor:
        """int32 row ids, of the ranks' shape; NO_ROW for ranks below 0."""
        return tf.where(ranks >= 0, tf.gather(self.time_order, tf.maximum(ranks, 0)), NO_ROW)

    def _positions_after(self, rows: tf.Tensor) -> tf.Tensor:
        """int64 [B], the position just after each row; 0 for rows below 0."""
        rows = tf.cast(rows, tf.int64)
        users = tf.searchsorted(self.user_starts, rows, side="right", out_type=tf.int64) - 1
        return tf.where(rows >= 0, rows + users + 2, 0)


def build_row_references(log: InteractionLog) -> RowReferences:
    """Makes the tables of a log."""
    with tf.device("CPU"):  # examples are read there
        return RowReferences(tf.constant(log.time_order), tf.constant(log.user_starts))
