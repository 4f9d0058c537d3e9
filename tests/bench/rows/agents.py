"""Agents: what a turn and the use of a tool add to their parts, and many conversations at once over an hour's worth of turns.

Homeport, its database and the MCP servers have the first core; the stand-in for a model, which answers at once, shares the second with the
load. Conversations are new for each round, and of the length that one has, unless a line says otherwise.
"""

import http.client
import json
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.bench.calls import Caller, Calls, running_caller
from tests.bench.cores import SERVER_CORE
from tests.bench.homeport_server import Homeport, run_command, running_homeport
from tests.bench.peers.mcp_calls import ARGUMENTS, TOOL
from tests.bench.peers.shapes import chat_body
from tests.bench.rows.tools import COMMAND
from tests.bench.servers import running_stand_in
from tests.bench.table import Effort, Line, Measured, added_ms
from tests.bench.workers import running_worker

PROVIDER = "bench-agents"
MODELS = ("instant", "script")
MCP_SERVER = "bench-agents"
TURNS = 20
ADDED_MS = 5.0
SESSIONS = 200
TURNS_PER_HOUR = 60  # of each session: one a minute
PARTS = 6
FLAT = 0.05
QUESTION = "Hello! How are you today, and what can you do for me?"
SAY = {"say": "It is done."}
CALL = {"call": [{"tool": TOOL, "arguments": ARGUMENTS}]}


@dataclass(frozen=True, slots=True)
class Bench:
    """What runs, and who calls it."""

    homeport: Homeport
    upstream: str
    caller: Caller

    def turns(self, agent: str, message: str, count: int = TURNS, places: tuple[str, ...] = ()) -> Calls:
        """Calls that say something to an agent, in a new session each time they are made unless ``places`` names some."""
        url = f"{self.homeport.base}/sdk/agent/session/{{}}/chat"
        sessions = places or (self.begin(agent),)
        return Calls(url, self.homeport.headers, [json.dumps({"message": message})], len(sessions), count, places=sessions)

    def begin(self, agent: str) -> str:
        """A new session; returns its id."""
        connection = http.client.HTTPConnection(urlsplit(self.homeport.base).netloc, timeout=30)
        try:
            connection.request("POST", "/sdk/agent/session", json.dumps({"agent_name": agent}), self.homeport.headers)
            answer = json.loads(connection.getresponse().read())
            return str(answer["session"]["session_id"])
        finally:
            connection.close()

    def last_request(self) -> dict[str, Any]:
        """What the model was asked last."""
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=30)
        try:
            connection.request("GET", "/stand-in/state")
            asked: dict[str, Any] = json.loads(connection.getresponse().read())["last_request"]
            return asked
        finally:
            connection.close()

    def model(self, body: Mapping[str, Any], count: int) -> Calls:
        """The same calls of the model as an agent makes, without anything in between."""
        headers = {"Authorization": "Bearer unused", "Content-Type": "application/json"}
        return Calls(f"{self.upstream}/chat/completions", headers, [json.dumps(body)], count=count)


