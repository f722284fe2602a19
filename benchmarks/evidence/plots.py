"""The plot of a comparison: how far each ranker is from the best peer, by gap."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.evidence.evaluation_set import POOLED
from benchmarks.evidence.measures import LOWER_IS_BETTER
from benchmarks.evidence.tables import leading_metric

_COLOURS = {"ours": "#c2410c", "learned": "#2563c9", "rule": "#57606a"}
_WORDS = {"ours": "this project", "learned": "learned peer", "rule": "rule"}


def plot_differences(group: Mapping[str, Any], path: Path) -> None:
    """Draws the leading metric's difference to the best other peer with its 95 % interval, a panel a column, a line a ranker.

    Args:
        group: one group's summary.
        path: the PNG.
    """
    comparison = group["comparison"]
    metric, columns, rankers = leading_metric(comparison), comparison["columns"], comparison["rankers"]
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    order = sorted(rankers, key=lambda name: sign * rankers[name][POOLED][metric]["mean"])
    figure = Figure(figsize=(3.4 + 2.6 * len(columns), 1.6 + 0.3 * len(order)), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for panel, column in zip(panels, columns, strict=True):
        panel.axvline(0.0, color="black", linewidth=0.8)
        for height, name in enumerate(order):
            cell = rankers[name][column][metric]
            if cell["best_peer"] is None:
                continue
            colour = _COLOURS[comparison["kinds"][name]]
            panel.plot([cell["low"], cell["high"]], [height, height], color=colour, linewidth=2.0)
            panel.plot(cell["difference"], height, "o", color=colour, markersize=5)
        panel.set_title(f"{column} ({group['column_slates'][column]:,})", fontsize=10)
        panel.tick_params(labelsize=8)
        panel.grid(True, alpha=0.3)
    panels[0].set_yticks(range(len(order)), order, fontsize=9)
    for name, label in zip(order, panels[0].get_yticklabels(), strict=True):
        label.set_color(_COLOURS[comparison["kinds"][name]])
    figure.suptitle(f"{group['name']}: {metric}, difference to the best other peer and its 95 % interval", fontsize=11)
    kinds = [kind for kind in _COLOURS if kind in comparison["kinds"].values()]
    handles = [panels[0].plot([], [], "o-", color=_COLOURS[kind], label=_WORDS[kind])[0] for kind in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(kinds), frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)
