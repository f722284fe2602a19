"""Key attention over retrieved neighbours (eq. 14)."""

import tensorflow as tf

_MASKED_LOGIT = -1e9  # far below any real logit, and finite so that a target without neighbours gives no NaN


class KeyAttention(tf.keras.layers.Layer):
    """Weights of a target's neighbours: alpha = softmax over k of x_t W x_k, eq. 14.

    Neighbours that do not exist get weight 0; a target without any has all weights 0.

    Differences from the paper: with `score_bias`, a learnt multiple of the BM25 score is added to each logit.

    Args:
        score_bias: whether scores are added.
    """

    def __init__(self, score_bias: bool, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.score_bias = score_bias

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes W, [D, D], and the weight of the scores."""
        width = int(input_shape[-1])
        self._kernel = self.add_weight(name="kernel", shape=(width, width), initializer="glorot_uniform")
        self._score_weight = (
            self.add_weight(name="score_weight", shape=(), initializer="zeros") if self.score_bias else None
        )
        super().build(input_shape)

    def call(self, target: tf.Tensor, neighbours: tf.Tensor, scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """Weighs neighbours.

        Args:
            target: float32 [B, C, D], x_t.
            neighbours: float32 [B, C, K, D], x_k.
            scores: float32 [B, C, K] BM25 scores.
            mask: bool [B, C, K], True where a neighbour exists.

        Returns:
            float32 [B, C, K], alpha.
        """
        query = tf.einsum("bcd,de->bce", target, self._kernel)
        logits = tf.einsum("bce,bcke->bck", query, neighbours)
        if self._score_weight is not None:
            logits += self._score_weight * scores
        weights = tf.nn.softmax(tf.where(mask, logits, _MASKED_LOGIT))
        return tf.where(mask, weights, 0.0)

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {**super().get_config(), "score_bias": self.score_bias}
