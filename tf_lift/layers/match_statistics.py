"""What the pool says of a candidate, as numbers: how many rows agree with it, and how many of those were positive."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

_PRIOR_STRENGTH = 5.0  # rows of the average kind that each rate is smoothed with
_LEAST_DEVIATION = 1e-3  # of a feature that is always the same


class MatchStatistics(tf.keras.layers.Layer):
    """Features of a candidate's match statistics: ln(1 + count), and the log-odds of the smoothed rate of positives.

    Ours; the paper has no such input. The counts come from the posting lists, as of the target's time.

    With `standardised`, each feature has mean 0 and standard deviation 1 over the candidates that `adapt` reads: they differ in spread by
    a factor of ten, and as much in how fast an MLP learns from them.

    Args:
        prior: rate of positives of the pool.
        standardised: whether features are standardised; until `adapt`, they are as they were.
    """

    def __init__(self, prior: float, standardised: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.prior, self.standardised = prior, standardised

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the means and deviations [2 S'], which are not trained."""
        if self.standardised:
            width = (2 * int(input_shape[-1]),)
            self._mean = self.add_weight(name="mean", shape=width, initializer="zeros", trainable=False)
            self._deviation = self.add_weight(name="deviation", shape=width, initializer="ones", trainable=False)
        super().build(input_shape)

    def adapt(self, slates: Iterable[tuple[tf.Tensor, tf.Tensor, tf.Tensor]]) -> None:
        """Finds the means and deviations of a standardised layer that was built.

        Args:
            slates: `counts` and `positives` as of `call`, and bool [B, C], True where a candidate is real.

        Raises:
            ValueError: there is no real candidate.
        """
        count, total, squares = 0, 0.0, 0.0
        for counts, positives, mask in slates:
            features = tf.boolean_mask(self._features(counts, positives), mask).numpy().astype(np.float64)
            count, total, squares = (
                count + len(features),
                total + features.sum(axis=0),
                squares + (features**2).sum(axis=0),
            )
        if not count:
            raise ValueError("Match statistics are standardised over the train candidates. Received: none.")
        mean = total / count
        self._mean.assign(mean)
        self._deviation.assign(np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0.0)), _LEAST_DEVIATION))

    def call(self, counts: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
        """Computes the features.

        Args:
            counts: int32 [B, C, S'].
            positives: int32 [B, C, S'].

        Returns:
            float32 [B, C, 2 S'].
        """
        features = self._features(counts, positives)
        return (features - self._mean) / self._deviation if self.standardised else features

    def _features(self, counts: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
        counts, positives = tf.cast(counts, tf.float32), tf.cast(positives, tf.float32)
        prior = min(max(self.prior, 0.01), 0.99)
        rate = (positives + _PRIOR_STRENGTH * prior) / (counts + _PRIOR_STRENGTH)
        odds = tf.math.log(rate) - tf.math.log1p(-rate)
        return tf.concat([tf.math.log1p(counts) / 4.0, odds], axis=-1)

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {**super().get_config(), "prior": self.prior, "standardised": self.standardised}
