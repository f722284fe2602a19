"""A ranker's metrics as functions of how often each user was drawn, which is what the bootstrap needs."""

import abc

import numba
import numpy as np
from scipy import stats

from benchmarks.evidence.evaluation_set import EvaluationSet
from tf_lift import metrics
from tf_lift.slate_grid import is_ranking, slate_grid

LOWER_IS_BETTER = ("LogLoss",)
LEADING = ("NDCG@10", "AUC")  # of a ranking, of single candidates: what plots and short tables show


class Measures(abc.ABC):
    """The metrics of one ranker on one evaluation set.

    Attributes:
        names: the metrics, in the order of the last axis of `values`.
        cost: numbers that one draw touches, for whoever bounds the memory of many.
    """

    names: tuple[str, ...]
    cost: int

    @abc.abstractmethod
    def values(self, weights: np.ndarray) -> np.ndarray:
        """Every metric in every column, for several draws of users.

        Args:
            weights: float64 [D, U], how often each user is in a draw.

        Returns:
            float64 [D, columns, metrics]; NaN where a draw has nothing to measure.
        """


class RankingMeasures(Measures):
    """HR@k, NDCG@k and MRR: means over slates, with the average rank of ties.

    Args:
        evaluation: the test candidates.
        scores: float64 [n], the higher, the better.
    """

    def __init__(self, evaluation: EvaluationSet, scores: np.ndarray) -> None:
        labels, mask = slate_grid(evaluation.slates, evaluation.labels)
        ranks = metrics.slate_ranks(labels, slate_grid(evaluation.slates, scores)[0], mask)
        distinct, places = np.unique(ranks, return_inverse=True)
        table = [metrics.ranking_metrics([rank]) for rank in distinct]
        self.names = tuple(table[0])
        per_slate = np.array([list(row.values()) for row in table])[places]  # [S, m]
        self._sums = _sum_by_user(evaluation, per_slate)  # [U, columns, m]
        self._counts = _sum_by_user(evaluation, np.ones((len(ranks), 1)))  # [U, columns, 1]
        self.cost = self._sums.size // len(self._sums) + len(self._sums)

    def values(self, weights: np.ndarray) -> np.ndarray:
        """See `Measures.values`."""
        return _weighted_mean(weights, self._sums, self._counts)


class BinaryMeasures(Measures):
    """AUC over all pairs, LogLoss, and the mean of the users' own AUCs weighted by their candidates.

    Args:
        evaluation: the test candidates.
        scores: float64 [n], whose order AUCs are of.
        probabilities: float64 [n], whose LogLoss is measured.
    """

    names = ("AUC", "LogLoss", "per-user AUC")

    def __init__(self, evaluation: EvaluationSet, scores: np.ndarray, probabilities: np.ndarray) -> None:
        users = evaluation.users[evaluation.slates]
        epsilon = metrics.LOG_LOSS_EPSILON
        clipped = np.clip(probabilities, epsilon, 1 - epsilon)
        losses = -np.log(np.where(evaluation.labels == 1, clipped, 1 - clipped))
        self._sums, self._counts, self._aucs = [], [], []
        for chosen in evaluation.columns.values():
            inside = chosen[evaluation.slates]
            labels, of_user = evaluation.labels[inside], users[inside]
            own_auc, num_own = _user_aucs(of_user, labels, scores[inside], evaluation.num_users)
            sum_losses = np.bincount(of_user, losses[inside], evaluation.num_users)
            num_losses = np.bincount(of_user, minlength=evaluation.num_users)
            self._sums.append(np.stack([sum_losses, own_auc * num_own], axis=1))
            self._counts.append(np.stack([num_losses, num_own], axis=1))
            self._aucs.append(_PooledAuc(labels, scores[inside], of_user))
        self.cost = len(users) + evaluation.num_users

    def values(self, weights: np.ndarray) -> np.ndarray:
        """See `Measures.values`."""
        means = _weighted_mean(weights, np.stack(self._sums, axis=1), np.stack(self._counts, axis=1))
        aucs = np.stack([pooled.values(weights) for pooled in self._aucs], axis=1)
        return np.concatenate([aucs[..., None], means], axis=-1)


