"""What a whole run of the bench leaves: bench.md, and until it is complete bench.json, from which an interrupted one goes on."""

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench.peer_environment import LOCK_FILE, ROOT
from tests.bench.table import Effort, Line, write_table

PAGE, PARTS = ROOT / "bench.md", ROOT / "bench.json"
PEERS_HERE = ("fastapi", "starlette", "psycopg", "mcp")
PEERS_APART = ("litellm", "chromadb", "lancedb", "procrastinate")
HEAD = """# Bench

`make bench` writes this page, `make bench ROW=ping` measures one row and prints it. Figures are medians of {rounds} rounds that
alternate between the peers; ± is half the distance from the best round to the worst, of both sides together. Servers under test have one
core, the load and the stand-in for a model the other, unless a line says otherwise. Ratios between peers of one run can be compared with
those of other machines, absolute figures cannot.
"""


@dataclass(slots=True)
class Run:
    """The rows of one whole run that are measured so far. ``subject`` is the commit with its changes, and ``effort`` what is spent."""

    subject: str
    effort: Effort
    minutes: dict[str, float] = field(default_factory=dict)
    lines: dict[str, list[Line]] = field(default_factory=dict)

    @classmethod
    def resume(cls, effort: Effort, file: Path = PARTS) -> "Run":
        """What an interrupted run of the same code with the same effort has left in ``file``, else a new one."""
        run = cls(subject(), effort)
        if file.exists():
            kept = json.loads(file.read_text(encoding="utf-8"))
            if (kept["subject"], kept["effort"]) == (run.subject, asdict(effort)):
                run.minutes = kept["minutes"]
                run.lines = {row: [Line(**line) for line in lines] for row, lines in kept["lines"].items()}
        return run

    def add(self, row: str, lines: Sequence[Line], minutes: float, file: Path = PARTS) -> None:
        """Note the lines of a row, also in ``file``."""
        self.lines[row], self.minutes[row] = [*lines], minutes
        file.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False), encoding="utf-8")

    def publish(self, page: Path = PAGE, file: Path = PARTS) -> str:
        """Write the page, forget what was kept for the case of an interruption, and return the page."""
        text = write_page(self)
        page.write_text(text, encoding="utf-8")
        file.unlink(missing_ok=True)
        return text


def write_page(run: Run) -> str:
    """The page of a run in Markdown."""
    missed = [line for lines in run.lines.values() for line in lines if not line.is_met]
    judged = [line for lines in run.lines.values() for line in lines if line.target]
    effort = run.effort
    facts = {
        "Measured": f"{datetime.now(UTC):%Y-%m-%d}, in {sum(run.minutes.values()):.0f} minutes, of {run.subject.partition(' ')[0]}",
        "Machine": machine(),
        "Peers": ", ".join(f"{name} {number}" for name, number in peers().items()),
        "Command": f"`make bench` ({effort.rounds} rounds; {effort.seconds} s or {effort.calls} calls of each peer in a round)",
        "Targets": f"{len(judged) - len(missed)} of {len(judged)} are met",
    }
    shown = [f"- {name}: {value}" for name, value in facts.items()]
    table = write_table([line for lines in run.lines.values() for line in lines])
    return "\n".join([HEAD.format(rounds=effort.rounds), *shown, "", table, ""])


def machine() -> str:
    """The processor, how busy it was in the last minutes, the system and the Python."""
    names = re.findall(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE)
    parts = [f"{os.cpu_count()} cores{f' ({names[0]})' if names else ''}"]
    if memory:
        parts.append(f"{int(memory[1]) / 2**20:.0f} GiB")
    return ", ".join([*parts, f"{platform.system()} {platform.machine()}", f"Python {platform.python_version()}"])


def peers() -> dict[str, str]:
    """The versions of what is measured against: in this environment, and in that of the peers."""
    locked = dict(re.findall(r"^([\w.-]+?)(?:\[\S+\])?==(\S+)", LOCK_FILE.read_text(encoding="utf-8"), re.MULTILINE))
    return {name: version(name) for name in PEERS_HERE} | {name: locked[name] for name in PEERS_APART}


def subject() -> str:
    """The commit, and where files that it holds are changed, a sum of the changes."""
    try:
        commit = _git("describe", "--always", "--dirty=+changes", "--abbrev=10")
        changes = _git("diff", "HEAD", "--", ".", f":!{PAGE.name}")
    except (OSError, subprocess.CalledProcessError):
        return "an unknown commit"
    return f"{commit} {hashlib.sha256(changes.encode()).hexdigest()[:10]}" if changes else commit.removesuffix("+changes")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


def missing_targets(lines: Sequence[Line], wanted: Sequence[str]) -> list[str]:
    """Which of the targets that a row is to be judged by are on none of its lines."""
    found = [line.target for line in lines]
    return [target for target in wanted if target not in found]


def select_rows(rows: Mapping[str, Any], name: str | None) -> list[str]:
    """The row of this name, else those whose names begin with it and a hyphen; all without a name. Empty when there is none."""
    if name is None or name in rows:
        return [name] if name else [*rows]
    return [row for row in rows if row.startswith(f"{name}-")]
