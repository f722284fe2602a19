"""The report of a run: one HTML file with everything inside, for a phone, a mail or an archive.

No script, no address outside the file, and colours for a light and a dark screen. The tables and plots say how good the
model is; the worked predictions show why: the target, the neighbours it was compared with, and what they did before and
after.
"""

import html
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tf_lift import report_plots

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAX_CHIPS = 8  # interactions shown of one history or future; more would hide the neighbours from each other
ROUNDING = 1e-5  # a float32 softmax or sigmoid may end this far outside [0, 1]
MAX_OPEN_NEIGHBOURS = 5  # the others of a card are folded


@dataclass(frozen=True)
class Table:
    """A table of strings, already rounded and formatted."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]  # each as long as `columns`
    best: Mapping[str, str] = field(default_factory=dict)  # column -> "highest" or "lowest": its best cell is bold
    protocol: str = ""  # one sentence; empty: the report's
    note: str = ""  # printed below

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Every row of table '{self.caption}' must have {len(self.columns)} cells, one a column. "
                    f"Received: {len(row)} cells in row {i}: {list(row)}."
                )
        for column, direction in self.best.items():
            if column not in self.columns or direction not in ("highest", "lowest"):
                raise ValueError(
                    f"`best` must map columns of table '{self.caption}' to 'highest' or 'lowest'. "
                    f"Received: '{column}' -> '{direction}'; the columns are {list(self.columns)}."
                )


@dataclass(frozen=True)
class Curve:
    """Lines in one plot, such as the losses of a training."""

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]  # name -> (x, y)

    def __post_init__(self) -> None:
        for name, (x, y) in self.series.items():
            if len(x) != len(y):
                raise ValueError(
                    f"x and y of a series must be of one length. "
                    f"Received: {len(x)} and {len(y)} for '{name}' of '{self.title}'."
                )


@dataclass(frozen=True)
class WorkedNeighbour:
    """A retrieved interaction, with what its user did around it."""

    description: Mapping[str, str]  # field -> value
    matched: frozenset[str]  # the fields whose value is the target's
    label: int
    time: str
    score: float  # BM25
    attention: float  # in [0, 1]
    before: Sequence[str]  # newest last
    after: Sequence[str]  # visible at the target's time, newest last

    def __post_init__(self) -> None:
        unknown = sorted(self.matched - set(self.description))
        if unknown:
            raise ValueError(
                f"`matched` must name fields of the neighbour. Received: {unknown}; it has {sorted(self.description)}."
            )
        _check_in_unit_interval("attention", self.attention)


@dataclass(frozen=True)
class WorkedPrediction:
    """One prediction, with all that it was made from."""

    target: Mapping[str, str]  # field -> value
    label: int
    probability: float  # in [0, 1]
    time: str
    history: Sequence[str]  # the user's last interactions, newest last
    neighbours: Sequence[WorkedNeighbour]  # in any order

    def __post_init__(self) -> None:
        _check_in_unit_interval("probability", self.probability)


@dataclass(frozen=True)
class Report:
    """Everything that the file will show."""

    title: str
    protocol: str  # one sentence, printed beside every table
    settings: Mapping[str, str]  # seed, data set, rows, K, L, mode, ...
    tables: Sequence[Table] = ()
    curves: Sequence[Curve] = ()
    roc: Mapping[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict)  # fpr, tpr: `metrics.roc_curve`
    calibration: Mapping[str, tuple[FloatArray, FloatArray, IntArray]] = field(
        default_factory=dict
    )  # `calibration_curve`
    worked: Sequence[WorkedPrediction] = ()

    def __post_init__(self) -> None:
        for name, (fpr, tpr) in self.roc.items():
            if np.shape(fpr) != np.shape(tpr):
                raise ValueError(
                    f"`fpr` and `tpr` of '{name}' must be of one length. Received: {len(fpr)} and {len(tpr)}."
                )
        for name, bins in self.calibration.items():
            if len({np.shape(column) for column in bins}) != 1:
                lengths = ", ".join(str(len(column)) for column in bins)
                raise ValueError(f"The bins of '{name}' must be three arrays of one length. Received: {lengths}.")


def write_report(report: Report, path: Path) -> None:
    """Writes the report as one self-contained HTML file, aside first, then renamed: no reader sees half of it.

    Args:
        report: what to show.
        path: the `.html` file; its folder is made if need be, and an earlier report there is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f"{path.name}.partial")
    # A log may hold characters that UTF-8 lacks (lone surrogates): they become "?", and the report is still written.
    partial_path.write_bytes(_page(report).encode("utf-8", errors="replace"))
    os.replace(partial_path, path)


