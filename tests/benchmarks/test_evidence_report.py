"""What a comparison shows of its numbers."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from benchmarks.evidence import command
from benchmarks.evidence.evaluation_set import BY_GAP, BY_ITEM_ROWS, Slicing
from benchmarks.evidence.plots import plot_axis
from benchmarks.evidence.study_list import COST
from benchmarks.evidence.tables import build_tables, format_difference

COLUMNS = ("pooled", "over 6 h")


def make_cell(mean: float, spread: float | None, difference: float, best_peer: str | None = "din") -> dict[str, Any]:
    if best_peer is None:
        return {"mean": mean, "spread": spread, "best_peer": None}
    interval = {"low": difference - 0.01, "high": difference + 0.01}
    return {"mean": mean, "spread": spread, "best_peer": best_peer, "difference": difference, **interval}


def make_summary() -> dict[str, Any]:
    """Two metrics, of which the second is better where it is lower; `tf_lift` leads in both."""
    rankers = {
        "tf_lift": {
            column: {"AUC": make_cell(0.81, 0.002, 0.06), "LogLoss": make_cell(0.41, 0.0, 0.02)} for column in COLUMNS
        },
        "din": {
            column: {"AUC": make_cell(0.75, None, 0.2, "a < b"), "LogLoss": make_cell(0.43, None, 0.1, "a < b")}
            for column in COLUMNS
        },
        "a < b": {
            column: {"AUC": make_cell(0.55, None, -0.2), "LogLoss": make_cell(float("nan"), None, 0, None)}
            for column in COLUMNS
        },
    }
    facts = {
        "tuning": {"trials": 12},
        "seeds": [7, 8],
        "seconds": 61.4,
        "microseconds": 12.34,
        "num_parameters": 1234,
        "over_ties": {},
        "validation": {"LogLoss": 0.3456},
        "is_of_earlier_code": False,
    }
    group = {
        "name": "shop",
        "protocol": "a protocol.",
        "candidates_hash": "0123456789abcdef",
        "num_users": 30,
        "num_slates": 100,
        "num_train": 50,
        "num_candidates": 100,
        "slicing": {"heading": "gap", "words": "the gap since the last event", "note": "A note."},
        "column_slates": {"pooled": 100, "over 6 h": 40},
        "comparison": {
            "metrics": ["AUC", "LogLoss"],
            "columns": list(COLUMNS),
            "num_draws": 1000,
            "rankers": rankers,
            "gains": {},
            "kinds": {"tf_lift": "ours", "din": "learned", "a < b": "rule"},
        },
        "rows": dict.fromkeys(rankers, facts)
        | {"din": facts | {"is_of_earlier_code": True, "validation": {"LogLoss": None}}},
        "faults": {"dien": "It must learn. Received: nothing."},
    }
    settings = {"seeds": [7, 8], "trials": 12, "tuner": "random", "quick": False}
    return {"settings": settings, "machine": {"cores": 2, "python": "3"}, "run_seconds": 5, "groups": [group]}


def test_tables_say_the_numbers_with_all_that_belongs_to_them() -> None:
    (group,) = make_summary()["groups"]
    pooled, by_gap, losses, own, *differences = build_tables(group)
    assert pooled.rows[0] == ["tf_lift", "0.8100 ± 0.0020", "0.4100", "0.3456", "12", "2", "61", "12.3", "1,234"]
    assert pooled.columns[3] == "LogLoss on validation" and pooled.rows[1][3] == "-"
    assert pooled.rows[2][2] == "-"
    assert pooled.bold == {(0, 1), (0, 2)}
    assert (
        pooled.note.startswith("Of an earlier version of this project's code: din. Candidates 0123456789ab")
        and "100 targets of 30 users" in pooled.note
    )
    assert by_gap.columns == ["ranker", "pooled (100)", "over 6 h (40)"]
    assert by_gap.rows[1] == ["din", "0.7500", "0.7500"] and by_gap.bold == {(0, 1), (0, 2)}
    assert losses.title == "shop: LogLoss by the gap since the last event" and losses.rows[1] == [
        "din",
        "0.4300",
        "0.4300",
    ]
    assert [row[:3] for row in own.rows] == [
        ["tf_lift", column, "+0.0600 [+0.0500, +0.0700] din"] for column in COLUMNS
    ]
    assert [table.title for table in differences] == [
        f"Difference to the best other peer, {column}" for column in COLUMNS
    ]
    assert differences[0].rows[1][1] == "+0.2000 [+0.1900, +0.2100] a < b"
    assert format_difference(make_cell(0.5, None, 0.0, None)) == "-"


def test_rankers_with_ties_are_shown_in_a_random_order_too() -> None:
    (group,) = make_summary()["groups"]
    comparison = group["comparison"]
    comparison["metrics"] = ["NDCG@10", "MRR"]
    for columns in comparison["rankers"].values():
        for cells in columns.values():
            cells |= {"NDCG@10": cells.pop("AUC"), "MRR": cells.pop("LogLoss")}
    group["rows"] = group["rows"] | {"a < b": group["rows"]["din"] | {"seeds": [7], "over_ties": {"NDCG@10": 0.5}}}
    assert build_tables(group)[0].note.endswith("averaged. NDCG@10 with ties in a random order: a < b 0.5000.")


def test_a_table_without_own_rankers_has_no_part_for_them() -> None:
    (group,) = make_summary()["groups"]
    group["comparison"]["kinds"]["tf_lift"] = "learned"
    assert not [table for table in build_tables(group) if table.title.startswith("This project")]


def test_what_the_first_own_ranker_gains_over_the_others_has_a_table() -> None:
    (group,) = make_summary()["groups"]
    comparison = group["comparison"]
    gain = {"difference": 0.01, "low": -0.002, "high": 0.022, "by_seed": [0.015, 0.005]}
    comparison["gains"] = {"tf_lift: less": {column: {"AUC": gain, "LogLoss": gain} for column in COLUMNS}}
    (table,) = [table for table in build_tables(group) if table.title == "What tf_lift gains over"]
    words = "+0.0100 [-0.0020, +0.0220] seeds +0.0150, +0.0050"
    assert table.rows == [["tf_lift: less", column, words, words] for column in COLUMNS]
    assert table.note.startswith("Positive: tf_lift is better.") and table.is_short


def test_report_is_written_and_printed(tmp_path: Path) -> None:
    printed = io.StringIO()
    command.report(make_summary(), tmp_path, "ctr", "A <title>", Console(file=printed, width=160))
    assert json.loads((tmp_path / "ctr.json").read_text())["groups"][0]["name"] == "shop"
    assert (tmp_path / "ctr-shop.png").read_bytes().startswith(b"\x89PNG")
    page, markdown = (tmp_path / "ctr.html").read_text(), (tmp_path / "ctr.md").read_text()
    assert "<b>0.8100 ± 0.0020</b>" in page and "A &lt;title&gt;" in page and "a &lt; b" in page and "a < b" not in page
    assert "+0.0600<small>[+0.0500, +0.0700]</small><small>din</small>" in page
    assert 'src="data:image/png;base64,' in page and "http" not in page.replace("http-equiv", "")
    assert "| tf_lift | **0.8100 ± 0.0020** | **0.4100** | 0.3456 | 12 | 2 | 61 | 12.3 | 1,234 |" in markdown
    for table in markdown.split("\n\n"):
        if table.startswith("| "):
            assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "shop: no numbers of dien: It must learn. Received: nothing." in printed.getvalue()
    assert "[+0.0500," in printed.getvalue()  # rich takes no interval for its markup


def test_a_study_s_numbers_are_drawn_along_its_axis(tmp_path: Path) -> None:
    for words in ("retrieval.num_neighbours (K)", COST):
        summary = make_summary()
        summary["groups"][0]["axis"] = {"words": words, "places": {"din": 10.0, "tf_lift": 5.0}}
        command.report(summary, tmp_path, "study", "A title", Console(file=io.StringIO()))
        assert (tmp_path / "study-shop-along.png").read_bytes().startswith(b"\x89PNG")
        assert "![Numbers along the study's axis](study-shop-along.png)" in (tmp_path / "study.md").read_text()
        assert (tmp_path / "study.html").read_text().count("data:image/png;base64,") == 2


def test_bars_along_an_axis_are_of_the_difference_to_the_first_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gain of the first over another is the other's loss: its interval is turned round."""
    group = make_summary()["groups"][0]
    comparison = group["comparison"]
    comparison["kinds"] = dict.fromkeys(comparison["kinds"], "ours")
    gain = {"difference": 0.06, "low": 0.05, "high": 0.08}
    comparison["gains"] = {"din": {column: {"AUC": gain, "LogLoss": gain} for column in COLUMNS}}
    group["axis"] = {"words": "retrieval.num_neighbours (K)", "places": {"tf_lift": 5.0, "din": 10.0}}
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot_axis(group, tmp_path / "along.png")
    (figure,) = drawn
    assert figure.get_suptitle() == "shop: AUC, and the 95 % interval of its difference to that of tf_lift"
    first, other = (segment[:, 1].tolist() for segment in figure.axes[0].collections[0].get_segments())
    assert first == pytest.approx([0.81, 0.81]) and other == pytest.approx([0.73, 0.76])


