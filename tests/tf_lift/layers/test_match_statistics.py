"""Features of match statistics."""

import numpy as np
import pytest

from tf_lift.layers.match_statistics import MatchStatistics


def test_features_are_log_counts_and_smoothed_odds() -> None:
    counts, positives = np.array([[[0, 10, 200]]], np.int32), np.array([[[0, 10, 50]]], np.int32)
    features = MatchStatistics(0.25)(counts, positives).numpy()
    rate = (positives + 5 * 0.25) / (counts + 5)
    expected = np.concatenate([np.log1p(counts) / 4, np.log(rate / (1 - rate))], axis=-1)
    assert features.shape == (1, 1, 6)
    np.testing.assert_allclose(features, expected, rtol=1e-5)
    assert features[0, 0, 3] == pytest.approx(np.log(1 / 3), rel=1e-5)  # no rows: the prior's odds


@pytest.mark.parametrize("prior", [0.0, 1.0])
def test_a_pool_of_one_class_gives_finite_features(prior: float) -> None:
    counts = np.array([[[0, 1000]]], np.int32)
    assert np.isfinite(MatchStatistics(prior)(counts, counts).numpy()).all()


def test_same_answer_from_config() -> None:
    layer = MatchStatistics(0.3)
    inputs = np.array([[[3, 4]]], np.int32), np.array([[[1, 2]]], np.int32)
    np.testing.assert_array_equal(MatchStatistics.from_config(layer.get_config())(*inputs), layer(*inputs))
