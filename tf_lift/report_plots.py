"""The plots of the report: each function returns one `<figure>` of HTML with an inline SVG and its legend.

The SVG takes its colours from the page (`currentColor` and CSS variables), so that one drawing serves the light and the
dark theme; legends and titles are HTML, so that they wrap on a phone and names need no escaping rules but HTML's. Where
there is nothing to draw, a sentence says so.
"""

import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

NUM_COLOURS = 8  # then the colours start again, dashed
MAX_POINTS_WITH_MARKERS = 30  # up to here a line also shows its points: one epoch is one point, and must be seen
# Drawn about as large as a phone shows it (72 points an inch), so that the text of the axes stays readable there.
LINE_PLOT_INCHES = (4.6, 3.1)
SQUARE_PLOT_INCHES = (4.6, 4.3)

# Colours that stand for a CSS colour until the SVG is written.
_TEXT, _GRID = "#0a0b0c", "#0a0b0d"
_SERIES = tuple(f"#0a0b{0x10 + i:02x}" for i in range(NUM_COLOURS))
_CSS_COLOURS = {_TEXT: "currentColor", _GRID: "var(--line)"} | {c: f"var(--s{i})" for i, c in enumerate(_SERIES)}

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: smaller, and readable to a screen reader
    "svg.hashsalt": "tf_lift",  # the same report gives the same bytes
    "font.size": 10.0,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _TEXT,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _TEXT,
    "ytick.labelcolor": _TEXT,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.formatter.use_mathtext": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 4.0,
}

PLOT_STYLE = """
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr));gap:1rem;align-items:start}
figure{margin:0;padding:.9rem 1rem;background:var(--card);border:1px solid var(--line);border-radius:.6rem}
figure h3{margin:0 0 .4rem}
figure svg{display:block;width:100%;height:auto;overflow:visible}
figure svg *{stroke-linejoin:round;stroke-linecap:butt}
figure svg text{font-family:inherit!important}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.5rem 0 0;padding:0;list-style:none;font-size:.85rem}
.legend li{display:flex;align-items:center;gap:.4rem;overflow-wrap:anywhere}
.legend i{flex:none;width:1.3rem;border-top:.2rem solid}
.legend .dashed{border-top-style:dashed}
.legend small{color:var(--muted)}
"""


def line_plot(
    name: str, title: str, x_label: str, y_label: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> str:
    """Returns lines of one variable against another, such as a loss against the step.

    Args:
        name: prefix of the ids inside the SVG; no two figures of a page may share it.
        title: the heading; x_label, y_label: what the axes are, with units.
        series: name -> (x, y), sequences of one length. NaN is a gap in the line; a series without a finite point is
            left out, and named below the plot.
    """
    points = {key: (np.asarray(x, np.float64), np.asarray(y, np.float64)) for key, (x, y) in series.items()}
    drawn = {key: xy for key, xy in points.items() if np.isfinite(xy[0] + xy[1]).any()}
    missing = [f"No finite value for {key}." for key in points if key not in drawn]
    if not drawn:
        return _figure(title, "", [], missing or ["No values were recorded."])
    with matplotlib.rc_context(_SETTINGS):
        figure, axes = _axes(LINE_PLOT_INCHES, x_label, y_label)
        for i, (x, y) in enumerate(drawn.values()):
            marker = "o" if x.size <= MAX_POINTS_WITH_MARKERS else ""
            axes.plot(x, y, color=_SERIES[i % NUM_COLOURS], linestyle=_line_style(i), marker=marker)
        if all((x[np.isfinite(x)] % 1 == 0).all() for x, _ in drawn.values()):
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))  # there is no epoch 1.5
        svg = _svg(figure, name, f"{title}: {y_label} against {x_label}")
    legend = [(key, f"last {y[np.isfinite(x + y)][-1]:.4g}") for key, (x, y) in drawn.items()]
    return _figure(title, svg, legend, missing)


