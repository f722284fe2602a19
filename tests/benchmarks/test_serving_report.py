"""The serving benchmark's targets, report, plot and flags."""

from __future__ import annotations

import argparse
import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.serving import command, faults
from benchmarks.serving.cores import read_memory
from benchmarks.serving.report import plot, print_report
from benchmarks.serving.targets import Target, find_targets


def make_results(**changes: Any) -> dict[str, Any]:
    def row(way: str, clients: int, p50: float, rate: float, signature: str = "rank_known_user") -> dict[str, Any]:
        return {
            "way": way,
            "signature": signature,
            "candidates": 100,
            "clients": clients,
            "p50": p50,
            "p95": 2 * p50,
            "p99": 3 * p50,
            "requests_per_second": rate,
            "failures": {},
        }

    rows = [row("in process", 1, 7.0, 140.0), row("gRPC", 1, 9.5, 110.0), row("gRPC", 32, 250.0, 120.0)]
    rows += [row("in process, one core", 1, 6.0, 160.0), row("gRPC, one core", 1, 7.5, 130.0)]
    rows[0]["load_seconds"], rows[1]["ratio"], rows[4]["ratio"] = 4.0, 9.5 / 7.0, 1.25
    steps = [{"requests": n, "anonymous": 10**9 + 50 * n, "pss": 10**9, "rss": 10**9} for n in range(0, 1_001, 100)]
    return {
        "load": [*rows, row("gRPC", 1, 9.5, 100.0, "rank")],
        "otherwise": [row("tantivy", 32, 900.0, 2.0)],
        "batches": [{"threads": 1, "batch": 4, "p50": 12.0, "slates_per_second": 333.0}],
        "swap": {"failures": {}, "answers_of_old": 5, "answers_of_new": 6},
        "restart": {
            "first_start_seconds": 10.0,
            "calm_start_seconds": 9.0,
            "restart_seconds": 11.9,
            "restart_largest_difference": 0.0,
            "takeover_seconds": 3.9,
            "takeover_largest_difference": 0.0,
        },
        "malformed": {
            "sent": 100,
            "statuses": {"noise": {"INVALID_ARGUMENT": 100}},
            "unexpected": 0,
            "problems": [],
            "checked": 1,
            "wrong_answers": 0,
        },
        "memory": {"steps": steps, "slope": faults.find_slope(steps), "failures": {}},
    } | changes


def split_targets(results: dict[str, Any]) -> tuple[list[Target], list[Target]]:
    """The targets that are judged, and the rows that are for information."""
    targets = find_targets(results)
    return [t for t in targets if t.is_met is not None], [t for t in targets if t.is_met is None]


def test_targets_are_met_or_not():
    results = make_results()
    assert results["memory"]["slope"] == pytest.approx(50.0)
    judged, informative = split_targets(results)
    assert len(judged) == 12 and all(target.is_met for target in judged)
    assert [(target.what, target.measured) for target in informative] == [
        ("p50 over gRPC / in process, two cores, rank_known_user, 100 candidates", "1.36")
    ]
    results["load"][3]["p50"], results["load"][4]["ratio"], results["load"][0]["load_seconds"] = 8.1, 1.31, 5.1
    results["otherwise"][0]["requests_per_second"] = 41.0
    results["swap"]["failures"] = {"UNAVAILABLE": 1}
    results["restart"] |= {"restart_seconds": 12.1, "restart_largest_difference": 1e-4}
    results["restart"] |= {"takeover_seconds": 5.2, "takeover_largest_difference": 1e-4}
    results["malformed"] |= {"unexpected": 1, "wrong_answers": 1}
    results["memory"]["slope"] = 101.0
    assert not any(target.is_met for target in split_targets(results)[0])
    assert find_targets({}) == []
    never_swapped = make_results(swap={"failures": {}, "answers_of_old": 5, "answers_of_new": 0})
    assert [target.what for target in split_targets(never_swapped)[0] if not target.is_met] == [
        "failed requests in a hot swap, 8 clients"
    ]


def test_report_and_plot_show_what_was_measured(tmp_path: Path):
    results = make_results()
    results["malformed"] |= {"unexpected": 1, "problems": ["noise: INTERNAL in place of ['INVALID_ARGUMENT']: [x]"]}
    text = io.StringIO()
    machine = {"cores": "The server is pinned to core 1."}
    print_report({"machine": machine, "results": results}, Console(file=text, width=170))
    for expected in (
        "pinned to core 1",
        "tantivy",
        "1.36",
        "1.25",
        "NOT MET",
        "for information",
        "at most 8 ms",
        "INTERNAL in place of",
        "[x]",
    ):
        assert expected in text.getvalue()
    plot({"results": results}, tmp_path / "plot.png")
    plot({"results": {}}, tmp_path / "nothing.png")
    assert (tmp_path / "plot.png").stat().st_size > (tmp_path / "nothing.png").stat().st_size > 1_000


def test_memory_of_a_process_is_read():
    memory = read_memory(os.getpid())
    assert memory["rss"] >= memory["pss"] > 0 and memory["rss"] >= memory["anonymous"] > 0


def test_flags_choose_parts_and_amounts():
    assert command.choose_parts("swap, load") == ["load", "swap"]
    with pytest.raises(ValueError, match="--parts must be of load, .* Received: lod."):
        command.choose_parts("lod,swap")
    flags: argparse.Namespace = command.parse_flags(["--config", "x.toml", "--quick"])
    quick, full = command.choose_settings(flags), command.choose_settings(command.parse_flags(["--config", "x.toml"]))
    assert (full.num_malformed, full.memory_requests, full.seconds) == (10_000, 100_000, 10.0)
    assert quick.num_malformed < full.num_malformed and quick.memory_requests == 5_000
    with pytest.raises(ValueError, match="--seconds must be above 0. Received: 0.0"):
        command.choose_settings(command.parse_flags(["--config", "x.toml", "--seconds", "0"]))
