"""Every metric against an oracle written from its definition, with loops and without sharing code."""

import itertools
import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_lift import metrics

# Few distinct scores, so that ties are common; infinities, because a masked logit may be one.
SCORES = st.sampled_from([-math.inf, -1.5, 0.0, 0.25, 0.5, 2.0, math.inf])
EXAMPLES = st.lists(st.tuples(st.integers(0, 1), SCORES, st.integers(0, 5)), min_size=1, max_size=25)
PROBABILITIES = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.7, 1.0]) | st.floats(0, 1)),
    min_size=1,
    max_size=60,
)


def auc_by_pairs(labels, scores, weights) -> float:
    won = total = Fraction(0)
    for (label_a, score_a, weight_a), (label_b, score_b, weight_b) in itertools.product(
        zip(labels, scores, weights, strict=True), repeat=2
    ):
        if label_a == 1 and label_b == 0:
            pair = Fraction(weight_a) * Fraction(weight_b)
            total += pair
            won += pair if score_a > score_b else pair / 2 if score_a == score_b else 0
    return float(won / total) if total else math.nan


def metrics_of_rank(rank: int) -> dict[str, float]:
    return {
        "HR@1": float(rank <= 1),
        "HR@5": float(rank <= 5),
        "HR@10": float(rank <= 10),
        "NDCG@5": math.log(2) / math.log(1 + rank) if rank <= 5 else 0.0,
        "NDCG@10": math.log(2) / math.log(1 + rank) if rank <= 10 else 0.0,
        "MRR": 1.0 / rank,
    }


def slates(max_slates: int = 4, max_candidates: int = 6):
    """Labels, scores and mask [S, C] as lists; one positive a slate; padded places hold junk."""
    candidate = st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.booleans())
    slate = st.lists(candidate, min_size=max_candidates, max_size=max_candidates).flatmap(
        lambda candidates: st.integers(0, max_candidates - 1).map(lambda positive: (candidates, positive))
    )

    def to_arrays(rows, junk):
        labels = [[int(i == positive) for i in range(max_candidates)] for _, positive in rows]
        mask = [[is_real or i == positive for i, (_, is_real) in enumerate(row)] for row, positive in rows]
        scores = [
            [score if real else junk for (score, _), real in zip(row, reals, strict=True)]
            for (row, _), reals in zip(rows, mask, strict=True)
        ]
        labels = [
            [label if real else 7 for label, real in zip(row, reals, strict=True)]
            for row, reals in zip(labels, mask, strict=True)
        ]
        return labels, scores, mask

    rows = st.lists(slate, min_size=1, max_size=max_slates)
    return st.builds(to_arrays, rows, junk=st.sampled_from([math.nan, 9.0, 1.0, -9.0]))


@given(EXAMPLES)
def test_auc_counts_pairs(examples):
    labels, scores, _ = zip(*examples, strict=True)
    expected = auc_by_pairs(labels, scores, [1] * len(labels))
    assert metrics.auc(labels, scores) == pytest.approx(expected, nan_ok=True)


@given(EXAMPLES)
def test_weighted_auc_counts_pairs_by_the_product_of_their_weights(examples):
    labels, scores, weights = zip(*examples, strict=True)
    expected = auc_by_pairs(labels, scores, weights)
    assert metrics.auc(labels, scores, weights) == pytest.approx(expected, nan_ok=True)


@given(EXAMPLES)
def test_an_integer_weight_is_a_repeated_example(examples):
    labels, scores, weights = (np.array(column) for column in zip(*examples, strict=True))
    if weights.sum():
        repeated = metrics.auc(np.repeat(labels, weights), np.repeat(scores, weights))
        assert metrics.auc(labels, scores, weights) == pytest.approx(repeated, nan_ok=True)


def test_auc_of_known_cases():
    assert metrics.auc([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]) == 1.0
    assert metrics.auc([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4]) == 0.0
    assert metrics.auc([0, 1, 1], [0.5, 0.5, 0.5]) == 0.5
    assert math.isnan(metrics.auc([1, 1], [0.1, 0.2]))
    assert math.isnan(metrics.auc([0, 1], [0.1, 0.2], [0.0, 1.0]))


