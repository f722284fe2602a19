"""Why a candidate stands where it does: what people who had the user's last items went on to."""

import tensorflow as tf

from tf_lift.datastore import Window
from tf_lift.situation.graph import TransitionGraph

NUM_REASONS = 3  # items of the history that `explain` names


def describe_reasons(
    transitions: TransitionGraph, history: Window, slate: dict[str, tf.Tensor], item_index: int, names: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Of the history's items those that are tied most closely to each candidate by what followed them, each once.

    Args:
        transitions: what followed what.
        history: the newest rows, the newest first.
        slate: `fields` int32 [B, C, M], `mask` bool [B, C] and `time` int64 [B].
        item_index: the item's field.
        names: string [ids], the items as the log had them.

    Returns:
        `because_item` string, "" where there is no other; `because_went_on` int64, how many positive rows of it had the candidate among
        the next positive ones; and `because_times` int64, how many positive rows of it there are, which are as many people where nobody
        has an item twice: [B, C, NUM_REASONS] each, as of the newest snapshot.
    """
    items = history.fields[..., item_index]  # [B, m]
    num_rows = items.shape[1]
    is_same = (items[:, :, None] == items[:, None, :]) & history.mask[:, None, :]
    is_repeat = tf.reduce_any(tf.linalg.band_part(is_same, -1, 0) & ~tf.eye(num_rows, dtype=tf.bool), axis=2)
    as_of = transitions.snapshots_at(slate["time"])[:, None, None]
    candidates = slate["fields"][..., item_index]
    found = transitions.followers(0, items[:, None], candidates[..., None], as_of)
    is_counted = (history.mask & ~is_repeat)[:, None] & slate["mask"][..., None]
    weights = tf.where(is_counted, found.weights, 0.0)  # [B, C, m]
    weights = tf.pad(weights, [[0, 0], [0, 0], [0, max(0, NUM_REASONS - num_rows)]])
    best, places = tf.math.top_k(weights, NUM_REASONS)
    is_there, places = best > 0.0, tf.minimum(places, num_rows - 1)

    def choose(values: tf.Tensor) -> tf.Tensor:
        chosen = tf.gather(tf.broadcast_to(values, tf.shape(found.totals)), places, batch_dims=2)
        return tf.where(is_there, tf.cast(chosen, tf.int64), 0)

    return {
        "because_item": tf.where(is_there, tf.gather(names, choose(items[:, None])), ""),
        "because_went_on": choose(found.totals),
        "because_times": choose(found.rows),
    }