def _page(report: Report) -> str:
    sections = {
        "results": ("Results", _tables(report)),
        "curves": ("Curves", _plots(report)),
        "worked": ("Worked predictions", _worked_predictions(report.worked)),
    }
    links = "".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in sections.items())
    settings = "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in report.settings.items())
    body = "\n".join(
        f'<section id="{key}"><h2>{title}</h2>\n{part}</section>' for key, (title, part) in sections.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en-GB"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{_text(report.title)}</title>\n<style>{_STYLE}{report_plots.PLOT_STYLE}</style></head>\n<body>"
        f'<header><h1>{_text(report.title)}</h1><p class="protocol">{_text(report.protocol)}</p>'
        f"<nav>{links}</nav>" + (f'<dl class="settings">{settings}</dl>' if settings else "") + "</header>\n"
        f"<main>{body}</main></body></html>\n"
    )


def _tables(report: Report) -> str:
    if not report.tables:
        return _note("No table was recorded.")
    return "\n".join(_table(table, table.protocol or report.protocol) for table in report.tables)


def _table(table: Table, protocol: str) -> str:
    is_numeric = [_is_numeric([row[i] for row in table.rows]) for i in range(len(table.columns))]
    best_cells = _best_cells(table)
    classes = [' class="number"' if numeric else "" for numeric in is_numeric]
    head = "".join(f'<th scope="col"{c}>{_text(name)}</th>' for name, c in zip(table.columns, classes, strict=True))
    body = []
    for r, row in enumerate(table.rows):
        cells = []
        for c, cell in enumerate(row):
            content = f"<b>{_text(cell)}</b>" if (r, c) in best_cells else _text(cell)
            cells.append(f"<th scope=row{classes[c]}>{content}</th>" if c == 0 else f"<td{classes[c]}>{content}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="block"><h3>{_text(table.caption)}</h3><p class="protocol">{_text(protocol)}</p>'
        f'<div class="scroll"><table class="results"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
        + (_note(table.note) if table.note else "")
        + ("" if table.rows else _note("No rows."))
        + "</div>"
    )


def _is_numeric(cells: Sequence[str]) -> bool:
    """Answers whether every cell that says anything is a number, perhaps with a unit or an interval behind it."""
    telling = [cell for cell in cells if cell.strip().lower() not in ("", "-", "–", "—", "nan", "n/a")]
    return bool(telling) and all(re.fullmatch(rf"{_NUMBER}\s*[%a-zµ]{{0,3}}(\s*[±\[(].*)?", cell) for cell in telling)


def _best_cells(table: Table) -> set[tuple[int, int]]:
    """Returns (row, column) of the cells to print bold; ties are all bold."""
    best = set()
    for column, direction in table.best.items():
        c = table.columns.index(column)
        found = {r: re.match(_NUMBER, row[c]) for r, row in enumerate(table.rows)}
        values = {r: float(m.group().strip().replace(",", "").replace("−", "-")) for r, m in found.items() if m}
        if values:
            extreme = max(values.values()) if direction == "highest" else min(values.values())
            best |= {(r, c) for r, value in values.items() if value == extreme}
    return best


def _plots(report: Report) -> str:
    figures = [report_plots.roc_plot("roc", "ROC", report.roc)]
    figures.append(report_plots.calibration_plot("calibration", "Calibration", report.calibration))
    for i, curve in enumerate(report.curves):
        figures.append(report_plots.line_plot(f"curve{i}", curve.title, curve.x_label, curve.y_label, curve.series))
    return f'<div class="plots">{"".join(figures)}</div>'


def _worked_predictions(worked: Sequence[WorkedPrediction]) -> str:
    if not worked:
        return _note("No worked prediction was recorded.")
    legend = (
        '<p class="note">Fields marked <mark class="chip">like this</mark> are shared with the target. '
        "Attention bars are relative to the strongest neighbour of the card. Interactions are in order of time. "
        "After a neighbour stands only what had happened before the target's time.</p>"
    )
    return legend + "\n".join(_card(prediction) for prediction in worked)


def _card(prediction: WorkedPrediction) -> str:
    target = "".join(_field(name, value) for name, value in prediction.target.items())
    percent = f"{100 * prediction.probability:.1f}"
    history = _interactions(prediction.history, "no earlier interactions", "newest")
    return (
        f'<article class="card"><div class="chips target">{target}</div>'
        f'<div class="verdict"><span class="bar"><i style="width:{percent}%"></i></span>'
        f'<span>predicted <b class="big">{prediction.probability:.3f}</b></span>'
        f"{_label(prediction.label, 'what happened: label')}<time>{_text(prediction.time)}</time></div>"
        f"<h4>This user until then, newest last</h4>{history}{_neighbours(prediction.neighbours)}</article>"
    )


