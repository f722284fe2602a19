"""The plots of a comparison: how far each ranker is from the best peer, by gap; and a study's numbers along its axis."""

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.evidence.evaluation_set import POOLED
from benchmarks.evidence.measures import LOWER_IS_BETTER
from benchmarks.evidence.study_list import COST
from benchmarks.evidence.tables import is_study, leading_metric

_COLOURS = {"ours": "#c2410c", "learned": "#2563c9", "rule": "#57606a"}
_LABEL_WIDTH = 36  # letters of a line
_WORDS = {"ours": "this project", "learned": "learned peer", "rule": "rule"}


def plot_group(group: Mapping[str, Any], path: Path) -> None:
    """Draws the leading metric's differences with their 95 % intervals, a panel a column, a line a ranker.

    They are differences to the best other peer; in a study, which has no peers, to its first row.

    Args:
        group: one group's summary.
        path: the PNG.
    """
    comparison = group["comparison"]
    metric, columns, rankers = leading_metric(comparison), comparison["columns"], comparison["rankers"]
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    order = sorted(rankers, key=lambda name: sign * rankers[name][POOLED][metric]["mean"])
    labels = [textwrap.fill(name, _LABEL_WIDTH) for name in order]
    num_lines = sum(label.count("\n") + 1 for label in labels)
    figure = Figure(figsize=(3.4 + 2.6 * len(columns), 1.6 + 0.3 * num_lines), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for panel, column in zip(panels, columns, strict=True):
        panel.axvline(0.0, color="black", linewidth=0.8)
        for height, name in enumerate(order):
            interval = _find_interval(comparison, name, column, metric)
            if interval is None:
                continue
            colour = _COLOURS[comparison["kinds"][name]]
            panel.plot([interval[0], interval[2]], [height, height], color=colour, linewidth=2.0)
            panel.plot(interval[1], height, "o", color=colour, markersize=5)
        panel.set_title(f"{column} ({group['column_slates'][column]:,})", fontsize=10)
        panel.tick_params(labelsize=8)
        panel.grid(True, alpha=0.3)
        panel.locator_params(axis="x", nbins=4)
    panels[0].set_yticks(range(len(order)), labels, fontsize=9)
    for name, label in zip(order, panels[0].get_yticklabels(), strict=True):
        label.set_color(_COLOURS[comparison["kinds"][name]])
    other = "the first row" if is_study(comparison) else "the best other peer"
    figure.suptitle(f"{group['name']}: {metric}, difference to {other} and its 95 % interval", fontsize=11)
    kinds = [kind for kind in _COLOURS if kind in comparison["kinds"].values()]
    handles = [panels[0].plot([], [], "o-", color=_COLOURS[kind], label=_WORDS[kind])[0] for kind in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(kinds), frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)


def plot_axis(group: Mapping[str, Any], path: Path) -> None:
    """Draws the leading metric along a study's axis, a panel a column, with the 95 % interval of its difference to the first row's.

    A study of costs has no such intervals: its other rows are peers.

    Args:
        group: one group's summary, with `axis`.
        path: the PNG.
    """
    comparison, axis = group["comparison"], group["axis"]
    metric, columns, places = leading_metric(comparison), comparison["columns"], axis["places"]
    is_cost = axis["words"] == COST
    labels = sorted(places, key=lambda label: places[label])
    figure = Figure(figsize=(1.0 + 2.9 * len(columns), 3.6), layout="constrained")
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for panel, column in zip(panels, columns, strict=True):
        means = [comparison["rankers"][label][column][metric]["mean"] for label in labels]
        found = [None if is_cost else _find_difference_to_first(comparison, label, column, metric) for label in labels]
        intervals = [interval or (math.nan,) * 3 for interval in found]
        panel.errorbar(
            [places[label] for label in labels],
            means,
            [
                [difference - low for low, difference, _ in intervals],
                [high - difference for _, difference, high in intervals],
            ],
            fmt="o" if is_cost else "o-",
            color=_COLOURS["ours"],
            capsize=3,
        )
        if is_cost:
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter("")
            panel.margins(x=0.35, y=0.15)
            for label, mean in zip(labels, means, strict=True):
                panel.annotate(
                    label, (places[label], mean), (0, 12), textcoords="offset points", ha="center", fontsize=8
                )
        panel.set_title(f"{column} ({group['column_slates'][column]:,})", fontsize=10)
        panel.tick_params(labelsize=8)
        panel.grid(True, alpha=0.3)
    panels[0].set_ylabel(metric)
    figure.supxlabel(axis["words"], fontsize=10)
    words = "" if is_cost else f", and the 95 % interval of its difference to that of {next(iter(places))}"
    figure.suptitle(f"{group['name']}: {metric}{words}", fontsize=11)
    figure.savefig(path, dpi=130)


def _find_interval(
    comparison: Mapping[str, Any], name: str, column: str, metric: str
) -> tuple[float, float, float] | None:
    """Low end, difference and high end; None where there is nothing to differ from."""
    if not is_study(comparison):
        cell = comparison["rankers"][name][column][metric]
        return None if cell["best_peer"] is None else (cell["low"], cell["difference"], cell["high"])
    return _find_difference_to_first(comparison, name, column, metric)


def _find_difference_to_first(
    comparison: Mapping[str, Any], name: str, column: str, metric: str
) -> tuple[float, float, float] | None:
    """Low end, difference and high end to the first of this project's rows; None where one of the two has no number."""
    if name not in comparison["gains"]:
        return (0.0, 0.0, 0.0)  # the first itself
    gain = comparison["gains"][name][column][metric]
    return None if not gain else (-gain["high"], -gain["difference"], -gain["low"])
