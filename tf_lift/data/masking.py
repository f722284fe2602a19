"""What the encoder is told of a behaviour, and what pretraining hides (eq. 9)."""

import tensorflow as tf

PADDING_LABEL = 0


def label_ids(behaviours: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The encoder's label of each row: PADDING_LABEL, or 1 + its class.

    Args:
        behaviours: int32 [.., L] classes.
        mask: bool [.., L], True where a row is real.

    Returns:
        int32 [.., L].
    """
    return tf.where(mask, behaviours + 1, PADDING_LABEL)


def masked_label(num_classes: int) -> int:
    """The label MSK: the behaviour is hidden."""
    return num_classes + 1


def choose_masked(noise: tf.Tensor, times: tf.Tensor, mask: tf.Tensor, mask_ratio: float) -> tf.Tensor:
    """Chooses the rows whose behaviour is hidden.

    Rows of one user at one time are hidden together: a sampled negative stands at its positive's time, and the label of one
    would give the other's away.

    Args:
        noise: float32 [B, L] uniform in [0, 1).
        times: int64 [B, L].
        mask: bool [B, L], True where a row is real.
        mask_ratio: share of the groups to hide; at least one row of a window is hidden when it is above 0.

    Returns:
        bool [B, L].
    """
    is_first = tf.concat([tf.ones_like(times[:, :1], tf.bool), times[:, 1:] != times[:, :-1]], axis=1)
    group = tf.cumsum(tf.cast(is_first, tf.int32), axis=1) - 1  # [B, L]
    group_noise = tf.gather(noise, group, batch_dims=1)
    lowest = tf.reduce_min(tf.where(mask, group_noise, 2.0), axis=1, keepdims=True)
    chosen = (group_noise < mask_ratio) | ((group_noise == lowest) & (mask_ratio > 0.0))
    return chosen & mask


def rows_strictly_before(times: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """How many rows of a window lie strictly before each row's time.

    Args:
        times: int64 [B, L], ascending over the real rows.
        mask: bool [B, L], True where a row is real.

    Returns:
        int32 [B, L].
    """
    earlier = (times[:, None, :] < times[:, :, None]) & mask[:, None, :]
    return tf.reduce_sum(tf.cast(earlier, tf.int32), axis=2)
