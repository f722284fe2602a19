"""The numbers of an evaluation, as pure functions over NumPy arrays.

Two families. *Binary* metrics judge the probability of one interaction each: AUC, LogLoss, per-user AUC and calibration
error. *Ranking* metrics judge slates, each of which holds exactly one positive: HR@k, NDCG@k and MRR.

Ties never help: AUC counts a tied pair as half, and a positive tied with others takes the average rank of its tie
block, so that a constant scorer looks like what it is. Sums are in float64 whatever the input. No TensorFlow here.

Shape letters: n examples, S slates, C candidates of a slate.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

LOG_LOSS_EPSILON = 1e-7  # probabilities are clipped to [epsilon, 1 - epsilon]: the worst example costs 16.1 nats
MAX_ROC_POINTS = 500  # a curve is drawn a few hundred pixels wide, so more points only make the report larger
HIT_RATE_CUTOFFS = (1, 5, 10)
NDCG_CUTOFFS = (5, 10)


def auc(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Returns the area under the ROC curve: P(score of a positive > score of a negative) + P(they are equal) / 2.

    Args:
        labels: [n], 0 or 1.
        scores: [n], real; only their order matters, infinities are allowed.
        weights: [n], finite, not negative. A pair counts the product of its two weights. None: every example counts 1.

    Returns:
        A number in [0, 1], or nan if only one class is there (or only one has a positive total weight).

    Raises:
        ValueError: An input is empty, holds NaN, or has the wrong shape or values.
    """
    truth = _as_labels(labels)
    values = _as_scores("scores", scores, truth.size)
    weight = np.ones(truth.size) if weights is None else _as_weights(weights, truth.size)
    order = np.argsort(values, kind="stable")
    starts = _block_starts(values[order])
    positive = np.add.reduceat(np.where(truth, weight, 0.0)[order], starts)
    negative = np.add.reduceat(np.where(truth, 0.0, weight)[order], starts)
    total_positive, total_negative = positive.sum(), negative.sum()
    if total_positive == 0 or total_negative == 0:
        return float("nan")
    below = np.cumsum(negative) - negative
    beaten_fraction = (below + negative / 2) / total_negative
    return min(1.0, float(positive @ beaten_fraction / total_positive))


