"""What the pool says of a candidate, as numbers: how many rows agree with it, and how many of those were positive."""

import tensorflow as tf

from tf_lift.layers.standardised_features import StandardisedFeatures

_PRIOR_STRENGTH = 5.0  # rows of the average kind that each rate is smoothed with


class MatchStatistics(StandardisedFeatures):
    """Features of a candidate's match statistics: ln(1 + count), and the log-odds of the smoothed rate of positives.

    Ours; the paper has no such input. The counts come from the posting lists, as of the target's time.

    Args:
        prior: rate of positives of the pool.
        standardised: whether features are standardised; until `adapt`, they are as they were.
    """

    def __init__(self, prior: float, standardised: bool = False, **kwargs: object) -> None:
        super().__init__(standardised, **kwargs)
        self.prior = prior

    def count_features(self, input_shape: tf.TensorShape) -> int:
        """2 S'."""
        return 2 * int(input_shape[-1])

    def compute_features(self, counts: tf.Tensor, positives: tf.Tensor) -> tf.Tensor:
        """Computes the features.

        Args:
            counts: int32 [B, C, S'].
            positives: int32 [B, C, S'].

        Returns:
            float32 [B, C, 2 S'].
        """
        counts, positives = tf.cast(counts, tf.float32), tf.cast(positives, tf.float32)
        prior = min(max(self.prior, 0.01), 0.99)
        rate = (positives + _PRIOR_STRENGTH * prior) / (counts + _PRIOR_STRENGTH)
        odds = tf.math.log(rate) - tf.math.log1p(-rate)
        return tf.concat([tf.math.log1p(counts) / 4.0, odds], axis=-1)

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {**super().get_config(), "prior": self.prior}
