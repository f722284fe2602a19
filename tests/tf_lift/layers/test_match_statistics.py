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


def test_standardised_features_have_mean_0_and_deviation_1_over_real_candidates() -> None:
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 500, (40, 6, 3)).astype(np.int32)
    positives, mask = rng.binomial(counts, 0.3).astype(np.int32), rng.random((40, 6)) < 0.7
    counts[..., 2] = positives[..., 2] = 7  # says nothing
    counts[~mask], positives[~mask] = 100_000, 0  # what padding holds must not matter
    plain, layer = MatchStatistics(0.3), MatchStatistics(0.3, standardised=True)
    np.testing.assert_array_equal(layer(counts, positives), plain(counts, positives))
    layer.adapt((counts[part], positives[part], mask[part]) for part in (slice(0, 15), slice(15, 40)))
    features = layer(counts, positives).numpy()[mask]
    assert features.mean(axis=0) == pytest.approx(0.0, abs=1e-4)
    assert features.std(axis=0) == pytest.approx(np.array([1, 1, 0, 1, 1, 0]), abs=1e-2)
    assert not layer.trainable_weights


def test_no_candidates_to_standardise_by() -> None:
    layer = MatchStatistics(0.3, standardised=True)
    counts = np.zeros((1, 2, 1), np.int32)
    layer(counts, counts)
    with pytest.raises(ValueError, match="Received: none"):
        layer.adapt([(counts, counts, np.zeros((1, 2), bool))])


def test_same_answer_from_config() -> None:
    layer = MatchStatistics(0.3)
    inputs = np.array([[[3, 4]]], np.int32), np.array([[[1, 2]]], np.int32)
    np.testing.assert_array_equal(MatchStatistics.from_config(layer.get_config())(*inputs), layer(*inputs))