def measure_turn(folder: Path, effort: Effort) -> list[Line]:
    """A turn without tools, over a bare call of the model and beside a chat without an agent."""
    with _running(folder) as bench:
        body = {"messages": [{"role": "user", "content": QUESTION}], "model": "instant"}
        chat_url, chat = f"{bench.homeport.base}/sdk/llm/chat", json.dumps({**chat_body(), "model": "instant", "provider": PROVIDER})
        long_session = bench.begin("talker")
        bench.caller.make(bench.turns("talker", QUESTION, effort.calls, (long_session,)))
        shown = bench.last_request()
        took: dict[str, list[float]] = {name: [] for name in ("turn", "long", "chat", "bare", "bare long")}
        for _ in range(effort.rounds):
            short = [bench.caller.make(bench.turns("talker", QUESTION)).p50_ms for _ in range(effort.calls // TURNS)]
            took["turn"].append(statistics.median(short))
            took["long"].append(bench.caller.make(bench.turns("talker", QUESTION, effort.calls, (long_session,))).p50_ms)
            took["chat"].append(bench.caller.make(Calls(chat_url, bench.homeport.headers, [chat], count=effort.calls)).p50_ms)
            took["bare"].append(bench.caller.make(bench.model(body, effort.calls)).p50_ms)
            took["bare long"].append(bench.caller.make(bench.model(shown, effort.calls)).p50_ms)
    p50 = {name: Measured.of(values) for name, values in took.items()}
    what = f"p50 of a turn over bare aiohttp to the same model, sessions of {TURNS} turns"
    beside = f"; a chat without an agent {p50['chat'].median:.2f} ms"
    long, bare = p50["long"].median, p50["bare long"].median
    value = f"{long - bare:.2f} ms ({long:.2f} against {bare:.2f} ms with the same {len(shown['messages'])} messages)"
    return [
        added_ms("agent-turn", what, p50["turn"], p50["bare"], ADDED_MS, beside),
        Line("agent-turn", f"the same in one session of {effort.calls} turns and more, over a bare call with what its agent asked", value),
    ]


def measure_tool_use(folder: Path, effort: Effort) -> list[Line]:
    """A turn with one tool call, over the same turn without it, the further call of the model, and the warm call of the MCP server."""
    with _running(folder) as bench, running_worker("tests.bench.peers.mcp_calls", *COMMAND, core=SERVER_CORE) as alone:
        alone.ask({"ask": "boot"})
        plain, using = f"script: {json.dumps([SAY])}", f"script: {json.dumps([CALL, SAY])}"
        bench.caller.make(bench.turns("user", using))
        took: dict[str, list[float]] = {name: [] for name in ("using", "plain", "model", "tool")}
        for _ in range(effort.rounds):
            for name, message in (("using", using), ("plain", plain)):
                turns = [bench.caller.make(bench.turns("user", message)).p50_ms for _ in range(effort.calls // TURNS)]
                took[name].append(statistics.median(turns))
            took["model"].append(bench.caller.make(bench.model(_second_request(using), effort.calls)).p50_ms)
            took["tool"].append(statistics.median(alone.ask({"ask": "calls", "count": effort.calls})) * 1000)
    p50 = {name: Measured.of(values) for name, values in took.items()}
    parts = Measured.of([sum(each) for each in zip(took["plain"], took["model"], took["tool"], strict=True)])
    shown = ", ".join(f"{what} {p50[name].median:.2f}" for name, what in (("plain", "turn"), ("model", "model"), ("tool", "MCP call")))
    what = "p50 of a turn with one tool call over its parts: the turn without, a further call of the model, the warm MCP call"
    return [added_ms("agent-tool", what, p50["using"], parts, ADDED_MS, f": {shown}")]


def measure_sessions(folder: Path, effort: Effort) -> list[Line]:
    """Sessions that all chat at the same time: errors, turns a second, and memory on the way. One turn that fails fails the row."""
    turns = SESSIONS * TURNS_PER_HOUR * effort.calls // Effort().calls
    with _running(folder) as bench:
        sessions = tuple(bench.begin("talker") for _ in range(SESSIONS))
        rates, memory = [], []
        for _ in range(PARTS):
            rates.append(bench.caller.make(bench.turns("talker", QUESTION, turns // PARTS, sessions)).rate)
            memory.append(_memory_mb(bench.homeport.pid))
    first, middle, last = memory[0], memory[PARTS // 2], memory[-1]
    grown = last / middle - 1
    rate = Measured.of(rates)
    what = f"{SESSIONS} sessions at once on one process"
    return [
        Line("agent-sessions", f"errors in {turns:,} turns, {what}", f"none ({rate.median:,.0f} turns/s ±{rate.spread:.0%})", "none"),
        Line(
            "agent-sessions",
            "memory of the process after a sixth of the turns, two thirds, and all",
            f"{first:.0f}, {middle:.0f}, {last:.0f} MB ({grown:+.1%} at the end)",
            f"≤ +{FLAT:.0%}",
            grown <= FLAT,
        ),
    ]


@contextmanager
def _running(folder: Path) -> Iterator[Bench]:
    with running_stand_in(folder) as upstream, running_homeport(folder, "agents") as homeport, running_caller() as caller:
        homeport.add_provider(PROVIDER, "--base-url", upstream, *(part for model in MODELS for part in ("--model", model)))
        homeport.add_mcp_server(MCP_SERVER, *COMMAND)
        for slug, model, *options in (("talker", "instant"), ("user", "script", "--tool", f"{MCP_SERVER}/*")):
            create = ("agents", "create", slug, "--slug", slug, "--provider", PROVIDER, "--model", model, *options)
            run_command(homeport.data_dir, *create, harmless="is taken")
        yield Bench(homeport, upstream, caller)


def _second_request(message: str) -> dict[str, Any]:
    """What an agent asks the model once the tool has answered."""
    call = {"id": "call_1", "type": "function", "function": {"name": TOOL, "arguments": json.dumps(ARGUMENTS)}}
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    return {
        "model": "script",
        "messages": [
            {"role": "user", "content": message},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": ARGUMENTS["text"]},
        ],
        "tools": [{"type": "function", "function": {"name": TOOL, "description": "Say the same.", "parameters": schema}}],
    }


def _memory_mb(pid: int) -> float:
    import psutil

    return float(psutil.Process(pid).memory_info().rss / 2**20)
