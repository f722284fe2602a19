"""Features of recency."""

import numpy as np
import pytest

from tf_lift.layers.recency_statistics import RecencyStatistics


def test_features_are_log_counts_and_log_gaps() -> None:
    counts = np.array([[[[0, 3], [10, 200]]]], np.int32)  # two fields, two windows
    seconds = np.array([[[-1, 3600]]], np.int64)
    features = RecencyStatistics()(counts, seconds).numpy()
    expected = [*np.log1p([0, 3, 10, 200]) / 4, 2.0, np.log1p(3600) / 10]
    np.testing.assert_allclose(features, [[expected]], rtol=1e-5)


def test_a_value_that_was_never_met_is_older_than_any_that_was() -> None:
    counts = np.zeros((1, 3, 1, 1), np.int32)
    features = RecencyStatistics()(counts, np.array([[[-1], [0], [400_000_000]]], np.int64)).numpy()[0, :, 1]
    assert features[0] > features[2] > features[1] == 0.0


def test_standardised_by_real_candidates() -> None:
    rng = np.random.default_rng(2)
    counts = rng.integers(0, 90, (30, 5, 2, 3)).astype(np.int32)
    seconds = rng.integers(-1, 90_000, (30, 5, 2))
    mask = rng.random((30, 5)) < 0.6
    layer = RecencyStatistics(standardised=True)
    layer(counts, seconds)
    layer.adapt([(counts, seconds, mask)])
    features = layer(counts, seconds).numpy()[mask]
    assert features.shape[1] == 2 * (3 + 1)
    assert features.mean(axis=0) == pytest.approx(0.0, abs=1e-4)
    assert features.std(axis=0) == pytest.approx(1.0, abs=1e-2)
