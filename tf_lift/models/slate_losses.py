"""The losses of slates, which the predictor and the rankers that it is compared with share."""

import tensorflow as tf
import tensorflow_recommenders as tfrs

_MASKED_LOGIT = -1e9  # far below any real logit, and finite so that padding gives no NaN


def build_label_task() -> tfrs.tasks.Ranking:
    """Binary cross-entropy on logits, summed, with LogLoss and AUC as metrics."""
    losses = tf.keras.losses
    return tfrs.tasks.Ranking(
        loss=losses.BinaryCrossentropy(from_logits=True, reduction=losses.Reduction.SUM),
        metrics=[
            tf.keras.metrics.BinaryCrossentropy(name="log_loss", from_logits=True),
            tf.keras.metrics.AUC(name="auc", from_logits=True),
        ],
    )


def mean_weights(weights: tf.Tensor) -> tf.Tensor:
    """Weights float32 [B, C] that add up to 1 in each row, or to 0 where all are 0."""
    return weights / tf.maximum(tf.reduce_sum(weights, axis=1, keepdims=True), 1.0)


def listwise_loss(logits: tf.Tensor, labels: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Softmax cross-entropy of each slate over its real candidates, the positives sharing the mass.

    Args:
        logits: float32 [B, C].
        labels: float32 [B, C], 0 or 1.
        mask: bool [B, C], True where a candidate is real.

    Returns:
        float32 [B] losses; and float32 [B], 1 where a slate has a positive and two candidates or more, else 0: its loss is 0.
    """
    truth = mean_weights(tf.where(mask, labels, 0.0))
    losses = tf.nn.softmax_cross_entropy_with_logits(truth, tf.where(mask, logits, _MASKED_LOGIT))
    counts = tf.reduce_any(truth > 0.0, axis=1) & (tf.reduce_sum(tf.cast(mask, tf.int32), axis=1) > 1)
    return tf.where(counts, losses, 0.0), tf.cast(counts, tf.float32)