def _neighbours(neighbours: Sequence[WorkedNeighbour]) -> str:
    if not neighbours:
        return "<h4>Neighbours</h4>" + _note("No neighbour was found.")
    ordered = sorted(neighbours, key=lambda neighbour: -neighbour.attention)
    total, strongest = sum(n.attention for n in ordered), ordered[0].attention
    rows = [_neighbour(neighbour, strongest) for neighbour in ordered]
    share = sum(n.attention for n in ordered if n.label == 1) / total if total else 0.0
    summary = f" <small>{100 * share:.0f} % of the attention is on label 1</small>" if total else ""
    result = f"<h4>Neighbours{summary}</h4>{_neighbour_table(rows[:MAX_OPEN_NEIGHBOURS])}"
    if len(rows) > MAX_OPEN_NEIGHBOURS:
        rest = sum(n.attention for n in ordered[MAX_OPEN_NEIGHBOURS:])
        result += (
            f"<details><summary>{len(rows) - MAX_OPEN_NEIGHBOURS} more, with {rest:.3f} of the attention together"
            f"</summary>{_neighbour_table(rows[MAX_OPEN_NEIGHBOURS:])}</details>"
        )
    return result


def _neighbour_table(rows: Sequence[str]) -> str:
    names = ("Attention", "BM25", "Neighbour", "Before", "After")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return f'<table class="neighbours"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _neighbour(neighbour: WorkedNeighbour, strongest: float) -> str:
    fields = "".join(_field(k, v, marked=k in neighbour.matched) for k, v in neighbour.description.items())
    width = 100 * neighbour.attention / strongest if strongest else 0.0
    return (
        f'<tr><td data-name="Attention"><span>{neighbour.attention:.3f}</span>'
        f'<span class="bar"><i style="width:{width:.1f}%"></i></span></td>'
        f'<td data-name="BM25">{neighbour.score:.2f}</td>'
        f'<td data-name="Neighbour"><div class="chips">{fields}</div>'
        f'<div class="when">{_label(neighbour.label, "label")}<time>{_text(neighbour.time)}</time></div></td>'
        f'<td data-name="Before">{_interactions(neighbour.before, "nothing before", "newest")}</td>'
        f'<td data-name="After">{_interactions(neighbour.after, "nothing yet", "oldest")}</td></tr>'
    )


def _interactions(items: Sequence[str], empty: str, kept: str) -> str:
    """Returns chips in order of time: the `kept` ("newest" or "oldest") MAX_CHIPS, and how many more there are."""
    if not items:
        return f'<span class="none">{empty}</span>'
    shown = items[-MAX_CHIPS:] if kept == "newest" else items[:MAX_CHIPS]
    chips = [f'<li class="chip">{_text(item)}</li>' for item in shown]
    if len(items) > MAX_CHIPS:
        more = f'<li class="more">+{len(items) - MAX_CHIPS} more</li>'
        chips = [more, *chips] if kept == "newest" else [*chips, more]
    return f'<ol class="chips">{"".join(chips)}</ol>'


def _field(name: str, value: str, marked: bool = False) -> str:
    tag = "mark" if marked else "span"
    return f'<{tag} class="chip"><small>{_text(name)}</small> {_text(value)}</{tag}>'


def _label(label: int, words: str) -> str:
    return f'<span class="label{" positive" if label == 1 else ""}">{words} {int(label)}</span>'


def _note(sentence: str) -> str:
    return f'<p class="note">{_text(sentence)}</p>'


def _text(value: str) -> str:
    return html.escape(str(value))


def _check_in_unit_interval(name: str, value: float) -> None:
    if not -ROUNDING <= value <= 1 + ROUNDING:
        raise ValueError(f"`{name}` must be in [0, 1]. Received: {value}.")


_NUMBER = r"\s*[-+−]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"

