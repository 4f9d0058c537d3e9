"""What runs of the contract came to: kept for each seed, shown as a table, and those of the long form written to docs/contract.md."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from contract.server import ROOT

FOLDER = ROOT / "build" / "contract"
PAGE = ROOT / "docs" / "contract.md"
COLUMNS = ("seed", "examples", "operations", "requests", "links followed", "failures", "minutes", "day")
HEAD = """# Contract

What Schemathesis has sent to a running Homeport, and in how many ways the answers broke the document. Written by `make contract LONG=1`.
Each seed draws {examples} requests for each operation as nobody and as an app that holds nothing, who must be refused, and as a developer
who may do everything. Besides come the document's own examples, the edges of each schema, and sequences of requests along the links.
`contract/exclusions.py` lists which answers are not counted, each with its reason. A short form runs in `make test`.

"""


@dataclass(frozen=True, slots=True)
class Summary:
    """What the rounds of one seed came to. ``failures`` counts different ones, and rounds that could not be run to their end."""

    seed: int
    max_examples: int
    exercised: int
    operations: int
    requests: int
    links_followed: int
    links: int
    failures: int
    took_s: float
    day: str

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands in the columns."""
        operations, links = f"{self.exercised} of {self.operations}", f"{self.links_followed} of {self.links}"
        numbers = (str(self.seed), str(self.max_examples), operations, f"{self.requests:,}", links, str(self.failures))
        return (*numbers, f"{self.took_s / 60:.1f}", self.day)


def keep(summary: Summary) -> None:
    """Write it to a file, which outlives a run that is ended before its last seed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    _file(summary.seed, summary.max_examples).write_bytes(orjson.dumps(asdict(summary), option=orjson.OPT_INDENT_2))


def kept(seeds: Iterable[int], max_examples: int) -> list[Summary]:
    """Those that are there."""
    files = (_file(seed, max_examples) for seed in seeds)
    return [Summary(**orjson.loads(file.read_bytes())) for file in files if file.exists()]


def print_table(summaries: list[Summary]) -> None:
    """For a terminal."""
    rows = [COLUMNS, *(each.cells for each in summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def write_page(summaries: list[Summary], max_examples: int) -> None:
    """docs/contract.md."""
    rows = [COLUMNS, ("---:",) * len(COLUMNS), *(each.cells for each in summaries)]
    PAGE.write_text(HEAD.format(examples=max_examples) + "".join(f"| {' | '.join(row)} |\n" for row in rows), encoding="utf-8")


def _file(seed: int, max_examples: int) -> Path:
    return FOLDER / f"seed-{seed}-{max_examples}.json"