@given(PROBABILITIES)
def test_log_loss_is_the_mean_negative_log_likelihood(examples):
    labels, probabilities = zip(*examples, strict=True)
    total = 0.0
    for label, probability in examples:
        clipped = min(max(probability, metrics.LOG_LOSS_EPSILON), 1 - metrics.LOG_LOSS_EPSILON)
        total -= math.log(clipped if label == 1 else 1 - clipped)
    assert metrics.log_loss(labels, probabilities) == pytest.approx(total / len(examples))


def test_log_loss_of_known_cases():
    assert metrics.log_loss([0, 1], [0.5, 0.5]) == pytest.approx(math.log(2))
    assert metrics.log_loss([0], [1.0]) == pytest.approx(-math.log(metrics.LOG_LOSS_EPSILON))
    assert metrics.log_loss([1], np.array([1.0], np.float32)) == pytest.approx(metrics.LOG_LOSS_EPSILON, rel=1e-6)


@given(st.lists(st.tuples(st.integers(-2, 3), st.integers(0, 1), SCORES), min_size=1, max_size=40))
def test_per_user_auc_is_the_weighted_mean_of_the_users_aucs(rows):
    total, weight, num_users = 0.0, 0, 0
    for user in {row[0] for row in rows}:
        own = [row for row in rows if row[0] == user]
        value = auc_by_pairs([r[1] for r in own], [r[2] for r in own], [1] * len(own))
        if not math.isnan(value):
            total, weight, num_users = total + value * len(own), weight + len(own), num_users + 1
    users, labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    expected = total / weight if weight else math.nan
    for ids in (users, users.astype(str), users.astype(str).astype(object)):
        value, used = metrics.per_user_auc(ids, labels, scores)
        assert value == pytest.approx(expected, nan_ok=True)
        assert used == num_users


def test_per_user_auc_ignores_differences_between_users():
    users, labels = [1, 1, 2, 2], [0, 1, 0, 1]
    scores = [0.8, 0.9, 0.1, 0.2]  # each user is ranked well, though user 2's positive is below user 1's negative
    assert metrics.per_user_auc(users, labels, scores) == (1.0, 2)
    assert metrics.auc(labels, scores) == 0.75