def log_loss(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Returns the mean of -ln(p) over the positives and -ln(1 - p) over the negatives, in nats.

    Args:
        labels: [n], 0 or 1.
        probabilities: [n], each in [0, 1]; clipped to [LOG_LOSS_EPSILON, 1 - LOG_LOSS_EPSILON].

    Raises:
        ValueError: An input is empty, holds NaN, or has the wrong shape or values.
    """
    truth = _as_labels(labels)
    clipped = np.clip(_as_probabilities(probabilities, truth.size), LOG_LOSS_EPSILON, 1 - LOG_LOSS_EPSILON)
    return float(-np.log(np.where(truth, clipped, 1 - clipped)).mean())


def per_user_auc(users: ArrayLike, labels: ArrayLike, scores: ArrayLike) -> tuple[float, int]:
    """Returns the mean of the users' own AUCs, weighted by the number of their examples (GAUC).

    A user whose examples are all of one class has no AUC and is left out, weight included.

    It is biased against scores that follow a user's own labels. Given a user's labels in any order, a positive has fewer positives and
    more negatives before it than a negative has, so that to rank by the rate of positives so far has a per-user AUC below .5: 0 for two
    examples of a user, nearer to .5 the more there are.

    Args:
        users: [n], integers or strings, in any order.
        labels: [n], 0 or 1.
        scores: [n], real.

    Returns:
        (value, number of users in the mean); (nan, 0) if no user has both classes.

    Raises:
        ValueError: An input is empty, holds NaN, or has the wrong shape, type or values.
    """
    truth = _as_labels(labels)
    values = _as_scores("scores", scores, truth.size)
    user = _as_users(users, truth.size)
    order = np.lexsort((values, user))
    user, values = user[order], values[order]
    positive = truth[order].astype(np.int64)
    user_starts = _block_starts(user)
    is_block_start = np.zeros(truth.size, np.bool_)  # a block is a run of one user and one score
    is_block_start[user_starts] = is_block_start[_block_starts(values)] = True
    blocks = np.flatnonzero(is_block_start)
    first_block_of_user = np.searchsorted(blocks, user_starts)

    block_sizes = np.diff(np.append(blocks, positive.size))
    block_positives = np.add.reduceat(positive, blocks)
    block_negatives = block_sizes - block_positives
    negatives_before = np.cumsum(block_negatives) - block_negatives
    num_blocks_of_user = np.diff(np.append(first_block_of_user, blocks.size))
    below = negatives_before - np.repeat(negatives_before[first_block_of_user], num_blocks_of_user)
    half_pairs_won = np.add.reduceat(block_positives * (2 * below + block_negatives), first_block_of_user)

    positives = np.add.reduceat(positive, user_starts)
    examples = np.diff(np.append(user_starts, positive.size))
    pairs = positives * (examples - positives)
    used = pairs > 0
    if not used.any():
        return float("nan"), 0
    user_aucs = half_pairs_won[used] / (2 * pairs[used])
    return float(np.average(user_aucs, weights=examples[used])), int(used.sum())


def calibration_curve(
    labels: ArrayLike, probabilities: ArrayLike, num_bins: int = 15
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Returns what was promised and what came true, over bins of about equal numbers of examples.

    The examples are sorted by probability and cut into `num_bins` runs. Equal probabilities are never separated (they
    all go where the middle one of them falls), so the result does not depend on the order of the rows; bins that are
    empty because of that are left out.

    Args:
        labels: [n], 0 or 1.
        probabilities: [n], each in [0, 1].
        num_bins: at least 1.

    Returns:
        (mean probability, mean label, number of examples) of each bin, lowest probability first: float64, float64 and
        int64 arrays [b], 1 <= b <= num_bins.

    Raises:
        ValueError: An input is empty, holds NaN, or has the wrong shape or values; or `num_bins` is below 1.
    """
    if num_bins < 1:
        raise ValueError(f"`num_bins` must be at least 1. Received: {num_bins}.")
    truth = _as_labels(labels)
    probability = _as_probabilities(probabilities, truth.size)
    order = np.argsort(probability, kind="stable")
    truth, probability = truth[order], probability[order]
    starts = _block_starts(probability)
    sizes = np.diff(np.append(starts, truth.size))
    middles = starts + (sizes - 1) // 2
    bin_ids = np.repeat(middles * num_bins // truth.size, sizes)
    _, bins, counts = np.unique(bin_ids, return_inverse=True, return_counts=True)
    mean_probability = np.bincount(bins, weights=probability) / counts
    mean_label = np.bincount(bins, weights=truth) / counts
    return mean_probability, mean_label, counts.astype(np.int64)


def calibration_error(labels: ArrayLike, probabilities: ArrayLike, num_bins: int = 15) -> float:
    """Returns the expected calibration error: the mean over examples of |mean probability - mean label| of their bin.

    The bins, the arguments and the errors are those of `calibration_curve`.
    """
    mean_probability, mean_label, counts = calibration_curve(labels, probabilities, num_bins)
    return float(np.average(np.abs(mean_probability - mean_label), weights=counts))


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Returns the ROC curve: (false positive rate [p], true positive rate [p]), from (0, 0) to (1, 1).

    There is a point after each distinct score, thinned to at most MAX_ROC_POINTS, evenly along the curve. Both arrays
    are empty if only one class is there, as there is no curve then.

    Args:
        labels: [n], 0 or 1.
        scores: [n], real.

    Raises:
        ValueError: An input is empty, holds NaN, or has the wrong shape or values.
    """
    truth = _as_labels(labels)
    values = _as_scores("scores", scores, truth.size)
    if truth.all() or not truth.any():
        return np.empty(0), np.empty(0)
    order = np.argsort(-values, kind="stable")
    ends = np.append(_block_starts(values[order])[1:], truth.size)
    true_positives = np.append(0, np.cumsum(truth[order])[ends - 1])
    false_positives = np.append(0, ends) - true_positives
    tpr = true_positives / true_positives[-1]
    fpr = false_positives / false_positives[-1]
    if fpr.size > MAX_ROC_POINTS:
        kept = np.unique(np.searchsorted(fpr + tpr, np.linspace(0.0, 2.0, MAX_ROC_POINTS)))
        fpr, tpr = fpr[kept], tpr[kept]
    return fpr, tpr


def slate_ranks(labels: ArrayLike, scores: ArrayLike, mask: ArrayLike) -> FloatArray:
    """Returns the rank of each slate's positive: 1 + candidates above it + other candidates level with it / 2.

    Args:
        labels: [S, C], 0 or 1, exactly one 1 among the real candidates of a slate.
        scores: [S, C], real; the highest ranks first.
        mask: [S, C], bool, True where the candidate is real; labels and scores elsewhere are ignored.

    Returns:
        [S] float64, each at least 1.0; a rank ending in .5 is a tie with an odd number of others.

    Raises:
        ValueError: An input is empty, a real candidate has NaN, shapes or types are wrong, or a slate does not have
            exactly one positive.
    """
    num_higher, num_equal_others = _positions_of_positives(labels, scores, mask)
    return 1.0 + num_higher + num_equal_others / 2


def ranking_metrics(ranks: ArrayLike) -> dict[str, float]:
    """Returns HR@1, HR@5, HR@10, NDCG@5, NDCG@10 and MRR, each the mean over slates with one positive.

    With r the rank of the positive: HR@k = [r <= k]; NDCG@k = [r <= k] / log2(r + 1); MRR = 1 / r, not truncated.

    Args:
        ranks: [S], real, 1-based, as `slate_ranks` gives them.

    Raises:
        ValueError: `ranks` is empty, not of rank 1, or holds a number below 1 or not finite.
    """
    rank = _as_real("ranks", ranks)
    if rank.ndim != 1 or rank.size == 0:
        raise ValueError(f"`ranks` must be a non-empty array of shape [S]. Received: shape {rank.shape}.")
    bad = np.flatnonzero(~(np.isfinite(rank) & (rank >= 1)))
    if bad.size:
        raise ValueError(
            f"`ranks` must be finite and at least 1 (they are 1-based). Received: {rank[bad[0]]} in slate {bad[0]}."
        )
    values = {f"HR@{k}": float(np.mean(rank <= k)) for k in HIT_RATE_CUTOFFS}
    gain = 1 / np.log2(rank + 1)
    values |= {f"NDCG@{k}": float(np.mean(np.where(rank <= k, gain, 0.0))) for k in NDCG_CUTOFFS}
    values["MRR"] = float(np.mean(1 / rank))
    return values


def ranking_metrics_expected_over_ties(labels: ArrayLike, scores: ArrayLike, mask: ArrayLike) -> dict[str, float]:
    """Returns the exact expectation of `ranking_metrics` when tied candidates are put in a random order.

    A positive that is level with e others below h higher ones has each of the ranks h + 1, ..., h + 1 + e with
    probability 1 / (e + 1). A constant scorer thus gets the numbers of a random one (HR@10 = 10 / C), where average
    ranks give it HR@10 = 0 as soon as C > 19.

    Args:
        labels: [S, C]; scores: [S, C]; mask: [S, C]: as in `slate_ranks`, and with its errors.

    Returns:
        The keys of `ranking_metrics`.
    """
    num_higher, num_equal_others = _positions_of_positives(labels, scores, mask)
    block_size = num_equal_others + 1
    rank = np.arange(1, int((num_higher + block_size).max()) + 1)

    def mean_over_block(value_of_rank: FloatArray) -> float:
        sum_to_rank = np.append(0.0, np.cumsum(value_of_rank))
        return float(np.mean((sum_to_rank[num_higher + block_size] - sum_to_rank[num_higher]) / block_size))

    values = {f"HR@{k}": mean_over_block((rank <= k).astype(np.float64)) for k in HIT_RATE_CUTOFFS}
    gain = 1 / np.log2(rank + 1)
    values |= {f"NDCG@{k}": mean_over_block(np.where(rank <= k, gain, 0.0)) for k in NDCG_CUTOFFS}
    values["MRR"] = mean_over_block(1 / rank)
    return values


def binary_metrics(labels: ArrayLike, probabilities: ArrayLike, users: ArrayLike) -> dict[str, float]:
    """Returns {"AUC", "LogLoss", "per-user AUC", "calibration error"} of one set of examples.

    Args:
        labels: [n], 0 or 1.
        probabilities: [n], each in [0, 1].
        users: [n], integers or strings.

    Raises:
        ValueError: An input is empty, holds NaN, or has the wrong shape, type or values.
    """
    return {
        "AUC": auc(labels, probabilities),
        "LogLoss": log_loss(labels, probabilities),
        "per-user AUC": per_user_auc(users, labels, probabilities)[0],
        "calibration error": calibration_error(labels, probabilities),
    }


def _positions_of_positives(labels: ArrayLike, scores: ArrayLike, mask: ArrayLike) -> tuple[IntArray, IntArray]:
    """Returns how many real candidates of each slate are above its positive, and how many level with it: int64 [S]."""
    truth, values, real = _as_real("labels", labels), _as_real("scores", scores), np.asarray(mask)
    if truth.ndim != 2 or truth.size == 0 or values.shape != truth.shape or real.shape != truth.shape:
        raise ValueError(
            "`labels`, `scores` and `mask` must be non-empty arrays of one shape [S, C]. Received: shapes "
            f"{truth.shape}, {values.shape} and {real.shape}."
        )
    if real.dtype != np.bool_:
        raise ValueError(f"`mask` must be bool, True where the candidate is real. Received: dtype {real.dtype}.")
    _check_no_nan("scores", np.where(real, values, 0.0))
    _check_zero_or_one(np.where(real, truth, 0.0))
    positive = (truth == 1) & real
    num_positives = positive.sum(axis=1)
    bad = np.flatnonzero(num_positives != 1)
    if bad.size:
        raise ValueError(
            f"Every slate must have exactly one positive. Received: {num_positives[bad[0]]} in slate {bad[0]} "
            f"({bad.size} of {len(truth)} slates are wrong). Drop those slates, or split them at their positives."
        )
    positive_score = np.take_along_axis(values, positive.argmax(axis=1)[:, None], axis=1)  # [S, 1]
    num_higher = ((values > positive_score) & real).sum(axis=1)
    num_equal = ((values == positive_score) & real).sum(axis=1)
    return num_higher, num_equal - 1


def _block_starts(ordered: NDArray[Any]) -> IntArray:
    """Returns where each run of equal values starts: [number of runs] int64."""
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])).astype(np.int64)


def _as_real(name: str, values: ArrayLike) -> FloatArray:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` must hold real numbers. Received: dtype {array.dtype}.")
    return array.astype(np.float64)


def _as_labels(labels: ArrayLike) -> NDArray[np.bool_]:
    truth = _as_real("labels", labels)
    if truth.ndim != 1 or truth.size == 0:
        raise ValueError(f"`labels` must be a non-empty array of shape [n]. Received: shape {truth.shape}.")
    _check_zero_or_one(truth)
    return truth == 1


def _as_scores(name: str, scores: ArrayLike, num_examples: int) -> FloatArray:
    values = _as_real(name, scores)
    _check_length(name, values, num_examples)
    _check_no_nan(name, values)
    return values


def _as_probabilities(probabilities: ArrayLike, num_examples: int) -> FloatArray:
    values = _as_scores("probabilities", probabilities, num_examples)
    bad = np.flatnonzero((values < 0) | (values > 1))
    if bad.size:
        raise ValueError(
            f"`probabilities` must be in [0, 1]. Received: {values[bad[0]]} at {bad[0]}. Pass logits through a sigmoid."
        )
    return values


def _as_weights(weights: ArrayLike, num_examples: int) -> FloatArray:
    values = _as_scores("weights", weights, num_examples)
    bad = np.flatnonzero((values < 0) | np.isinf(values))
    if bad.size:
        raise ValueError(f"`weights` must be finite and not negative. Received: {values[bad[0]]} at {bad[0]}.")
    return values


def _as_users(users: ArrayLike, num_examples: int) -> NDArray[Any]:
    array = np.asarray(users)
    if array.dtype.kind == "O":
        array = array.astype(np.str_)
    if array.dtype.kind not in "iuSU":
        raise ValueError(f"`users` must hold integers or strings. Received: dtype {array.dtype}.")
    _check_length("users", array, num_examples)
    return array


def _check_length(name: str, array: NDArray[Any], num_examples: int) -> None:
    if array.shape != (num_examples,):
        raise ValueError(f"`{name}` must have shape [{num_examples}], like `labels`. Received: shape {array.shape}.")


def _check_no_nan(name: str, values: FloatArray) -> None:
    if np.isnan(values).any():
        index = ", ".join(str(i) for i in np.argwhere(np.isnan(values))[0])
        raise ValueError(
            f"`{name}` must not hold NaN. Received: {int(np.isnan(values).sum())}, the first at [{index}]."
        )


def _check_zero_or_one(labels: FloatArray) -> None:
    bad = labels[(labels != 0) & (labels != 1)]
    if bad.size:
        raise ValueError(f"`labels` must be 0 or 1. Received: {bad[0]}. Choose the behaviour that counts as positive.")
