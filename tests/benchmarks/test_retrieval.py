"""The retrieval benchmark on small pools: its truth, its comparison, its processes and limits, and what it writes."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.retrieval import command, measure, runner
from benchmarks.retrieval.data import DataSpec, Rows, draw_zipf, load
from benchmarks.retrieval.engines import ENGINES, OURS, missing_packages
from benchmarks.retrieval.reference import Answers, brute_force, compare
from benchmarks.retrieval.report import find_growth, find_ratios, plot, print_report, table_rows
from tf_lift.retrieval.bm25 import SCORE_UNITS

K = 10
SMALL = DataSpec("synthetic 3,000", "synthetic", 3000)
NEEDS_PSUTIL = pytest.mark.skipif(importlib.util.find_spec("psutil") is None, reason="psutil watches the memory")


def make_limits(**changes: float) -> runner.Limits:
    limits = runner.Limits(K, 200, 20, 0.2, 60, 4 * runner.GIBIBYTE)
    return dataclasses.replace(limits, **changes)


def make_outcome(engine: str, num_rows: int, rate: float, **changes: object) -> dict[str, object]:
    outcome = {
        "data": f"synthetic {num_rows}",
        "engine": engine,
        "status": "ok",
        "num_rows": num_rows,
        "build_seconds": 2.0,
        "index_bytes": 50 * num_rows,
        "build_peak_bytes_above_inputs": 80 * num_rows,
        "peak_bytes": 100 * num_rows,
        "queries_per_second": {"": rate},
        "agreement": {"num_targets": 20, "scores": 1.0, "rows": 1.0, "first_difference": ""},
    }
    return {**outcome, **changes}


def fixed_rows(fields: list[list[int]], users: list[int] | None = None) -> Rows:
    values = np.array(fields, np.int32)
    user = values[:, 0] if users is None else np.array(users, np.int32)
    return Rows(values, np.arange(len(values), dtype=np.int64), user, np.zeros(len(values), bool))


def test_synthetic_logs_are_the_same_every_time_and_an_item_has_one_category():
    first, second = load(SMALL, 50), load(SMALL, 50)
    assert np.array_equal(first.pool.fields, second.pool.fields)
    assert np.array_equal(first.targets.fields, second.targets.fields)
    assert not np.array_equal(first.targets.fields, first.pool.fields[:50])
    pairs = np.unique(first.pool.fields[:, 1:3], axis=0)
    assert len(pairs) == len(np.unique(pairs[:, 0]))
    assert first.pool.fields.min() == 2
    assert (first.pool.fields.max(axis=0) < first.num_ids).all()


def test_zipf_frequencies_follow_the_law():
    drawn = np.bincount(draw_zipf(np.random.default_rng(3), 50, 0.5, 400_000), minlength=50)
    edges = np.arange(1, 52) ** 0.5
    expected = 400_000 * np.diff(edges) / (edges[-1] - edges[0])
    assert len(drawn) == 50
    np.testing.assert_allclose(drawn, expected, rtol=0.06)


def test_brute_force_by_hand():
    pool = fixed_rows([[2, 2], [2, 3], [3, 2], [2, 2], [4, 4]])
    found = brute_force(pool, fixed_rows([[2, 2], [9, 9]]), SMALL, 4)
    idf = np.log(1 + (5 - 3 + 0.5) / (3 + 0.5))
    assert found.rows.tolist() == [[3, 0, 2, 1], [-1] * 4]
    np.testing.assert_allclose(found.scores, [[2 * idf, 2 * idf, idf, idf], [0] * 4], atol=1 / SCORE_UNITS)


def test_brute_force_rolling_and_without_the_own_user():
    pool = fixed_rows([[2, 2], [2, 3], [3, 2], [2, 2]], users=[1, 2, 3, 1])
    target = Rows(np.array([[2, 2]], np.int32), np.array([3]), np.array([1], np.int32), np.zeros(1, bool))
    rolling = dataclasses.replace(SMALL, rolling=True)
    assert brute_force(pool, target, rolling, 4).rows.tolist() == [[0, 2, 1, -1]]
    assert brute_force(pool, target, dataclasses.replace(rolling, exclude_own_user=True), 4).rows.tolist() == [
        [2, 1, -1, -1]
    ]


def test_compare_tells_scores_from_rows():
    truth = Answers(np.array([[5, 4], [3, 2]], np.int32), np.array([[2.0, 1.0], [1.0, 1.0]], np.float32))
    assert compare(truth, truth, 0.0).first_difference == ""
    other_order = compare(dataclasses.replace(truth, rows=np.array([[5, 4], [2, 3]], np.int32)), truth, 0.0)
    assert (other_order.scores, other_order.rows) == (1.0, 0.5)
    assert "target 1 of 2: rows [2, 3]" in other_order.first_difference
    close = dataclasses.replace(truth, scores=truth.scores * np.float32(1.00001))
    assert (compare(close, truth, 1e-4).scores, compare(close, truth, 0.0).scores) == (1.0, 0.0)
    with pytest.raises(ValueError, match="must be of the same targets. Received"):
        compare(Answers(truth.rows[:1], truth.scores[:1]), truth, 0.0)


@pytest.mark.parametrize("num_rows", [4, 400, 5000])
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_has_the_true_scores(name, num_rows):
    if missing_packages(name):
        pytest.skip(f"{name} is not installed")
    if name == "bm25s" and num_rows < K:
        pytest.skip("bm25s refuses pools of fewer than K rows")
    spec = DataSpec("small", "synthetic", num_rows)
    data = load(spec, 40)
    engine = ENGINES[name]()
    engine.build(data, spec, K)
    found = engine.decode(engine.answer(engine.prepare(data.targets)))
    engine_bytes = engine.num_bytes()
    engine.close()
    agreement = compare(found, brute_force(data.pool, data.targets, spec, K), engine.tolerance)
    assert agreement.scores == 1.0, agreement.first_difference
    assert name == "bm25s" or agreement.rows == 1.0, agreement.first_difference
    assert engine_bytes > 0


def test_blocks_are_timed_within_the_targets():
    sizes = []
    rates = measure.time_blocks(lambda part: sizes.append(len(part)), list(range(100)), 100, 0.01)
    assert len(rates) == measure.NUM_BLOCKS and min(rates) > 0
    assert max(sizes) <= 100 and sizes[-measure.NUM_BLOCKS :] == [20] * 5


@NEEDS_PSUTIL
def test_processes_measure_and_agree(tmp_path):
    engines = [name for name in (OURS, "numpy scan") if not missing_packages(name)]
    outcomes = runner.measure_data_set(SMALL, engines, make_limits(), tmp_path, [])
    assert [item["engine"] for item in outcomes] == engines
    for item in outcomes:
        assert item["status"] == "ok"
        assert item["agreement"] == {"num_targets": 20, "scores": 1.0, "rows": 1.0, "first_difference": ""}
        assert item["num_rows"] == 3000 and item["queries_per_second"][""] > 0
        assert 0 < item["index_bytes"] < item["peak_bytes"]
    assert len(outcomes[0]["rates"][""]) == 2 * measure.NUM_BLOCKS
    assert command.first_fault(outcomes) == ""


@NEEDS_PSUTIL
def test_a_process_over_its_memory_is_a_status(tmp_path):
    (outcome,) = runner.measure_data_set(SMALL, ["numpy scan"], make_limits(memory_bytes=1 << 20), tmp_path, [])
    assert outcome["status"] == "no brute force: memory: more than 0.000977 GiB"
    assert next(table_rows(outcome))[3] == "no brute force"


@NEEDS_PSUTIL
def test_a_process_over_its_time_is_a_status(tmp_path):
    job = measure.Job(
        DataSpec("large", "synthetic", 2_000_000),
        "numpy scan",
        K,
        1000,
        1,
        60.0,
        1,
        str(tmp_path / "a.npz"),
        str(tmp_path / "f"),
    )
    status, figures = runner.run_job(job, make_limits(), tmp_path)
    assert (status, figures) == ("over time limit: 1 s", {})


def test_larger_logs_are_foretold():
    earlier = [make_outcome("bm25s", 1000, 5.0, build_seconds=20.0)]
    assert runner.foretell("bm25s", 2000, earlier, make_limits()) == ""
    assert runner.foretell("tantivy", 9000, earlier, make_limits()) == ""
    assert runner.foretell("bm25s", 5000, earlier, make_limits()) == "over time limit: about 100 s foretold"
    limits = make_limits(time_limit=10**9)
    assert runner.foretell("bm25s", 10**9, earlier, limits) == "memory: about 93 GiB foretold"
    failed = [{"engine": "bm25s", "num_rows": 1000, "status": "memory: more than 4 GiB"}]
    assert runner.foretell("bm25s", 2000, failed, limits) == "memory: as with fewer rows"


def test_ratios_and_growth():
    outcomes = [
        make_outcome(OURS, 1000, 400.0),
        make_outcome("tantivy", 1000, 40.0),
        make_outcome(OURS, 1_000_000, 200.0),
        {
            "data": "synthetic 1000000",
            "engine": "tantivy",
            "status": "memory: x",
            "num_rows": 1_000_000,
            "queries_per_second": {},
        },
    ]
    assert find_ratios(outcomes) == [{"data": "synthetic 1000", "engine": "tantivy", "factor": 10.0}]
    (growth,) = find_growth(outcomes)
    assert growth["engine"] == OURS and growth["time_factor"] == 2.0
    assert growth["log_factor"] == pytest.approx(2.0)


def test_a_wrong_answer_of_ours_ends_the_command_with_status_1(tmp_path, monkeypatch):
    wrong = {"num_targets": 20, "scores": 1.0, "rows": 0.95, "first_difference": "target 3 of 20: rows [1]"}
    outcomes = [make_outcome(OURS, 1000, 400.0, agreement=wrong), make_outcome("tantivy", 1000, 4.0, agreement=wrong)]
    monkeypatch.delenv("TF_LIFT_DATA", raising=False)
    monkeypatch.setattr(command, "measure_data_set", lambda *_: outcomes)
    output = tmp_path / "new" / "retrieval.json"
    with pytest.raises(SystemExit, match="must answer as brute force does. Received on synthetic 1000: target 3 of 20"):
        command.main(["--sizes", "0.001", "--engines", "tf_lift,numpy scan", "--output", str(output)])
    summary = json.loads(output.read_text(encoding="utf-8"))
    assert summary["outcomes"] == outcomes and summary["ratios"][0]["factor"] == 100.0
    assert output.with_suffix(".png").stat().st_size > 1000
    assert command.first_fault(outcomes[1:]) == ""


def test_the_table_and_the_plot(tmp_path):
    outcomes = [
        make_outcome(OURS, 1000, 400_000.0, queries_per_second={"": 400_000.0, "with 9 statistics": 200_000.0}),
        make_outcome("tantivy", 1000, 40.0),
        {
            "data": "synthetic 1000",
            "engine": "bm25s",
            "status": "not installed: bm25s",
            "num_rows": 1000,
            "queries_per_second": {},
        },
        make_outcome(OURS, 2000, 300_000.0, data="ml_1m"),
    ]
    summary = {"settings": {"num_neighbours": K}, "outcomes": outcomes, "ratios": find_ratios(outcomes), "growth": []}
    text = io.StringIO()
    print_report(summary, Console(file=text, width=190))
    printed = text.getvalue()
    for expected in ("400,000", "with 9 statistics", "25,000", "50.0", "80.0", "10,000.0 times as many"):
        assert expected in printed
    assert "synthetic 1000: no figures of bm25s: not installed: bm25s." in printed
    plot({"outcomes": outcomes}, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


@pytest.mark.parametrize(("flag", "value"), [("--sizes", "1,many"), ("--sizes", "-1"), ("--engines", "tf_lift,lucene")])
def test_flags_are_checked(flag, value, monkeypatch):
    monkeypatch.delenv("TF_LIFT_DATA", raising=False)
    with pytest.raises(SystemExit, match=f"retrieval: {flag} must be .* Received: "):
        command.main([flag, value])


def test_data_of_the_flags(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("TF_LIFT_DATA", str(tmp_path))
    names = lambda *flags: [spec.name for spec in command.choose_data(command.parse_flags(flags))]  # noqa: E731
    with caplog.at_level(logging.INFO):
        assert names("--sizes", "20,0.5,1") == ["synthetic 500,000", "synthetic 1M", "synthetic 20M"]
    assert "ml_1m is left out" in caplog.text
    assert names("--quick") == ["synthetic 100,000"]
    with pytest.raises(ValueError, match="must lie in .* Received: TF_LIFT_DATA="):
        load(DataSpec("ml_1m", "ml_1m"), 5)
    (tmp_path / "ml_1m").mkdir()
    (tmp_path / "ml_1m" / "ratings.dat.xz").write_bytes(b"")
    assert names("--quick") == ["ml_1m"]
    assert names("--sizes", "1") == ["ml_1m", "ml_1m, rolling", "ml_1m, rolling, others only", "synthetic 1M"]


def test_missing_engines_are_told(monkeypatch, caplog):
    monkeypatch.setattr(command, "missing_packages", lambda name: ["bm25s"] if name == "bm25s" else [])
    monkeypatch.setattr(command, "is_missing", lambda package: package == "psutil")
    flags = argparse.Namespace(engines="bm25s,tf_lift")
    with pytest.raises(ValueError, match=r"psutil must watch the memory. Received: it is not installed. Run"):
        command.choose_engines(flags)
    assert 'Not installed: bm25s, psutil. `pip install ".[benchmark]"`' in caplog.text


def test_jobs_are_written_and_read(tmp_path: Path):
    job = measure.Job(SMALL, OURS, K, 5, 3, 0.5, 9, "a", "b")
    job.write(tmp_path / "job.json")
    assert measure.Job.read(tmp_path / "job.json") == job