def roc_plot(name: str, title: str, curves: Mapping[str, tuple[FloatArray, FloatArray]]) -> str:
    """Returns ROC curves over the diagonal of a random scorer.

    Args:
        name: prefix of the ids inside the SVG; title: the heading.
        curves: model -> (false positive rates [p], true positive rates [p]); empty where there is no curve, as when all
            examples are of one class.
    """
    drawn = {key: rates for key, rates in curves.items() if np.size(rates[0]) and np.isfinite(rates).all()}
    missing = [f"No curve for {key}: its examples are all of one class." for key in curves if key not in drawn]
    if not drawn:
        return _figure(title, "", [], missing or ["No curve was recorded."])
    with matplotlib.rc_context(_SETTINGS):
        figure, axes = _axes(SQUARE_PLOT_INCHES, "false positive rate", "true positive rate")
        axes.plot([0, 1], [0, 1], color=_TEXT, linestyle=":", linewidth=1.0)
        for i, (fpr, tpr) in enumerate(drawn.values()):
            axes.plot(fpr, tpr, color=_SERIES[i % NUM_COLOURS], linestyle=_line_style(i))
        axes.set(xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
        svg = _svg(figure, name, f"{title}: true positive rate against false positive rate")
    return _figure(title, svg, [(key, "") for key in drawn], [*missing, "Dotted: a random scorer."])


def calibration_plot(name: str, title: str, curves: Mapping[str, tuple[FloatArray, FloatArray, IntArray]]) -> str:
    """Returns the mean label against the mean probability of each bin; a point's area is its bin's share of examples.

    Args:
        name: prefix of the ids inside the SVG; title: the heading.
        curves: model -> (mean probability [b], mean label [b], number of examples [b]).
    """
    drawn = {key: bins for key, bins in curves.items() if np.size(bins[0])}
    missing = [f"No bins for {key}." for key in curves if key not in drawn]
    if not drawn:
        return _figure(title, "", [], missing or ["No calibration was recorded."])
    with matplotlib.rc_context(_SETTINGS):
        figure, axes = _axes(SQUARE_PLOT_INCHES, "mean probability of the bin", "mean label of the bin")
        # Click probabilities may all be below 0.1: the square reaches only as far as the data.
        limit = min(1.02, 1.08 * max(0.01, *(max(np.max(bins[0]), np.max(bins[1])) for bins in drawn.values())))
        axes.plot([0, limit], [0, limit], color=_TEXT, linestyle=":", linewidth=1.0)
        for i, (mean_probability, mean_label, count) in enumerate(drawn.values()):
            colour = _SERIES[i % NUM_COLOURS]
            axes.plot(mean_probability, mean_label, color=colour, linestyle=_line_style(i), linewidth=1.2)
            area = 25.0 * np.asarray(count) / np.mean(count)
            axes.scatter(mean_probability, mean_label, s=area, color=colour)
        axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
        svg = _svg(figure, name, f"{title}: mean label against mean probability")
    notes = [*missing, "Dotted: perfectly calibrated. Above it the model promises too little, below it too much."]
    return _figure(title, svg, [(key, "") for key in drawn], notes)


def _axes(inches: tuple[float, float], x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=inches, layout="constrained")
    axes = figure.add_subplot()
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=6)
    axes.set_xlabel(x_label, parse_math=False)
    axes.set_ylabel(y_label, parse_math=False)
    return figure, axes


def _line_style(index: int) -> str:
    return "-" if (index // NUM_COLOURS) % 2 == 0 else "--"


def _svg(figure: Figure, name: str, description: str) -> str:
    """Returns the figure as an SVG element that can stand inside HTML: no prologue, no addresses, ids of its own."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text.replace("xlink:href=", "href="))
    text = re.sub("|".join(_CSS_COLOURS), lambda match: _CSS_COLOURS[match.group()], text)
    box = re.search(r'viewBox="[^"]*"', text)
    opening = f'<svg {box.group() if box else ""} role="img" aria-label="{html.escape(description)}">'
    return re.sub(r"^<svg[^>]*>", lambda _: opening, text)


def _figure(title: str, svg: str, legend: Sequence[tuple[str, str]], notes: Sequence[str]) -> str:
    items = "".join(
        f'<li><i style="border-color:var(--s{i % NUM_COLOURS})"{"" if _line_style(i) == "-" else " class=dashed"}></i>'
        f"<span>{html.escape(key)}{f' <small>{html.escape(note)}</small>' if note else ''}</span></li>"
        for i, (key, note) in enumerate(legend)
    )
    return (
        f"<figure><h3>{html.escape(title)}</h3>{svg}"
        + (f'<ul class="legend">{items}</ul>' if items else "")
        + "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
        + "</figure>"
    )