class _PooledAuc:
    """The AUC over all pairs of candidates, where each candidate counts as often as its user was drawn."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> None:
        order = np.argsort(scores, kind="stable")
        ordered = scores[order]
        self._starts_run = np.append(True, ordered[1:] != ordered[:-1])  # of equal scores
        self._users, self._positive = users[order], labels[order] == 1

    def values(self, weights: np.ndarray) -> np.ndarray:
        """float64 [D] for weights [D, U]."""
        return _weighted_aucs(weights, self._users, self._positive, self._starts_run)


@numba.njit
def _weighted_aucs(
    weights: np.ndarray, users: np.ndarray, positive: np.ndarray, starts_run: np.ndarray
) -> np.ndarray:  # pragma: no cover
    """AUCs of candidates in the order of their scores, [n] each, one for each row of weights [D, U]; NaN without both labels.

    Compiled, as arrays of draws by candidates do not stay in the caches: over twenty times as slow (20,000 candidates, 1,000 draws).
    """
    aucs = np.empty(len(weights))
    for draw in range(len(weights)):
        won = below = positives = run_positives = run_negatives = 0.0
        for place in range(len(users)):
            if starts_run[place]:
                won += run_positives * (below + run_negatives / 2.0)
                below += run_negatives
                positives += run_positives
                run_positives = run_negatives = 0.0
            weight = weights[draw, users[place]]
            if positive[place]:
                run_positives += weight
            else:
                run_negatives += weight
        won += run_positives * (below + run_negatives / 2.0)
        pairs = (positives + run_positives) * (below + run_negatives)
        aucs[draw] = won / pairs if pairs > 0.0 else np.nan
    return aucs


def measure(evaluation: EvaluationSet, scores: np.ndarray, probabilities: np.ndarray) -> Measures:
    """The metrics that fit an evaluation set: of rankings where its slates are long enough, else of single candidates.

    Args:
        evaluation: the test candidates.
        scores: float64 [n], the higher, the better.
        probabilities: float64 [n], of a positive label; a ranking does not read them.
    """
    if is_ranking(evaluation.slates):
        return RankingMeasures(evaluation, scores)
    return BinaryMeasures(evaluation, scores, probabilities)


def _user_aucs(
    users: np.ndarray, labels: np.ndarray, scores: np.ndarray, num_users: int
) -> tuple[np.ndarray, np.ndarray]:
    """Each user's own AUC, and the number of candidates that it counts for: both 0 for a user with one kind of label."""
    _, level = np.unique(scores, return_inverse=True)
    ranks = stats.rankdata(users * (level.max() + 1.0) + level)  # users' blocks one after another; ties averaged
    counts = np.bincount(users, minlength=num_users)
    positives = np.bincount(users, labels, num_users)
    before = np.cumsum(counts) - counts
    rank_sums = np.bincount(users, labels * (ranks - before[users]), num_users)
    pairs = positives * (counts - positives)
    own = np.where(pairs > 0, (rank_sums - positives * (positives + 1) / 2) / np.maximum(pairs, 1), 0.0)
    return own, np.where(pairs > 0, counts, 0)


def _sum_by_user(evaluation: EvaluationSet, per_slate: np.ndarray) -> np.ndarray:
    """Sums of slates' values [S, m] over each user's slates of a column: float64 [U, columns, m]."""
    sums = np.zeros((evaluation.num_users, len(evaluation.columns), per_slate.shape[1]))
    for column, chosen in enumerate(evaluation.columns.values()):
        np.add.at(sums[:, column], evaluation.users[chosen], per_slate[chosen])
    return sums


def _weighted_mean(weights: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weighted sums over weighted counts, both [U, columns, m]: float64 [D, columns, m]."""
    with np.errstate(invalid="ignore"):
        return np.tensordot(weights, sums, axes=1) / np.tensordot(weights, counts, axes=1)
