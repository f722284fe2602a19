"""Numbers of a candidate that are computed and not learnt, brought to one spread."""

import abc
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

_LEAST_DEVIATION = 1e-3  # of a feature that is always the same


class StandardisedFeatures(tf.keras.layers.Layer, abc.ABC):
    """Features of a candidate, with `standardised` of mean 0 and standard deviation 1 over the candidates that `adapt` reads.

    They differ in spread by a factor of ten, and as much in how fast an MLP learns from them.

    Args:
        standardised: whether features are standardised; until `adapt`, they are as they were.
    """

    def __init__(self, standardised: bool = False, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.standardised = standardised

    @abc.abstractmethod
    def compute_features(self, *inputs: tf.Tensor) -> tf.Tensor:
        """float32 [B, C, D], as they are; the inputs are those of `call`."""

    @abc.abstractmethod
    def count_features(self, input_shape: tf.TensorShape) -> int:
        """D, from the shape of the first input."""

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the means and deviations [D], which are not trained."""
        if self.standardised:
            width = (self.count_features(input_shape),)
            self._mean = self.add_weight(name="mean", shape=width, initializer="zeros", trainable=False)
            self._deviation = self.add_weight(name="deviation", shape=width, initializer="ones", trainable=False)
        super().build(input_shape)

    def adapt(self, slates: Iterable[Sequence[tf.Tensor]]) -> None:
        """Finds the means and deviations of a standardised layer that was built.

        Args:
            slates: the inputs of `call`, and bool [B, C], True where a candidate is real.

        Raises:
            ValueError: there is no real candidate.
        """
        count, total, squares = 0, 0.0, 0.0
        for *inputs, mask in slates:
            features = tf.boolean_mask(self.compute_features(*inputs), mask).numpy().astype(np.float64)
            count, total, squares = (
                count + len(features),
                total + features.sum(axis=0),
                squares + (features**2).sum(axis=0),
            )
        if not count:
            raise ValueError("Statistics are standardised over the train candidates. Received: none.")
        mean = total / count
        self._mean.assign(mean)
        self._deviation.assign(np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0.0)), _LEAST_DEVIATION))

    def call(self, *inputs: tf.Tensor) -> tf.Tensor:
        """Computes the features, float32 [B, C, D].

        Args:
            inputs: as `compute_features` takes them.
        """
        features = self.compute_features(*inputs)
        return (features - self._mean) / self._deviation if self.standardised else features

    def get_config(self) -> dict[str, object]:
        """Arguments of the constructor."""
        return {**super().get_config(), "standardised": self.standardised}
