"""The history that a request brings, as the window that the encoder takes."""

import tensorflow as tf

from tf_lift.config import Behaviour
from tf_lift.datastore import Window

_NUMBER = r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?"


class BehaviourTable(tf.Module):
    """Behaviours as the log had them to classes.

    Args:
        behaviour: the configuration's section.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(name="behaviours")
        self._behaviour = behaviour
        self._table = None
        if behaviour.kind == "classes":
            names, values = list(behaviour.classes), list(behaviour.classes.values())
            initializer = tf.lookup.KeyValueTensorInitializer(names, values, tf.string, tf.int32)
            self._table = tf.lookup.StaticHashTable(initializer, default_value=behaviour.num_classes)

    def lookup(self, texts: tf.Tensor) -> tf.Tensor:
        """int32 classes of strings; `num_classes`, whose label is MSK, for what is no behaviour.

        A number for `threshold`, 0 or 1 for `column`, a name for `classes`; in a log of positives only, all is 1 but "0", a
        sampled negative.
        """
        if self._table is not None:
            return self._table.lookup(texts)
        texts = tf.strings.lower(tf.strings.strip(texts))
        if self._behaviour.kind == "positive_only":
            texts = tf.where(texts == "", "1", texts)
        if self._behaviour.kind != "threshold":
            texts = tf.where(texts == "true", "1", tf.where(texts == "false", "0", texts))
        is_number = tf.strings.regex_full_match(texts, _NUMBER)
        numbers = tf.strings.to_number(tf.where(is_number, texts, "0"), tf.float64)
        if self._behaviour.kind == "threshold":
            is_positive, is_known = numbers >= self._behaviour.threshold, is_number
        else:
            is_positive, is_known = numbers == 1.0, is_number & ((numbers == 0.0) | (numbers == 1.0))
        return tf.where(is_known, tf.cast(is_positive, tf.int32), self._behaviour.num_classes)


def select_window(
    fields: tf.Tensor,
    behaviours: tf.Tensor,
    times: tf.Tensor,
    mask: tf.Tensor,
    as_of: tf.Tensor,
    context_length: int,
) -> Window:
    """The newest L interactions strictly before a time, oldest first; in the request's order where times are equal.

    Args:
        fields: int32 [B, H, M].
        behaviours: int32 [B, H].
        times: int64 [B, H] epoch seconds, in any order.
        mask: bool [B, H], True where an interaction is real.
        as_of: int64 [B].
        context_length: L.
    """
    # A place more, so that there is one.
    fields = tf.pad(fields, [[0, 0], [0, 1], [0, 0]])
    behaviours, times, mask = (tf.pad(value, [[0, 0], [0, 1]]) for value in (behaviours, times, mask))
    visible = mask & (times < as_of[:, None])
    # Negative numbers before the others: what is not visible stands at the left.
    order = tf.argsort(tf.where(visible, tf.maximum(times, tf.int64.min + 1), tf.int64.min), axis=1, stable=True)
    num_places = tf.shape(times)[1]
    num_rows = tf.minimum(tf.reduce_sum(tf.cast(visible, tf.int32), axis=1), context_length)
    places = tf.range(context_length)
    chosen = tf.minimum((num_places - num_rows)[:, None] + places, num_places - 1)  # [B, L]
    rows = tf.gather(order, chosen, batch_dims=1)
    real = places < num_rows[:, None]
    return Window(
        tf.where(real[..., None], tf.gather(fields, rows, batch_dims=1), 0),
        tf.gather(behaviours, rows, batch_dims=1),
        tf.gather(times, rows, batch_dims=1),
        real,
        num_rows,
    )