def test_per_user_auc_is_biased_against_the_rate_of_the_users_own_labels_so_far():
    """The labels are a coin's: no score tells them."""
    rng = np.random.default_rng(3)
    for num_rows, bound in ((2, 0.0), (8, 0.3), (128, 0.45)):
        labels = rng.integers(0, 2, (16_000 // num_rows, num_rows))
        users = np.repeat(np.arange(len(labels)), num_rows)
        so_far = (labels.cumsum(axis=1) - labels + 0.5) / np.arange(1, num_rows + 1)
        assert metrics.auc(labels.ravel(), so_far.ravel()) == pytest.approx(0.5, abs=0.02)
        assert metrics.per_user_auc(users, labels.ravel(), rng.random(labels.size))[0] == pytest.approx(0.5, abs=0.02)
        assert metrics.per_user_auc(users, labels.ravel(), so_far.ravel())[0] <= bound


def test_per_user_auc_is_fast_enough_for_two_million_rows():
    rng = np.random.default_rng(0)
    num_rows = 2_000_000
    users, labels = rng.integers(0, 100_000, num_rows), rng.integers(0, 2, num_rows)
    scores = rng.random(num_rows, np.float32)
    start = time.process_time()
    value, num_users = metrics.per_user_auc(users, labels, scores)
    assert time.process_time() - start < 3.0
    assert num_users > 99_000
    assert value == pytest.approx(0.5, abs=0.005)


@given(PROBABILITIES, st.integers(1, 20))
def test_calibration_bins_partition_the_examples(examples, num_bins):
    labels, probabilities = (np.array(column) for column in zip(*examples, strict=True))
    mean_probability, mean_label, count = metrics.calibration_curve(labels, probabilities, num_bins)
    assert len(mean_probability) == len(mean_label) == len(count) <= num_bins
    assert count.min() > 0 and count.sum() == len(labels)
    assert count @ mean_probability == pytest.approx(probabilities.sum())
    assert count @ mean_label == pytest.approx(labels.sum())
    assert (np.diff(mean_probability) > -1e-12).all()
    error = sum(c * abs(p - y) for p, y, c in zip(mean_probability, mean_label, count, strict=True)) / len(labels)
    assert metrics.calibration_error(labels, probabilities, num_bins) == pytest.approx(error)


@given(PROBABILITIES, st.integers(1, 6), st.randoms(use_true_random=False))
def test_calibration_does_not_depend_on_the_order_of_rows(examples, num_bins, random):
    shuffled = random.sample(examples, len(examples))
    first = metrics.calibration_curve(*zip(*examples, strict=True), num_bins=num_bins)
    second = metrics.calibration_curve(*zip(*shuffled, strict=True), num_bins=num_bins)
    for left, right in zip(first, second, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-12)


@pytest.mark.parametrize(("num_rows", "num_bins"), [(60, 15), (61, 15), (7, 3), (5, 15)])
def test_calibration_bins_of_distinct_probabilities_have_equal_mass(num_rows, num_bins):
    probabilities = np.random.default_rng(num_rows).permutation(np.linspace(0.01, 0.99, num_rows))
    _, _, count = metrics.calibration_curve(np.arange(num_rows) % 2, probabilities, num_bins)
    assert len(count) == min(num_bins, num_rows)
    assert count.max() - count.min() <= 1


def test_equal_probabilities_go_where_the_middle_one_falls():
    # Places 0 to 3 are the first half. The three equal ones are at 3, 4 and 5, their middle in the second half.
    probabilities = [0.1, 0.2, 0.3, 0.5, 0.5, 0.5, 0.8, 0.9]
    _, _, count = metrics.calibration_curve([0, 1] * 4, probabilities, num_bins=2)
    assert count.tolist() == [3, 5]


def test_calibration_of_known_cases():
    # Two bins by hand: {.1, .2} with labels {0, 0} and {.6, .8} with labels {0, 1}: (|.15 - 0| + |.7 - .5|) / 2.
    assert metrics.calibration_error([0, 0, 0, 1], [0.2, 0.1, 0.6, 0.8], num_bins=2) == pytest.approx(0.175)
    # A constant is one bin, whatever the number asked for.
    assert metrics.calibration_error([0, 0, 0, 1], [0.25] * 4) == pytest.approx(0.0)
    assert metrics.calibration_error([1, 1, 1, 1], [0.25] * 4) == pytest.approx(0.75)


@given(EXAMPLES)
def test_roc_curve_has_the_rates_at_every_threshold(examples):
    labels, scores, _ = zip(*examples, strict=True)
    num_positives, num_negatives = sum(labels), len(labels) - sum(labels)
    fpr, tpr = metrics.roc_curve(labels, scores)
    if num_positives == 0 or num_negatives == 0:
        assert fpr.size == tpr.size == 0
        return
    expected = [(0.0, 0.0)]
    for threshold in sorted(set(scores), reverse=True):
        chosen = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        expected.append(((len(chosen) - sum(chosen)) / num_negatives, sum(chosen) / num_positives))
    np.testing.assert_allclose(np.stack([fpr, tpr], axis=1), expected)


def test_a_long_roc_curve_is_thinned_and_keeps_its_area():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 50_000)
    scores = labels + rng.normal(size=50_000)
    fpr, tpr = metrics.roc_curve(labels, scores)
    assert 400 < len(fpr) <= metrics.MAX_ROC_POINTS
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all()
    assert np.trapezoid(tpr, fpr) == pytest.approx(metrics.auc(labels, scores), abs=1e-4)


def oracle_orders(labels, scores, mask):
    """The metrics' means over every order of each slate that sorts by score, by enumeration; and the mean ranks."""
    slate_metrics, mean_ranks = [], []
    for slate in zip(labels, scores, mask, strict=True):
        real = [(label, score) for label, score, is_real in zip(*slate, strict=True) if is_real]
        ranks = [
            1 + [label for label, _ in order].index(1)
            for order in itertools.permutations(real)
            if all(a[1] >= b[1] for a, b in itertools.pairwise(order))
        ]
        mean_ranks.append(sum(ranks) / len(ranks))
        of_orders = [metrics_of_rank(rank) for rank in ranks]
        slate_metrics.append({key: sum(m[key] for m in of_orders) / len(of_orders) for key in of_orders[0]})
    means = {key: sum(m[key] for m in slate_metrics) / len(slate_metrics) for key in slate_metrics[0]}
    return means, mean_ranks


@given(slates())
def test_slate_ranks_are_the_mean_over_tie_orders(slate):
    _, mean_ranks = oracle_orders(*slate)
    ranks = metrics.slate_ranks(*slate)
    assert ranks.dtype == np.float64
    np.testing.assert_allclose(ranks, mean_ranks)


@given(slates())
def test_expected_ranking_metrics_enumerate_tie_orders(slate):
    expected, _ = oracle_orders(*slate)
    assert metrics.ranking_metrics_expected_over_ties(*slate) == pytest.approx(expected)


@given(st.lists(st.integers(1, 101), min_size=1, max_size=20))
def test_ranking_metrics_are_means_over_slates(ranks):
    of_ranks = [metrics_of_rank(rank) for rank in ranks]
    expected = {key: sum(m[key] for m in of_ranks) / len(ranks) for key in of_ranks[0]}
    assert metrics.ranking_metrics(ranks) == pytest.approx(expected)


@given(st.permutations(range(12)), st.integers(0, 11))
def test_without_ties_the_expectation_is_the_value(scores, positive):
    labels, mask = np.eye(12)[[positive]], np.ones((1, 12), bool)
    ranks = metrics.slate_ranks(labels, [scores], mask)
    assert ranks[0] == 12 - scores[positive]
    expected = metrics.ranking_metrics_expected_over_ties(labels, [scores], mask)
    assert metrics.ranking_metrics(ranks) == pytest.approx(expected)


def test_a_constant_scorer_does_not_look_good():
    labels = np.zeros((3, 101), np.int64)
    labels[[0, 1, 2], [0, 50, 100]] = 1
    scores, mask = np.full((3, 101), 0.5, np.float32), np.ones((3, 101), bool)
    ranks = metrics.slate_ranks(labels, scores, mask)
    np.testing.assert_array_equal(ranks, 51.0)
    assert metrics.ranking_metrics(ranks)["HR@10"] == 0.0
    expected = metrics.ranking_metrics_expected_over_ties(labels, scores, mask)
    assert expected["HR@10"] == pytest.approx(10 / 101)
    assert expected["NDCG@10"] == pytest.approx(0.045, abs=0.0005)
    assert expected["MRR"] == pytest.approx(0.0515, abs=0.0005)


def test_half_ranks_on_a_cutoff():
    # The positive ties with one other for places 10 and 11: average rank 10.5 misses, the expectation is one half.
    labels, mask = np.eye(12)[[0]], np.ones((1, 12), bool)
    scores = [[1.0, 1.0, *[2.0] * 9, 0.0]]
    ranks = metrics.slate_ranks(labels, scores, mask)
    assert ranks[0] == 10.5
    assert metrics.ranking_metrics(ranks)["HR@10"] == 0.0
    assert metrics.ranking_metrics_expected_over_ties(labels, scores, mask)["HR@10"] == pytest.approx(0.5)


def test_binary_metrics_has_the_four():
    labels, probabilities, users = [0, 1, 1, 0], [0.2, 0.9, 0.4, 0.6], ["a", "a", "b", "b"]
    assert metrics.binary_metrics(labels, probabilities, users) == {
        "AUC": 0.75,
        "LogLoss": metrics.log_loss(labels, probabilities),
        "per-user AUC": 0.5,
        "calibration error": metrics.calibration_error(labels, probabilities),
    }


@pytest.mark.parametrize(
    "function",
    [
        metrics.auc,
        metrics.log_loss,
        metrics.calibration_error,
        metrics.roc_curve,
        lambda labels, values: metrics.per_user_auc([0] * np.size(values), labels, values),
    ],
)
@pytest.mark.parametrize(
    ("labels", "values", "message"),
    [
        ([], [], r"`labels` must be a non-empty array of shape \[n\]. Received: shape \(0,\)"),
        ([[0, 1]], [0.1, 0.2], r"`labels` must be a non-empty array of shape \[n\]. Received: shape \(1, 2\)"),
        ([0, 2], [0.1, 0.2], r"`labels` must be 0 or 1. Received: 2.0"),
        ([0, math.nan], [0.1, 0.2], "`labels` must be 0 or 1. Received: nan"),
        (["a", "b"], [0.1, 0.2], "`labels` must hold real numbers. Received: dtype <U1"),
        ([0, 1], [0.1], r"must have shape \[2\], like `labels`. Received: shape \(1,\)"),
        ([0, 1, 1], [0.1, math.nan, 0.2], r"must not hold NaN. Received: 1, the first at \[1\]"),
    ],
)
def test_bad_examples_are_refused(function, labels, values, message):
    with pytest.raises(ValueError, match=message):
        function(labels, values)


@pytest.mark.parametrize("function", [metrics.log_loss, metrics.calibration_error])
@pytest.mark.parametrize("value", [-0.01, 1.5, math.inf])
def test_numbers_that_are_no_probabilities_are_refused(function, value):
    with pytest.raises(ValueError, match=rf"`probabilities` must be in \[0, 1\]. Received: {value} at 1"):
        function([0, 1], [0.5, value])


def test_other_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`weights` must be finite and not negative. Received: -1.0 at 0"):
        metrics.auc([0, 1], [0.1, 0.2], [-1.0, 1.0])
    with pytest.raises(ValueError, match="`num_bins` must be at least 1. Received: 0"):
        metrics.calibration_curve([0, 1], [0.1, 0.2], 0)
    with pytest.raises(ValueError, match="`users` must hold integers or strings. Received: dtype float64"):
        metrics.per_user_auc([0.5, 1.5], [0, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match=r"`users` must have shape \[2\]"):
        metrics.per_user_auc([1, 2, 3], [0, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="finite and at least 1 .* Received: 0.0 in slate 1"):
        metrics.ranking_metrics([1.0, 0.0])
    with pytest.raises(ValueError, match="finite and at least 1 .* Received: nan in slate 0"):
        metrics.ranking_metrics([math.nan])
    with pytest.raises(ValueError, match=r"`ranks` must be a non-empty array of shape \[S\]. Received: shape \(0,\)"):
        metrics.ranking_metrics([])


@pytest.mark.parametrize("function", [metrics.slate_ranks, metrics.ranking_metrics_expected_over_ties])
@pytest.mark.parametrize(
    ("labels", "scores", "mask", "message"),
    [
        ([[1, 0], [0, 0]], np.zeros((2, 2)), np.ones((2, 2), bool), "exactly one positive. Received: 0 in slate 1"),
        ([[1, 1]], [[0.0, 1.0]], [[True, True]], "exactly one positive. Received: 2 in slate 0"),
        ([[0, 1]], [[0.0, 1.0]], [[True, False]], "exactly one positive. Received: 0 in slate 0"),
        ([[0, 1]], [[0.0, math.nan]], [[True, True]], r"`scores` must not hold NaN. .* first at \[0, 1\]"),
        ([[0, 1]], [[0.0, 1.0]], [[1, 1]], "`mask` must be bool, True where the candidate is real"),
        ([[0, 3]], [[0.0, 1.0]], [[True, True]], "`labels` must be 0 or 1. Received: 3.0"),
        ([[0, 1]], [[0.0, 1.0]], [True, True], r"of one shape \[S, C\]. Received: shapes"),
        ([0, 1], [0.0, 1.0], [True, True], r"of one shape \[S, C\]. Received: shapes"),
        (np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3), bool), r"must be non-empty arrays of one shape"),
    ],
)
def test_bad_slates_are_refused(function, labels, scores, mask, message):
    with pytest.raises(ValueError, match=message):
        function(labels, scores, mask)
