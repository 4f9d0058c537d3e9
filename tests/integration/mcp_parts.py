"""What the tests of MCP sessions share."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio
import psutil

from adapters.mcp import McpSessions, ServerSpec, ToolOutput
from adapters.outbound import Outbound
from adapters.processes import log_path, tail_log

Answer = TypeVar("Answer")


@asynccontextmanager
async def open_sessions(folder: Path, *, outbound: Outbound | None = None, **options: float) -> AsyncIterator[McpSessions]:
    """Sessions whose logs are in ``folder``; all are ended at the end."""
    sessions = McpSessions(folder, outbound or Outbound(), **options)
    try:
        yield sessions
    finally:
        await sessions.close()


def text_of(output: ToolOutput) -> str:
    """The only text of a result."""
    [block] = output.content
    assert block["type"] == "text"
    return str(block["text"])


def log_of(folder: Path, spec: ServerSpec) -> str:
    """The log of a server."""
    return "\n".join(tail_log(log_path(folder, spec.id), 10_000))


def children_told(log: str) -> list[psutil.Process]:
    """The processes that a server said it has started."""
    return [psutil.Process(int(pid)) for pid in re.findall(r"^child (\d+)$", log, re.MULTILINE)]


def runs(process: psutil.Process) -> bool:
    """Whether a process runs, dead ones that nobody has buried not counted."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def until(condition: Callable[[], Any], limit_s: float = 10) -> None:
    """Return when the condition holds; fail after ``limit_s``."""
    with anyio.fail_after(limit_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await anyio.sleep(0.01)


async def until_answer(ask: Callable[[], Awaitable[Answer]], is_it: Callable[[Answer], bool]) -> None:
    """Ask until the answer is as wanted; fail after 10 seconds."""
    with anyio.fail_after(10):
        while not is_it(await ask()):  # noqa: ASYNC110 - what is waited for happens in another process
            await anyio.sleep(0.01)
