"""MCP servers that crash again and again, write without end, or never answer. How sessions are kept is in their own tests."""

import os
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.acceptance.servers import PROCESS_TIMEOUT_S, Admin, Server, eventually
from tests.faults.parts import Peak, pinging
from tests.faults.table import Row

MOST_MB = 150
CRASH_S = 8.0
PATIENCE_S = 10
# On a machine that does other things as well.
LATE_S = 20.0
PROGRAM = """
import os, sys, time
how, trace = sys.argv[1:]
with open(trace, "a") as file:
    file.write(f"{os.getpid()}\\n")
if how.startswith("crash"):
    sys.exit(3)
if how == "line":
    while True:
        os.write(1, b"x" * 65536)
while how == "lines":
    os.write(1, b'{"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "' + b"y" * 500 + b'"}}\\n')
while how == "stderr":
    os.write(2, b"z" * 4096 + b"\\n")
time.sleep(600)
"""


def add(admin: Admin, tmp_path: Path, how: str) -> Path:
    """Add a server that behaves so; returns the file with a line for each of its starts."""
    program, trace = tmp_path / "program.py", tmp_path / "starts"
    program.write_text(PROGRAM, encoding="utf-8")
    trace.touch()
    body = {"name": how, "command": sys.executable, "args": ["-S", str(program), how, str(trace)], "timeout_s": PATIENCE_S}
    # It is not tried here: it would fail.
    admin.call("POST", "/mcp-servers", body)
    return trace


def use(server: Server, admin: Admin, how: str) -> httpx.Response:
    """Ask for its tools, which starts it."""
    headers = {"Authorization": f"Bearer {admin.key}"}
    return httpx.get(f"{server.url}/sdk/mcp/servers/{how}/tools", headers=headers, timeout=PROCESS_TIMEOUT_S, trust_env=False)


def running(trace: Path) -> list[int]:
    """Those of its processes that run."""
    return [pid for pid in map(int, trace.read_text(encoding="utf-8").split()) if psutil.pid_exists(pid)]


def test_a_server_that_crashes_at_each_start(server: Server, admin: Admin, tmp_path: Path, row: Row) -> None:
    row.fault(
        "An MCP server in a crash loop",
        done=f"It ends at each start; eight clients use it without a pause for {CRASH_S:.0f} s.",
        promised="503 with Retry-After for each; it is started ever more seldom; no process is left; others are served.",
    )
    trace = add(admin, tmp_path, "crash")
    use(server, admin, "crash")  # loads what sessions need, which takes a while once
    answers: list[httpx.Response] = []
    until = time.monotonic() + CRASH_S

    def insist() -> None:
        while time.monotonic() < until:
            answers.append(use(server, admin, "crash"))
            time.sleep(0.05)

    threads = [threading.Thread(target=insist) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PROCESS_TIMEOUT_S)
    starts = len(trace.read_text(encoding="utf-8").splitlines())
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "MCP_SERVER_UNAVAILABLE")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    # A second after the first, two after the second, four after the third; each twice, because the older protocol is tried, too.
    assert 1 <= starts <= 8
    eventually(lambda: running(trace), lambda pids: pids == [])
    row.happened(f"{len(answers)} calls, all 503 MCP_SERVER_UNAVAILABLE; {starts} starts; no process was left.")


@pytest.mark.parametrize("how", ["lines", "mute", *(pytest.param(how, marks=pytest.mark.long) for how in ("line", "stderr"))])
def test_a_server_that_floods_or_never_answers(server: Server, admin: Admin, tmp_path: Path, row: Row, how: str) -> None:
    names = {"line": "one line without end", "lines": "lines without end", "stderr": "standard error without end", "mute": "nothing"}
    row.fault(
        f"An MCP server that writes {names[how]}",
        done="Its tools are asked for.",
        promised="An error within its time limit, bounded memory and log, no process left; others are served.",
    )
    trace = add(admin, tmp_path, how)
    began_at = time.monotonic()
    with Peak(psutil.Process(server.process.pid)) as peak, pinging(admin) as waits:
        answer = use(server, admin, how)
    took_s = time.monotonic() - began_at
    assert answer.status_code in (502, 503, 504)
    assert took_s < PATIENCE_S + LATE_S
    assert peak.grown < MOST_MB
    admin.call("PATCH", f"/mcp-servers/{how}", {"enabled": False})
    eventually(lambda: running(trace), lambda pids: pids == [], 20)
    logs = sum(path.stat().st_size for path in (server.data_dir / "mcp").rglob("*") if path.is_file())
    assert logs < 20e6
    assert admin.http.get("/sdk/ping").status_code == 200
    row.happened(
        f"{answer.status_code} {answer.json()['code']} after {took_s:.1f} s; at most {peak.grown:.0f} MB; logs {logs / 1e6:.1f} MB;"
    )
    row.happened(f"others waited for up to {max(waits, default=0):.2f} s.")


def test_no_file_descriptors_are_lost(server: Server, admin: Admin, tmp_path: Path) -> None:
    add(admin, tmp_path, "crash-again")
    process = psutil.Process(server.process.pid)
    before = process.num_fds()
    for _ in range(5):
        admin.call("PATCH", "/mcp-servers/crash-again", {"enabled": False})
        admin.call("PATCH", "/mcp-servers/crash-again", {"enabled": True})
        assert use(server, admin, "crash-again").status_code == 503
    eventually(process.num_fds, lambda count: count <= before + 5)
    assert os.path.exists(tmp_path / "starts")
