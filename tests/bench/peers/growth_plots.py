"""Draws the plots of growth from their figures, ``python -m … growth.json FOLDER``; runs in the peers' environment.

Readable on white and on black: without a background, in colours of middle brightness.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

INK = "#7d8590"
COLOURS = ["#2f81f7", "#e5534b", "#2da44e", "#bf8700", "#a371f7", "#1b9e9e", "#d4679f"]
MARKS = "osD^vPX"
WIDTH, HEIGHT = 4.6, 3.9  # inches, of one panel
MOST_BESIDE = 3
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "homeport",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.8,
}


def draw(study: dict[str, Any], file: Path) -> None:
    """One file with a plot for each panel of a row."""
    panels = study["panels"]
    with mpl.rc_context(STYLE):
        columns = len(panels) if len(panels) <= MOST_BESIDE else math.ceil(len(panels) / 2)
        rows = math.ceil(len(panels) / columns)
        figure, axes = plt.subplots(rows, columns, figsize=(WIDTH * columns, HEIGHT * rows), squeeze=False, layout="constrained")
        figure.suptitle(study["title"], fontsize=12)
        for axis, panel in zip(axes.flat, panels, strict=False):
            _draw_panel(axis, panel, study["x"])
        for axis in axes.flat[len(panels) :]:
            axis.remove()
        figure.savefig(file, transparent=True, metadata={"Date": None})
        plt.close(figure)


def _draw_panel(axis: Any, panel: dict[str, Any], label: str) -> None:
    sizes = sorted({x for series in panel["series"] for x, _ in series["points"]})
    for series, colour, mark in zip(panel["series"], COLOURS, MARKS, strict=False):
        xs, ys = zip(*series["points"], strict=True)
        axis.plot(xs, ys, color=colour, marker=mark, markersize=5, label=series["name"])
    axis.set_xscale("log")
    axis.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    axis.xaxis.set_minor_formatter(NullFormatter())
    values = [y for series in panel["series"] for _, y in series["points"] if y > 0]
    if panel["is_log"] and values:
        axis.set_yscale("log")
        # Whole powers of ten around what was measured, so that a flat line looks flat.
        axis.set_ylim(10 ** math.floor(math.log10(min(values) * 0.9)), 10 ** math.ceil(math.log10(max(values) * 1.1)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel(label)
    axis.set_ylabel(panel["label"])
    axis.grid(visible=True)
    axis.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=1)


def main(figures: str, folder: str) -> None:
    """Draw every row that has figures."""
    for name, study in json.loads(Path(figures).read_text(encoding="utf-8")).items():
        draw(study, Path(folder) / f"{name}.svg")


if __name__ == "__main__":
    main(*sys.argv[1:])