@pytest.mark.parametrize(
    ("text", "message"), [("7,x", "comma-separated integers. Received: '7,x'"), (" ,", "at least one")]
)
def test_seeds_must_be_integers(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command.parse_seeds(text)


def test_quick_has_configurations_of_its_own() -> None:
    arguments = ("benchmarks.ctr", "words", "a.toml", "b.toml")
    assert command.parse_flags(*arguments, []).configs == "a.toml"
    assert command.parse_flags(*arguments, ["--quick"]).configs == "b.toml"
    assert command.parse_flags(*arguments, ["--quick", "--configs", "c.toml"]).configs == "c.toml"


@pytest.mark.parametrize(("flags", "expected"), [([], BY_GAP), (["--columns", "item_rows"], BY_ITEM_ROWS)])
def test_columns_may_be_chosen(monkeypatch: pytest.MonkeyPatch, flags: list[str], expected: Slicing) -> None:
    seen: list[Slicing] = []

    def find_groups(sources: Any, preprocess: Any, wants_ranking: bool, slicing: Slicing) -> list[Any]:
        seen.append(slicing)
        return []

    monkeypatch.setattr(command, "find_groups", find_groups)
    command.run(command.parse_flags("benchmarks.ctr", "words", "a.toml", "b.toml", flags), wants_ranking=False)
    assert seen == [expected]
