"""The report is one well-formed, self-contained file that shows everything it was given."""

import dataclasses
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tf_lift import metrics, report_plots
from tf_lift.report import MAX_CHIPS, Curve, Report, Table, WorkedNeighbour, WorkedPrediction, write_report

VOID_TAGS = {"meta", "br", "img", "link", "hr", "input"}
HOSTILE = "<script>alert('x')</script> Salt & \"Pepper\""


class Page(HTMLParser):
    """Parses strictly (tags closed in order, ids unique); keeps tags, attributes, and the texts of each element."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []  # tag, name, value
        self.elements: list[tuple[str, str, list[str]]] = []  # tag, class, texts inside
        self.open_elements: list[tuple[str, str, list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open_elements, f"never closed: {[tag for tag, _, _ in self.open_elements]}"
        ids = [value for _, name, value in self.attributes if name == "id"]
        assert len(ids) == len(set(ids)), "an id is there twice"

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID_TAGS:
            self.open_elements.append(self.elements[-1])

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.elements.append((tag, dict(attrs).get("class") or "", []))

    def handle_endtag(self, tag):
        assert self.open_elements, f"</{tag}> closes nothing"
        opened, _, _ = self.open_elements.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data):
        self.texts.append(data)
        for _, _, texts in self.open_elements:
            texts.append(data)

    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def texts_of(self, tag: str, class_name: str | None = None) -> list[str]:
        return [
            " ".join("".join(texts).split())
            for t, classes, texts in self.elements
            if t == tag and (class_name is None or class_name in classes.split())
        ]


def neighbour(**changes) -> WorkedNeighbour:
    values = {
        "description": {"item": "Bread & butter", "age": "35-44"},
        "matched": frozenset({"age"}),
        "label": 1,
        "time": "2017-03-04 12:00",
        "score": 7.25,
        "attention": 0.25,
        "before": ["Milk"],
        "after": ["Eggs"],
    }
    return WorkedNeighbour(**(values | changes))


def prediction(**changes) -> WorkedPrediction:
    values = {
        "target": {"user": "17", "item": HOSTILE},
        "label": 0,
        "probability": 0.8125,
        "time": "2017-05-06 18:05",
        "history": ["Milk", HOSTILE],
        "neighbours": [neighbour()],
    }
    return WorkedPrediction(**(values | changes))


def full_report() -> Report:
    labels = np.arange(400) % 2
    probabilities = np.clip(labels * 0.2 + np.linspace(0, 0.8, 400), 0, 1)
    return Report(
        title=f"Run of {HOSTILE}",
        protocol="Protocol honest: split by time.",
        settings={"seed": "17", "data set": HOSTILE},
        tables=[
            Table(
                "Binary <b>", ["model", "AUC"], [[HOSTILE, "0.91"], ["popularity & more", "0.61"]], {"AUC": "highest"}
            ),
            Table(
                "Top-N", ["model", "HR@10"], [["LIFT", ".624"]], protocol="Protocol rim: the paper's.", note="A note."
            ),
        ],
        curves=[
            Curve("Loss <i>", "step", "loss (nats)", {"train & co": (range(3), [0.7, 0.5, 0.4]), HOSTILE: ([0], [1.0])})
        ],
        roc={HOSTILE: metrics.roc_curve(labels, probabilities), "one class": metrics.roc_curve([1, 1], [0.1, 0.2])},
        calibration={HOSTILE: metrics.calibration_curve(labels, probabilities)},
        worked=[prediction(), prediction(probability=0.0, neighbours=[], history=[])],
    )


def written(report: Report, tmp_path: Path) -> str:
    path = tmp_path / "run" / "report.html"
    write_report(report, path)
    return path.read_text("utf-8")


def shown(report: Report, tmp_path: Path) -> Page:
    return Page(written(report, tmp_path))


def only(tmp_path: Path, **parts) -> Page:
    return shown(Report("Title", "Protocol.", {}, **parts), tmp_path)


def test_the_file_is_well_formed_and_small(tmp_path):
    text = written(full_report(), tmp_path)
    page = Page(text)
    assert page.tags.count("svg") == 3
    assert len(text) < 300_000
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["report.html"]


def test_nothing_is_loaded_from_anywhere(tmp_path):
    text = written(full_report(), tmp_path)
    assert "http://" not in text and "https://" not in text and "@import" not in text
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert name != "src" and not name.startswith("on"), (tag, name, value)
        if name == "href":
            assert value.startswith("#"), (tag, value)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_references_inside_the_drawings_point_at_their_own_ids(tmp_path):
    text = written(full_report(), tmp_path)
    ids = {value for _, name, value in Page(text).attributes if name == "id"}
    references = re.findall(r'(?:href="#|url\(#)([^")]+)', text)
    assert len(references) > 10
    assert set(references) <= ids


def test_drawings_follow_the_theme_of_the_page(tmp_path):
    text = written(full_report(), tmp_path)
    drawings = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "<style" not in drawings  # inside HTML it would apply to the whole page
    assert "currentColor" in drawings and "var(--s0)" in drawings
    assert not re.search(r"#0a0b[0-9a-f]{2}", drawings)
    assert "prefers-color-scheme:dark" in text


def test_hostile_names_are_text(tmp_path):
    text = written(full_report(), tmp_path)
    assert "<script" not in text
    page = Page(text)
    # Title (head and heading), a setting, a cell, three legends, two targets, one history.
    assert page.text().count("<script>alert('x')</script> Salt & \"Pepper\"") == 2 + 1 + 1 + 3 + 2 + 1


def test_every_cell_and_a_protocol_stand_with_every_table(tmp_path):
    report = full_report()
    page = shown(report, tmp_path)
    cells = page.texts_of("td") + page.texts_of("th")
    for table in report.tables:
        for cell in [*table.columns, *(cell for row in table.rows for cell in row)]:
            assert cell in cells
    blocks = page.texts_of("div", "block")
    assert len(blocks) == 2
    assert "Binary <b>" in blocks[0] and "Protocol honest: split by time." in blocks[0]
    assert "Protocol rim: the paper's." in blocks[1] and "honest" not in blocks[1] and "A note." in blocks[1]


def test_many_tables_stay_in_order(tmp_path):
    tables = [Table(f"Table {i}.", ["a"], [[f"cell {i}"]] * 30) for i in range(40)]
    page = only(tmp_path, tables=tables)
    captions = [text for text in page.texts_of("h3") if text.startswith("Table")]
    assert captions == [table.caption for table in tables]
    assert page.texts_of("th").count("cell 7") == 30


@pytest.mark.parametrize(
    ("direction", "cells", "bold"),
    [
        ("highest", [".5", ".7 [.6, .8]", "–"], [".7 [.6, .8]"]),
        ("lowest", ["0.5", "−0.25", "nan"], ["−0.25"]),
        ("highest", ["9", "1,000", "12 ms"], ["1,000"]),
        ("highest", ["0.5", "0.5", "0.1"], ["0.5", "0.5"]),
        ("highest", ["n/a", "", "-"], []),
    ],
)
def test_the_best_cells_of_a_column_are_bold(tmp_path, direction, cells, bold):
    table = Table("T", ["model", "value"], [["m", cell] for cell in cells], {"value": direction})
    assert only(tmp_path, tables=[table]).texts_of("b") == bold


def test_columns_of_numbers_are_aligned_as_numbers(tmp_path):
    rows = [["popularity", ".5 ± .1", "2017-01-02 10:00", "81 %"], ["7th model", "–", "2017-01-03 11:00", "3 %"]]
    page = only(tmp_path, tables=[Table("T", ["model", "AUC", "when", "share"], rows)])
    assert page.texts_of("th", "number") == ["AUC", "share"]


def test_an_empty_report_says_so_in_sentences(tmp_path):
    page = only(tmp_path)
    assert "svg" not in page.tags and "table" not in page.tags
    for sentence in (
        "No table was recorded.",
        "No curve was recorded.",
        "No calibration was recorded.",
        "No worked prediction was recorded.",
    ):
        assert sentence in page.text()


def test_what_cannot_be_drawn_is_a_sentence(tmp_path):
    page = only(
        tmp_path,
        roc={"one class": metrics.roc_curve([1, 1], [0.1, 0.2]), "undefined": (np.array([math.nan]), np.array([1.0]))},
        calibration={"nothing": (np.array([]), np.array([]), np.array([], np.int64))},
        curves=[Curve("Loss", "step", "loss", {"diverged": ([1, 2], [math.nan, math.inf])})],
    )
    assert "svg" not in page.tags
    assert "No curve for one class: its examples are all of one class." in page.text()
    assert "No curve for undefined" in page.text()
    assert "No bins for nothing." in page.text()
    assert "No finite value for diverged." in page.text()


def test_more_series_than_colours_are_told_apart():
    series = {f"series {i}": ([0, 1], [i, i + 1]) for i in range(report_plots.NUM_COLOURS + 2)}
    figure = report_plots.line_plot("p", "Many", "x", "y", series)
    assert figure.count("class=dashed") == 2
    assert len(re.findall(r"stroke-dasharray: [\d.]", figure)) == 2


def test_axis_labels_with_mark_up_and_formulas_are_text():
    figure = report_plots.line_plot("p", "T", "cost < $5 & $\\frac", "y", {"a": ([0, 1], [0, 1])})
    assert "cost < $5 & $\\frac" in Page(figure).text()


def test_a_calibration_of_small_probabilities_fills_its_plot():
    small = {"ctr": (np.array([0.01, 0.04]), np.array([0.02, 0.03]), np.array([10, 10]))}
    ticks = [float(text) for text in Page(report_plots.calibration_plot("p", "C", small)).texts_of("text")[:4]]
    assert 0.01 < max(ticks) < 0.1


def test_a_card_shows_the_prediction_and_the_truth(tmp_path):
    page = only(tmp_path, worked=[prediction()])
    (card,) = page.texts_of("article")
    for part in ("user 17", "predicted 0.812", "what happened: label 0", "2017-05-06 18:05", "Milk"):
        assert part in card
    assert ("i", "style", "width:81.2%") in page.attributes


def test_neighbours_stand_in_order_of_attention_and_the_weak_ones_are_folded(tmp_path):
    weights = [0.05, 0.4, 0.02, 0.1, 0.2, 0.08, 0.15]
    neighbours = [neighbour(attention=w, score=100 * w, label=int(w > 0.3)) for w in weights]
    page = only(tmp_path, worked=[prediction(neighbours=neighbours)])
    rows = [text for text in page.texts_of("tr") if "Bread & butter" in text]
    assert [float(re.match(r"[\d.]{5}", row).group()) for row in rows] == sorted(weights, reverse=True)
    assert all(f"{100 * w:.2f}" in row for w, row in zip(sorted(weights, reverse=True), rows, strict=True))
    (folded,) = page.texts_of("details")
    assert folded.startswith("2 more, with 0.070 of the attention together")
    assert "40 % of the attention is on label 1" in page.text()
    widths = [value for tag, name, value in page.attributes if tag == "i" and name == "style"]
    assert widths[1:4] == ["width:100.0%", "width:50.0%", "width:37.5%"]  # widths[0] is the probability's


def test_matched_fields_are_marked_and_the_others_are_not(tmp_path):
    page = only(tmp_path, worked=[prediction()])
    assert page.texts_of("mark") == ["like this", "age 35-44"]
    assert "item Bread & butter" in page.texts_of("span", "chip")


def test_long_pasts_and_futures_show_the_steps_next_to_the_neighbour(tmp_path):
    steps = [f"step{i:02d}" for i in range(MAX_CHIPS + 5)]
    page = only(tmp_path, worked=[prediction(history=steps, neighbours=[neighbour(before=steps, after=steps)])])
    history, before, after = page.texts_of("ol")
    newest = "+5 more" + "".join(steps[5:])
    assert history == before == newest
    assert after == "".join(steps[:MAX_CHIPS]) + "+5 more"
    page = only(tmp_path, worked=[prediction(history=steps[:MAX_CHIPS], neighbours=[])])
    assert page.texts_of("ol") == ["".join(steps[:MAX_CHIPS])]


def test_what_is_not_there_is_said(tmp_path):
    worked = [prediction(history=[], neighbours=[neighbour(before=[], after=[])]), prediction(neighbours=[])]
    first, second = only(tmp_path, worked=worked).texts_of("article")
    for words in ("no earlier interactions", "nothing before", "nothing yet"):
        assert words in first and words not in second
    assert "No neighbour was found." in second and "No neighbour" not in first


def test_neighbours_without_any_attention_are_shown(tmp_path):
    page = only(tmp_path, worked=[prediction(neighbours=[neighbour(attention=0.0)])])
    assert "Bread & butter" in page.text() and "of the attention is" not in page.text()


def test_the_same_report_gives_the_same_bytes_and_replaces_the_file(tmp_path):
    first = written(full_report(), tmp_path)
    written(dataclasses.replace(full_report(), title="Another"), tmp_path)
    assert written(full_report(), tmp_path) == first


def test_a_write_that_fails_halfway_leaves_the_earlier_report(tmp_path, monkeypatch):
    first = written(full_report(), tmp_path)

    def write_half(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Path, "write_bytes", write_half)
        written(Report("Another", "Protocol.", {}), tmp_path)
    assert (tmp_path / "run" / "report.html").read_text("utf-8") == first
    written(full_report(), tmp_path)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["report.html"]


def test_characters_without_an_encoding_do_not_stop_the_report(tmp_path):
    page = only(tmp_path, worked=[prediction(history=["caf\udce9", "crème brûlée"])])
    assert "caf?" in page.text() and "crème brûlée" in page.text()


def test_wrong_parts_are_refused():
    with pytest.raises(ValueError, match="Every row of table 'T' must have 2 cells.* Received: 1 cells in row 1"):
        Table("T", ["a", "b"], [["1", "2"], ["3"]])
    with pytest.raises(ValueError, match="`best` must map columns of table 'T' .* Received: 'c' -> 'highest'"):
        Table("T", ["a"], [["1"]], {"c": "highest"})
    with pytest.raises(ValueError, match="'highest' or 'lowest'. Received: 'a' -> 'max'"):
        Table("T", ["a"], [["1"]], {"a": "max"})
    with pytest.raises(ValueError, match="of one length. Received: 2 and 1 for 'train' of 'Loss'"):
        Curve("Loss", "x", "y", {"train": ([1, 2], [1])})
    with pytest.raises(ValueError, match=r"`matched` must name fields of the neighbour. Received: \['zip'\]"):
        neighbour(matched=frozenset({"zip"}))
    with pytest.raises(ValueError, match=r"`attention` must be in \[0, 1\]. Received: 1.5"):
        neighbour(attention=1.5)
    with pytest.raises(ValueError, match=r"`probability` must be in \[0, 1\]. Received: nan"):
        prediction(probability=math.nan)
    with pytest.raises(ValueError, match="`fpr` and `tpr` of 'LIFT' must be of one length. Received: 3 and 2"):
        Report("T", "P.", {}, roc={"LIFT": (np.zeros(3), np.zeros(2))})
    with pytest.raises(ValueError, match="bins of 'LIFT' must be three arrays of one length. Received: 3, 3, 1"):
        Report("T", "P.", {}, calibration={"LIFT": (np.zeros(3), np.zeros(3), np.zeros(1, np.int64))})
