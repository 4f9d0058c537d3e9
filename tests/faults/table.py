"""The table of faults: each test fills a row, and ``python -m tests.faults`` writes them all to docs/faults.md."""

import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

PROPERTY = "fault"
TARGET = Path(__file__).parents[2] / "docs" / "faults.md"
HEAD = """# Faults

What was done to a running Homeport, what it promises, and what happened. Written by `make faults{long}`, which does all of it each time; a
shorter form of most of it runs in `make test`. The tests are in `tests/faults/`, one a row.

{machine}

| fault | what was done | what is promised | what happened |
|---|---|---|---|
"""
ELSEWHERE = """
What the rest of the tests do to it and is not repeated here: `tests/acceptance/test_killed.py` (kill -9 while agents work, one server and
two), `test_stop.py` (a stop with open streams, in the moment of the start, twice), `test_launcher.py` (a kill with a launched app),
`test_own_database.py` (an app's own database goes away), `tests/integration/test_embedded_postgres.py` (a start on a full disk, beside
processes of a killed server, with another program's number), `test_database.py`, `test_notifications.py` and `test_jobs.py` (connections
cut at each step), `test_openai_protocol.py` and `test_litellm_transport.py` (models that misbehave in thirty ways),
`test_mcp_processes.py`, `test_mcp_sessions.py` and `test_mcp_http.py` (MCP servers that do), `test_fetch.py` and
`tests/unit/test_audio_decoding.py` (pages and files of strangers), `test_agent_interruptions.py`.
"""


@dataclass
class Row:
    """One fault. ``cells`` are filled as the test goes on, so that a test that fails has told what it did."""

    cells: dict[str, str] = field(default_factory=dict)

    def fault(self, name: str, *, done: str, promised: str) -> None:
        """Say what is done and what is promised, before doing it."""
        self.cells.update(fault=name, done=done, promised=promised)

    def happened(self, *words: str) -> None:
        """Add what was seen."""
        self.cells["happened"] = " ".join(filter(None, [self.cells.get("happened"), *words]))


class Table:
    """A pytest plugin that collects the rows, in the order of the files."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the row of a test that has ended, and say so where it failed."""
        cells = next((value for name, value in report.user_properties if name == PROPERTY), None)
        if not isinstance(cells, dict) or not cells:
            return
        if report.failed:
            last = str(report.longrepr).strip().splitlines()[-1]
            self.rows[report.nodeid] = cells | {"happened": f"**MISSED** {cells.get('happened', '')} {last}"}
        elif report.when == "call":
            self.rows[report.nodeid] = dict(cells)

    def write(self, *, is_long: bool) -> str:
        """The page."""
        system = f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}, Python {platform.python_version()}"
        memory = f"{psutil.virtual_memory().total / 2**30:.0f} GB of memory"
        machine = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {memory}, {system}"
        names = ("fault", "done", "promised", "happened")
        lines = ["| " + " | ".join(_cell(cells.get(name, "")) for name in names) + " |" for cells in self.rows.values()]
        return HEAD.format(long=" LONG=1" if is_long else "", machine=machine) + "\n".join(lines) + "\n" + ELSEWHERE


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
