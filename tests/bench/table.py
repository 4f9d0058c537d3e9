"""What a row gives: lines of one table, and how much effort to spend on them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: rounds that alternate between the peers, seconds and calls of each, and vectors to search in."""

    rounds: int = 5
    seconds: int = 4
    calls: int = 300
    vectors: int = 100_000


QUICK = Effort(rounds=2, seconds=1, calls=40, vectors=20_000)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: what was measured, and whether it meets its target. A peer shown beside it has no target."""

    row: str
    what: str
    value: str
    target: str = ""
    is_met: bool = True


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure over the rounds: the median, and half the distance between best and worst as a share of it."""

    median: float
    spread: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Measured":
        """The figure that the rounds gave."""
        median = statistics.median(values)
        return cls(median, (max(values) - min(values)) / 2 / median)


def ratio(row: str, what: str, ours: Measured, theirs: Measured, target: float, unit: str = "requests/s") -> Line:
    """A line that asks for ``ours`` to be at least ``target`` times ``theirs``."""
    times = ours.median / theirs.median
    value = f"{times:.2f} x (±{ours.spread + theirs.spread:.0%}; {ours.median:,.0f} against {theirs.median:,.0f} {unit})"
    return Line(row, what, value, f"≥ {target:g} x", times >= target)


def added_ms(row: str, what: str, ours: Measured, bare: Measured, target: float, beside: str = "") -> Line:
    """A line that asks for ``ours`` to take at most ``target`` milliseconds more than ``bare``."""
    added = ours.median - bare.median
    spread = ours.median * ours.spread + bare.median * bare.spread
    value = f"{added:.2f} ms (±{spread:.2f}; {ours.median:.2f} against {bare.median:.2f} ms{beside})"
    return Line(row, what, value, f"≤ {target:g} ms", added <= target)


def seconds(row: str, what: str, values: Sequence[float], target: float) -> Line:
    """A line that asks for a median of at most ``target`` seconds."""
    median = statistics.median(values)
    return Line(row, what, f"{median:.2f} s ({min(values):.2f} to {max(values):.2f})", f"≤ {target:.0f} s", median <= target)


def write_table(lines: Sequence[Line]) -> str:
    """The lines as a table in Markdown."""
    rows = [f"| {line.row} | {line.what} | {line.value} | {line.target} | {_met(line)} |" for line in lines]
    return "\n".join(["| row | what | measured | target | met |", "|---|---|---|---|---|", *rows])


def _met(line: Line) -> str:
    if not line.target:
        return ""
    return "yes" if line.is_met else "**no**"
