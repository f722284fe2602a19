"""The instrument's numbers: measures beside the metrics' own definitions, and the bootstrap beside a slow loop."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.evidence import compare as compare_module
from benchmarks.evidence.compare import MeasuredRanker, compare
from benchmarks.evidence.evaluation_set import POOLED, EvaluationSet
from benchmarks.evidence.measures import measure
from benchmarks.evidence.tables import format_difference
from tf_lift import metrics
from tf_lift.baselines.no_learning import Candidates

NUM_USERS = 7


def make_evaluation(counts: list[int], seed: int = 0) -> EvaluationSet:
    """Slates of given lengths: one positive each where they have several candidates, chance labels where they have one."""
    rng = np.random.default_rng(seed)
    labels = [rng.permutation(np.eye(1, count)[0]) if count > 1 else rng.integers(0, 2, 1) for count in counts]
    users = np.concatenate([np.arange(NUM_USERS), rng.integers(0, NUM_USERS, len(counts) - NUM_USERS)])
    early = rng.random(len(counts)) < 0.4
    return EvaluationSet(
        np.concatenate(labels).astype(np.float64),
        np.repeat(np.arange(len(counts)), counts),
        users,
        {POOLED: np.ones(len(counts), bool), "early": early, "late": ~early},
        Candidates(np.zeros((0, 2)), *[np.zeros(0)] * 5),
        "a protocol.",
        "hash",
    )


def make_rankers(evaluation: EvaluationSet) -> dict[str, list[np.ndarray]]:
    """Probabilities by ranker and seed, with many ties."""
    rng = np.random.default_rng(1)
    size = len(evaluation.labels)
    draw = lambda lift: np.round(np.clip(rng.random(size) * 0.6 + lift * evaluation.labels, 0.01, 0.99), 1)  # noqa: E731
    return {"ours": [draw(0.3), draw(0.3)], "less": [draw(0.25)], "peer": [draw(0.2), draw(0.2)], "rule": [draw(0.1)]}


def slow_metrics(evaluation: EvaluationSet, scores: np.ndarray, drawn_slates: np.ndarray) -> dict[str, float]:
    """Every metric of slates that may repeat, by building the drawn split row by row."""
    rows = [np.flatnonzero(evaluation.slates == slate) for slate in drawn_slates]
    if max(map(len, rows)) > 1:
        width = max(map(len, rows))
        grid, truth, mask = (np.zeros((len(rows), width)) for _ in range(3))
        for place, row in enumerate(rows):
            grid[place, : len(row)], truth[place, : len(row)] = scores[row], evaluation.labels[row]
            mask[place, : len(row)] = 1
        return metrics.ranking_metrics(metrics.slate_ranks(truth, grid, mask.astype(bool)))
    flat = np.concatenate(rows)
    labels, users = evaluation.labels[flat], evaluation.users[evaluation.slates[flat]]
    return {
        "AUC": metrics.auc(labels, scores[flat]),
        "LogLoss": metrics.log_loss(labels, scores[flat]),
        "per-user AUC": metrics.per_user_auc(users, labels, scores[flat])[0],
    }


RANKED, SINGLE = [12] * 20 + [15, 11], [1] * 60


@pytest.mark.parametrize("counts", [RANKED, SINGLE], ids=["slates", "single candidates"])
def test_bootstrap_is_the_slow_loop(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = make_evaluation(counts)
    answers = make_rankers(evaluation)
    kinds = {"ours": "ours", "less": "ours", "peer": "learned", "rule": "rule"}
    measured = [
        MeasuredRanker(name, kinds[name], [measure(evaluation, seed, seed) for seed in seeds])
        for name, seeds in answers.items()
    ]
    monkeypatch.setattr(compare_module, "_NUMBERS_AT_ONCE", 500)  # several blocks of draws
    num_draws = 40
    table = compare(measured, list(evaluation.columns), NUM_USERS, num_draws)

    rng = np.random.default_rng(compare_module._SEED)
    draws = rng.multinomial(NUM_USERS, np.full(NUM_USERS, 1 / NUM_USERS), size=num_draws)
    slates_of = [np.flatnonzero(evaluation.users == user) for user in range(NUM_USERS)]
    for column, chosen in evaluation.columns.items():
        for metric in table["metrics"]:
            sign = -1 if metric == "LogLoss" else 1
            drawn: dict[str, list[float]] = {name: [] for name in answers}
            for times in draws:
                slates = np.concatenate(
                    [np.tile(of_user, count) for of_user, count in zip(slates_of, times, strict=True)]
                )
                slates = slates[chosen[slates]]
                for name, seeds in answers.items():
                    each = [slow_metrics(evaluation, scores, slates)[metric] for scores in seeds]
                    drawn[name].append(sign * float(np.mean(each)))
            whole = {
                name: [slow_metrics(evaluation, scores, np.flatnonzero(chosen))[metric] for scores in seeds]
                for name, seeds in answers.items()
            }
            for name in answers:
                cell = table["rankers"][name][column][metric]
                others = [other for other in ("peer", "rule") if other != name]
                best = max(others, key=lambda other: sign * np.mean(whole[other]))
                sample = np.array(drawn[name]) - np.array(drawn[best])
                assert cell["mean"] == pytest.approx(np.mean(whole[name]))
                assert cell["best_peer"] == best
                assert cell["difference"] == pytest.approx(sign * (np.mean(whole[name]) - np.mean(whole[best])))
                assert [cell["low"], cell["high"]] == pytest.approx(np.nanquantile(sample, [0.025, 0.975]))
                expected = np.std(whole[name], ddof=1) if len(whole[name]) > 1 else None
                assert cell["spread"] == (expected if expected is None else pytest.approx(expected))
            assert list(table["gains"]) == ["less"]
            gain, sample = table["gains"]["less"][column][metric], np.array(drawn["ours"]) - np.array(drawn["less"])
            assert gain["difference"] == pytest.approx(sign * (np.mean(whole["ours"]) - np.mean(whole["less"])))
            assert [gain["low"], gain["high"]] == pytest.approx(np.nanquantile(sample, [0.025, 0.975]))


def test_a_user_without_both_labels_counts_for_nothing_in_the_own_auc() -> None:
    evaluation = make_evaluation(SINGLE)
    labels = np.where(evaluation.users == 3, 1.0, evaluation.labels)  # user 3 has positives only
    evaluation = EvaluationSet(labels, *(getattr(evaluation, name) for name in list(vars(evaluation))[1:]))
    scores = np.random.default_rng(2).random(60)
    found = measure(evaluation, scores, scores).values(np.ones((1, NUM_USERS)))[0, 0]
    assert found[2] == pytest.approx(metrics.per_user_auc(evaluation.users, labels, scores)[0])


def test_equal_answers_differ_by_nothing_and_a_lone_peer_has_no_other() -> None:
    evaluation = make_evaluation(RANKED)
    scores = np.random.default_rng(3).random(len(evaluation.labels))
    twins = [
        MeasuredRanker(name, kind, [measure(evaluation, scores, scores)])
        for name, kind in (("a", "ours"), ("b", "rule"))
    ]
    table = compare(twins, list(evaluation.columns), NUM_USERS, 20)["rankers"]
    cell = table["a"][POOLED]["NDCG@10"]
    assert (cell["difference"], cell["low"], cell["high"]) == (0.0, 0.0, 0.0)
    assert table["b"][POOLED]["NDCG@10"]["best_peer"] is None


def test_a_gain_in_an_undefined_metric_is_left_out() -> None:
    evaluation = make_evaluation(SINGLE)
    labels = np.ones_like(evaluation.labels)  # no user has both labels
    evaluation = EvaluationSet(labels, *(getattr(evaluation, name) for name in list(vars(evaluation))[1:]))
    scores = np.random.default_rng(2).random((2, 60))
    ours = [
        MeasuredRanker(str(place), "ours", [measure(evaluation, of_run, of_run)]) for place, of_run in enumerate(scores)
    ]
    gains = compare(ours, list(evaluation.columns), NUM_USERS, 20)["gains"]["1"][POOLED]
    assert gains["per-user AUC"] == {} and set(gains["LogLoss"]) == {"difference", "low", "high", "by_seed"}
    assert format_difference(gains["per-user AUC"]) == "-"


def test_a_gain_tells_each_seed_s_own() -> None:
    evaluation = make_evaluation(SINGLE)
    scores = np.random.default_rng(2).random((2, 3, 60))
    ours = [
        MeasuredRanker(str(place), "ours", [measure(evaluation, seed, seed) for seed in of_ranker])
        for place, of_ranker in enumerate(scores)
    ]
    gain = compare(ours, list(evaluation.columns), NUM_USERS, 20)["gains"]["1"][POOLED]["LogLoss"]
    losses = [[metrics.log_loss(evaluation.labels, seed) for seed in of_ranker] for of_ranker in scores]
    np.testing.assert_allclose(gain["by_seed"], np.subtract(losses[1], losses[0]))  # positive where the first is better
    assert gain["difference"] == pytest.approx(np.mean(gain["by_seed"]))
