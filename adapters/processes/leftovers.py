"""What is left of a program whose starter was killed: found by what was noted when it was started, and ended. Never a stranger."""

import asyncio
from contextlib import suppress

import psutil

from adapters.processes.tree import BURY_S, END_S, ProcessTree

# The start of a process is told by the clock, which may have been set since.
CLOCK_S = 1.0


async def end_leftovers(pid: int | None, started_at: float | None, mark: tuple[str, str]) -> int:
    """End what is left of the program with this number that was started at ``started_at``; returns how many processes that were, at least.

    Number and start together tell that a process is the one. All that it has started is known by ``mark``: the name and the value of
    a variable that no other program was ever given. This also finds a program whose number could not be noted any more.
    """
    count = 0
    if pid is not None and started_at is not None and _is_it(pid, started_at):
        tree, has_no_parent_here = ProcessTree(pid), asyncio.Event()
        has_no_parent_here.set()
        await tree.look()
        await tree.end(has_no_parent_here)
        count = 1
    return count + await asyncio.to_thread(_end_marked, *mark)


def _is_it(pid: int, started_at: float) -> bool:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return abs(process.create_time() - started_at) < CLOCK_S and process.status() != psutil.STATUS_ZOMBIE
    return False


def _end_marked(name: str, value: str) -> int:
    found = [process for process in psutil.process_iter() if _has_mark(process, name, value)]
    for process in found:
        with suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(found, timeout=END_S)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=BURY_S)
    return len(found)


def _has_mark(process: psutil.Process, name: str, value: str) -> bool:
    with suppress(psutil.Error, OSError):
        return process.environ().get(name) == value
    return False