_STYLE = """
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#1b1f24;--muted:#5b6470;--line:#d9dee5;--chip:#eef1f5;
--accent:#2563c9;--mark:#fde9a9;--mark-line:#b98900;--yes:#0b6b47;--yes-back:#d7f2e5;
--s0:#2563c9;--s1:#c2410c;--s2:#0f8a5f;--s3:#9333b8;--s4:#a16207;--s5:#0e7490;--s6:#be185d;--s7:#57606a}
@media(prefers-color-scheme:dark){:root{--page:#14171b;--card:#1c2026;--ink:#e6e9ee;--muted:#9aa5b1;--line:#363d47;
--chip:#2a3038;--accent:#7ab0ff;--mark:#4d3f10;--mark-line:#d9a91c;--yes:#7fe0b4;--yes-back:#153d2d;
--s0:#7ab0ff;--s1:#ff9b66;--s2:#4fd1a1;--s3:#d49bf5;--s4:#f2c14e;--s5:#5fd3e6;--s6:#ff8fc0;--s7:#b0b8c4}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:78rem;font:1rem/1.5 system-ui,sans-serif;
background:var(--page);color:var(--ink)}
h1{margin:.5rem 0;font-size:1.7rem;line-height:1.2}
h2{margin:2.2rem 0 .8rem;font-size:1.3rem}
h3{margin:0;font-size:1.05rem}
h4{margin:.9rem 0 .3rem;font-size:.9rem}
h4 small{font-weight:400}
small,time,.note,.protocol,.none,.more{color:var(--muted)}
h1,h3,dd,.note,.protocol{overflow-wrap:anywhere}
.note,.protocol{margin:.3rem 0;font-size:.88rem}
a,summary{color:var(--accent)}
nav{display:flex;flex-wrap:wrap;gap:.4rem 1.2rem;margin:.8rem 0}
.settings,.block,.card{padding:.9rem 1rem;background:var(--card);border:1px solid var(--line);border-radius:.6rem}
.settings{display:flex;flex-wrap:wrap;gap:.6rem 2rem;margin:0}
dt{font-size:.78rem;color:var(--muted)}
dd{margin:0;font-weight:600}
.block,.card{margin-bottom:1rem}
.scroll{overflow-x:auto;margin-top:.5rem}
table{border-collapse:collapse;font-size:.92rem}
.results th,.results td{padding:.35rem .8rem .35rem 0;text-align:left;vertical-align:top;
border-top:1px solid var(--line)}
.results thead th{border-top:0;color:var(--muted);font-weight:600}
.results tbody th{font-weight:400}
.results th:first-child{position:sticky;left:0;min-width:8rem;background:var(--card)}
.results .number{text-align:right;padding-left:1rem;white-space:nowrap;font-variant-numeric:tabular-nums}
.card{border-left:.25rem solid var(--accent)}
.chips{display:flex;flex-wrap:wrap;gap:.25rem;margin:0;padding:0;list-style:none}
.chip{padding:.05rem .45rem;border:1px solid transparent;border-radius:.4rem;background:var(--chip);color:inherit;
font-size:.82rem;overflow-wrap:anywhere}
.target .chip{font-size:1rem}
mark.chip{background:var(--mark);border-color:var(--mark-line);color:var(--ink)}
mark small{color:inherit;opacity:.8}
.more,.none,time{font-size:.82rem;align-self:center}
.verdict{display:flex;flex-wrap:wrap;align-items:center;gap:.3rem 1rem;margin:.7rem 0 0}
.verdict .bar{flex:0 1 14rem}
.big{font-size:1.25rem;font-variant-numeric:tabular-nums}
.bar{display:block;min-width:3rem;height:.6rem;border-radius:.3rem;background:var(--chip);overflow:hidden}
.bar i{display:block;height:100%;background:var(--accent)}
.label{padding:.05rem .5rem;border-radius:.4rem;border:1px solid var(--line);font-size:.82rem;white-space:nowrap}
.positive{background:var(--yes-back);border-color:transparent;color:var(--yes);font-weight:600}
.when{display:flex;flex-wrap:wrap;align-items:center;gap:.2rem .6rem;margin-top:.3rem}
summary{cursor:pointer;margin:.5rem 0}
.neighbours{width:100%;table-layout:fixed;font-variant-numeric:tabular-nums}
.neighbours th{padding:.2rem .8rem .2rem 0;text-align:left;font-size:.78rem;font-weight:600;color:var(--muted)}
.neighbours th:nth-child(1){width:6.5rem}
.neighbours th:nth-child(2){width:4rem}
.neighbours td{padding:.5rem .8rem .5rem 0;border-top:1px solid var(--line);vertical-align:top}
@media(max-width:46rem){
body{padding:.6rem}
.settings,.block,.card,figure{padding:.7rem}
.neighbours,.neighbours tbody,.neighbours tr,.neighbours td{display:block}
.neighbours thead{display:none}
.neighbours tr{padding:.6rem 0;border-top:1px solid var(--line)}
.neighbours td{display:flex;gap:.2rem .6rem;border:0;padding:.2rem 0}
.neighbours td::before{content:attr(data-name);flex:none;width:4.4rem;font-size:.75rem;color:var(--muted)}
.neighbours td[data-name=Neighbour]{display:block}
.neighbours td[data-name=Neighbour]::before{content:none}
.neighbours td[data-name=Attention]{align-items:center}
.neighbours .bar{flex:1}}
"""
