"""Sound devices, held by processes of their own (``adapters.audio.device_process``): begun, bounded and ended here."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import structlog

# Tried in this order.
LIBRARIES = ("sounddevice", "miniaudio")
# For each. Python and a library come up in 0.1 s; the rest is for a sound system or a headset that wakes up.
OPEN_TIMEOUT_S = 2.5
END_TIMEOUT_S = 0.5

Work = Literal["record", "play", "find"]

log = structlog.get_logger(__name__)


class NoDevice(Exception):
    """No library could open a device. The message says why, for people; what the libraries said is in the log."""


@dataclass(frozen=True, slots=True)
class Device:
    """An opened device: samples that it gives come from ``source``, those that it is to play go into ``sink``."""

    name: str
    library: str
    rate: int
    source: asyncio.StreamReader
    sink: asyncio.StreamWriter
    process: Process


@asynccontextmanager
async def open_device(work: Work, *, first_line: bytes = b"", libraries: tuple[str, ...] = LIBRARIES) -> AsyncIterator[Device]:
    """Open the default device with the first of ``libraries`` that can; ``first_line`` is what its process reads first.

    It is closed on the way out, whatever happens. A library that hangs costs OPEN_TIMEOUT_S, one that crashes nothing. Raises NoDevice.
    """
    problems: dict[str, str] = {}
    for library in libraries:
        # -P: what lies in the folder where the server was started is not to be imported.
        command = (sys.executable, "-P", "-m", "adapters.audio.device_process", work, library)
        process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        try:
            device = await _opened(library, process, first_line)
            if isinstance(device, Device):
                yield device
                return
            problems[library] = device
        finally:
            await asyncio.shield(_end(process))
    log.info("no sound device can be opened", problems=problems)
    raise NoDevice(" and ".join(_explain(*each) for each in problems.items()))


async def _opened(library: str, process: Process, first_line: bytes) -> Device | str:
    """The device that a process has opened, or why it has not."""
    source, sink = process.stdout, process.stdin
    if source is None or sink is None:
        raise BrokenPipeError
    sink.write(first_line)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            line = await source.readline()
    except TimeoutError:
        return f"no answer within {OPEN_TIMEOUT_S:g} s"
    told: dict[str, Any] = json.loads(line) if line else {"problem": "it crashed"}
    return str(told["problem"]) if "problem" in told else Device(told["device"], library, told["rate"], source, sink, process)


async def _end(process: Process) -> None:
    """End a process: it leaves when its input ends, unless it hangs."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            # Also reads what is left: until then its pipes stay open.
            await process.communicate()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def _explain(library: str, problem: str) -> str:
    if "PortAudio library not found" in problem:
        return "PortAudio is not installed"
    name = "PortAudio" if library == "sounddevice" else "the system's own sound interface"
    if problem.startswith("no answer"):
        return f"{name} gives {problem}"
    return f"{name} finds no device that it can open" if library == "sounddevice" else f"{name} has none"
