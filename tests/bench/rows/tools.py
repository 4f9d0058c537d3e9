"""MCP tools over HTTP, against the client of the ``mcp`` library alone with the same server program in the same run.

Homeport, its database, the client alone and their servers have the first core; who asks over HTTP has the second.
"""

import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.bench.calls import Calls, first_ms, running_caller
from tests.bench.cores import SERVER_CORE
from tests.bench.homeport_server import Homeport, running_homeport
from tests.bench.peers.mcp_calls import ARGUMENTS, TOOL
from tests.bench.table import Effort, Line, Measured, added_ms
from tests.bench.workers import Worker, running_worker

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, str(ROOT / "tests/mcp_servers/own.py"))
SERVERS = 8
BODY = json.dumps({"arguments": ARGUMENTS})
ANSWERED = '"isError":false'
AT_ONCE = 100
COLD_STARTS = 3
COLD_FACTOR = 1.2


def measure_tool_calls(folder: Path, effort: Effort) -> list[Line]:
    """A call of a tool of a server that runs: what is added to the client alone, and 100 calls at once."""
    with _running_homeport(folder) as homeport, running_caller() as caller, _client_alone() as alone:
        url = _url(homeport, 0)
        first_ms(url, homeport.headers, BODY, ANSWERED)
        alone.ask({"ask": "boot"})
        calls = Calls(url, homeport.headers, [BODY], count=effort.calls)
        many = Calls(url, homeport.headers, [BODY], AT_ONCE, AT_ONCE)
        times: dict[str, list[float]] = {name: [] for name in ("ours", "alone", "ours at once", "alone at once")}
        for _ in range(effort.rounds):
            times["ours"].append(caller.make(calls).p50_ms)
            times["alone"].append(statistics.median(alone.ask({"ask": "calls", "count": effort.calls})) * 1000)
            # Raises when one of them fails.
            times["ours at once"].append(AT_ONCE / caller.make(many).rate * 1000)
            times["alone at once"].append(alone.ask({"ask": "at once", "count": AT_ONCE}) * 1000)
    measured = {name: Measured.of(values) for name, values in times.items()}
    ours, theirs = measured["ours at once"], measured["alone at once"]
    value = f"none ({ours.median:.0f} ms for all of them; the client alone {theirs.median:.0f} ms)"
    return [
        added_ms("mcp", "p50 of a tool call over HTTP over the client alone", measured["ours"], measured["alone"], 2.0),
        Line("mcp", f"errors in {AT_ONCE} calls at once to one server, {effort.rounds} times", value, "none"),
    ]


def measure_tool_boots(folder: Path, effort: Effort) -> list[Line]:
    """The first call of a server that does not run, against the client alone, and the memory that all of it takes."""
    first: dict[str, list[float]] = {"ours": [], "alone": []}
    later: dict[str, list[float]] = {"ours": [], "alone": []}
    memory = []
    for _ in range(COLD_STARTS):
        with _running_homeport(folder) as homeport, _client_alone() as alone:
            before = _memory_mb(homeport.pid)
            first["ours"].append(first_ms(_url(homeport, 0), homeport.headers, BODY, ANSWERED))
            first["alone"].append(alone.ask({"ask": "boot"}) * 1000)
            memory.append((_memory_mb(homeport.pid) - before, _server_memory_mb(homeport.pid)))
            for number in range(1, min(SERVERS, effort.rounds + 1)):
                later["ours"].append(first_ms(_url(homeport, number), homeport.headers, BODY, ANSWERED))
                later["alone"].append(alone.ask({"ask": "boot"}) * 1000)
    own, server = (statistics.median(each) for each in zip(*memory, strict=True))
    return [
        _boot_line("the first of a process, which loads the library", first),
        _boot_line("of a further server", later),
        Line("mcp-boot", "memory", f"{own:.0f} MB in the server for the library and a session; {server:.0f} MB the MCP server itself"),
    ]


def _boot_line(what: str, times: dict[str, list[float]]) -> Line:
    ours, alone = Measured.of(times["ours"]), Measured.of(times["alone"])
    factor = ours.median / alone.median
    value = f"{factor:.2f} x (±{ours.spread + alone.spread:.0%}; {ours.median:.0f} against {alone.median:.0f} ms)"
    return Line(
        "mcp-boot", f"cold boot to the first answer against the client alone, {what}", value, f"≤ {COLD_FACTOR} x", factor <= COLD_FACTOR
    )


@contextmanager
def _running_homeport(folder: Path) -> Iterator[Homeport]:
    with running_homeport(folder, "tools") as homeport:
        for number in range(SERVERS):
            homeport.add_mcp_server(f"bench-{number}", *COMMAND)
        yield homeport


def _client_alone() -> AbstractContextManager[Worker]:
    return running_worker("tests.bench.peers.mcp_calls", *COMMAND, core=SERVER_CORE)


def _url(homeport: Homeport, number: int) -> str:
    return f"{homeport.base}/sdk/mcp/servers/bench-{number}/tools/{TOOL}/execute?provider=local"


def _memory_mb(pid: int) -> float:
    import psutil

    return float(psutil.Process(pid).memory_info().rss / 2**20)


def _server_memory_mb(pid: int) -> float:
    import psutil

    children = psutil.Process(pid).children(recursive=True)
    return sum(_memory_mb(child.pid) for child in children if COMMAND[1] in child.cmdline())
