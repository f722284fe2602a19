"""The softmax over all items."""

import tensorflow as tf


def softmax_cross_entropy(states: tf.Tensor, items: tf.Tensor, embedded: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Cross-entropy of a softmax over I items whose logits are inner products and biases.

    The logarithm of the sum less the true logit, which is computed anew from its item: TensorFlow's own operation takes most of a
    step on a CPU (`python -m benchmarks.softmax_loss`).

    Args:
        states: float32 [n, v].
        items: int32 [n], the true ones.
        embedded: float32 [I, v].
        bias: float32 [I].

    Returns:
        float32 [n].
    """
    logits = tf.matmul(states, embedded, transpose_b=True) + bias
    true = tf.reduce_sum(states * tf.gather(embedded, items), axis=1) + tf.gather(bias, items)
    return tf.reduce_logsumexp(logits, axis=1) - true
