"""What a row of growth found, and how it is published: figures as JSON, a page in Markdown, a plot for each row."""

import json
import math
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.bench.peer_environment import QUIET, ROOT, peer_program
from tests.bench.report import machine
from tests.bench.table import QUICK, Effort

DOCS = ROOT / "docs"
REHEARSAL = ROOT / "build" / "growth"
PLOT_LIMIT_S = 300
HEAD = """# Growth

What a request costs while the thing it works on grows. Every figure is measured through the running server by `make bench ROW=growth`
(about 20 minutes; `ROW=growth-vectors` runs one), which writes this page, its plots and [growth.json](growth.json). *n^0.10* in a sentence
says how a cost grows: ten times as much costs 10^0.10 = 1.26 times as much; *n^0* is flat, *n^1* in proportion.
"""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a plot: pairs of how large it was and what was measured then, in the unit of its panel."""

    name: str
    points: list[Point]

    @property
    def exponent(self) -> float:
        """The k with which the line grows as ``n ** k``, by least squares over logarithms; what was too small to see is left out."""
        seen = [(x, y) for x, y in self.points if y > 0]
        if len(seen) < 2:
            return 0.0
        xs, ys = ([math.log(value) for value in values] for values in zip(*seen, strict=True))
        x, y = sum(xs) / len(xs), sum(ys) / len(ys)
        return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)

    @property
    def factor(self) -> float:
        """The last value over the first; infinite when that was too small to be seen."""
        first, last = self.points[0][1], self.points[-1][1]
        return last / first if first else math.inf

    def says(self) -> str:
        """The slope, as a sentence of the page puts it."""
        return f"{self.name}: n^{self.exponent:.2f}, {self.factor:,.2f} times from {self.points[0][0]:,.0f} to {self.points[-1][0]:,.0f}"


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot of a row: what its upright axis shows, with the unit, and its lines. ``is_log``: both ends of the axis may be far apart."""

    label: str
    series: list[Series]
    is_log: bool = True


def _measured() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}, {machine()}"


@dataclass(frozen=True, slots=True)
class Study:
    """What a row found. ``title`` says the finding, ``x`` what grows, ``notes`` are sentences that the page adds to the slopes."""

    name: str
    title: str
    x: str
    panels: list[Panel]
    notes: Sequence[str] = ()
    measured: str = field(default_factory=_measured)


def publish(study: Study, effort: Effort) -> None:
    """Keep what was found, and write page and plots anew. A quick run is a rehearsal: it leaves ``docs/`` alone."""
    folder = REHEARSAL if effort is QUICK else DOCS
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "growth.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    found[study.name] = asdict(study)
    file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    studies = [_read(found[name]) for name in sorted(found)]
    (folder / "growth.md").write_text(write_page(studies), encoding="utf-8")
    command = [peer_program("python"), "-m", "tests.bench.peers.growth_plots", str(file), str(folder)]
    subprocess.run(command, env={**os.environ, **QUIET}, timeout=PLOT_LIMIT_S, check=True, cwd=ROOT)


def write_page(studies: Sequence[Study]) -> str:
    """The page: for each row its plot, the slopes of the first panel, the notes, and a table of all figures with their slopes."""
    parts = [HEAD]
    for study in studies:
        slopes = [series.says() for series in study.panels[0].series]
        sentences = [f"- {each}." for each in [*slopes, *study.notes]]
        parts += [
            f"## {study.title}",
            f"![{study.title}]({study.name}.svg)",
            "\n".join(sentences),
            "\n".join(_table(study)),
            f"`make bench ROW={study.name}` · {study.measured}",
        ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _table(study: Study) -> list[str]:
    sizes = sorted({x for panel in study.panels for series in panel.series for x, _ in series.points})
    lines = [f"| {study.x} | " + " | ".join(f"{size:,.0f}" for size in sizes) + " | grows as |", "|---|" + "---:|" * (len(sizes) + 1)]
    for panel in study.panels:
        for series in panel.series:
            values = dict(series.points)
            cells = [show(values[size]) if size in values else "" for size in sizes]
            slope = f"n^{series.exponent:.2f}" if panel.is_log else ""
            lines.append(f"| {series.name}: {panel.label} | " + " | ".join(cells) + f" | {slope} |")
    return lines


def show(value: float) -> str:
    """A figure with three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _read(found: dict[str, Any]) -> Study:
    panels = [
        Panel(panel["label"], [Series(each["name"], [(x, y) for x, y in each["points"]]) for each in panel["series"]], panel["is_log"])
        for panel in found["panels"]
    ]
    return Study(**{**found, "panels": panels})
