"""Rankers beside each other: means and spreads over seeds, and paired bootstrap intervals of their differences."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.evidence.measures import LOWER_IS_BETTER, Measures

NUM_DRAWS = 1000
_SEED = 11  # of the draws: the same for every ranker, so that differences are paired
_LEVELS = (0.025, 0.975)  # of the interval
_NUMBERS_AT_ONCE = 1 << 23  # that a block of draws touches, in float64


@dataclasses.dataclass(frozen=True)
class MeasuredRanker:
    """A ranker's metrics, one `Measures` for each seed.

    Attributes:
        name: as the tables call it.
        kind: `rule`, `learned` or `ours`; the first two are peers.
        runs: one for each seed; a rule has one.
    """

    name: str
    kind: str
    runs: Sequence[Measures]


def compare(
    rankers: Sequence[MeasuredRanker], columns: Sequence[str], num_users: int, num_draws: int = NUM_DRAWS
) -> dict[str, Any]:
    """Compares every ranker with the best other peer, metric by metric and column by column.

    Users are drawn with replacement, all their slates with them. A draw's value of a ranker is its mean over the seeds, so an interval
    says what another sample of users would change, not what another seed would. The best peer is chosen by the very number that is
    shown: no ranker gets a weaker opponent than there is.

    Args:
        rankers: of one evaluation set.
        columns: its columns.
        num_users: U.
        num_draws: bootstrap samples of users.

    Returns:
        `metrics`, `columns`, `num_draws`; `rankers`: name -> column -> metric -> `mean`, `spread` (standard deviation over seeds,
        None for one), `best_peer` (None where there is no other), `difference` (positive where the ranker is better), `low` and
        `high` (of its 95 % interval); and `gains`, of the first ranker of kind `ours` over each other one of that kind: name -> column ->
        metric -> the last three and `by_seed`, the difference of each seed, or nothing where a metric is undefined.
    """
    names = rankers[0].runs[0].names
    signs = np.array([-1.0 if name in LOWER_IS_BETTER else 1.0 for name in names])
    points = {
        ranker.name: _of_seeds(ranker, np.ones((1, num_users)))[:, 0] for ranker in rankers
    }  # [seeds, columns, m]
    draws: dict[str, list[np.ndarray]] = {ranker.name: [] for ranker in rankers}
    for weights in _draw_users(num_users, num_draws, max(run.cost for ranker in rankers for run in ranker.runs)):
        for ranker in rankers:
            draws[ranker.name].append(signs * _of_seeds(ranker, weights).mean(axis=0))
    samples = {name: np.concatenate(parts) for name, parts in draws.items()}  # [draws, columns, m]
    peers = [ranker.name for ranker in rankers if ranker.kind != "ours"]
    own = [ranker.name for ranker in rankers if ranker.kind == "ours"]
    table: dict[str, Any] = {ranker.name: {column: {} for column in columns} for ranker in rankers}
    gained: dict[str, Any] = {name: {column: {} for column in columns} for name in own[1:]}
    for c, column in enumerate(columns):
        for m, metric in enumerate(names):
            gains = {name: float(signs[m] * values[:, c, m].mean()) for name, values in points.items()}
            drawn = {name: sample[:, c, m] for name, sample in samples.items()}
            for name, values in points.items():
                spread = float(np.std(values[:, c, m], ddof=1)) if len(values) > 1 else None
                mean = {"mean": float(values[:, c, m].mean()), "spread": spread}
                table[name][column][metric] = mean | _find_difference(name, peers, gains, drawn)
            for other in gained:
                gain = _difference(own[0], other, gains, drawn)
                by_seed = signs[m] * (points[own[0]][:, c, m] - points[other][:, c, m])
                gained[other][column][metric] = gain | ({"by_seed": by_seed.tolist()} if gain else {})
    return {
        "metrics": list(names),
        "columns": list(columns),
        "num_draws": num_draws,
        "rankers": table,
        "gains": gained,
    }


def _of_seeds(ranker: MeasuredRanker, weights: np.ndarray) -> np.ndarray:
    """float64 [seeds, D, columns, metrics]."""
    return np.stack([run.values(weights) for run in ranker.runs])


def _draw_users(num_users: int, num_draws: int, cost: int) -> Iterator[np.ndarray]:
    """Blocks of float64 [d, U], num_draws rows in all: how often each user is in each draw of num_users."""
    rng = np.random.default_rng(_SEED)
    block = max(1, _NUMBERS_AT_ONCE // max(cost, num_users))
    for start in range(0, num_draws, block):
        size = min(block, num_draws - start)
        yield rng.multinomial(num_users, np.full(num_users, 1.0 / num_users), size=size).astype(np.float64)


def _find_difference(
    name: str, peers: Sequence[str], gains: Mapping[str, float], drawn: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """The difference of a ranker from the best other peer; `gains` and `drawn` are higher where better."""
    able = [peer for peer in peers if peer != name and np.isfinite(gains[peer])]
    if not able or not np.isfinite(gains[name]):
        return {"best_peer": None}
    best = max(able, key=lambda peer: gains[peer])
    return {"best_peer": best, **_difference(name, best, gains, drawn)}


def _difference(name: str, other: str, gains: Mapping[str, float], drawn: Mapping[str, np.ndarray]) -> dict[str, float]:
    if not (np.isfinite(gains[name]) and np.isfinite(gains[other])):
        return {}
    low, high = np.nanquantile(drawn[name] - drawn[other], _LEVELS)
    return {"difference": gains[name] - gains[other], "low": float(low), "high": float(high)}
