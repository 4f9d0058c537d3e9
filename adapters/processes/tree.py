"""A process, its group and all it has started: found while it lives, ended together."""

import asyncio
import os
import signal
from contextlib import suppress

import psutil

END_S = 2.0  # between being told to end and being killed
BURY_S = 0.5  # for whoever inherits the dead to bury them
POLL_S = 0.01


class ProcessTree:
    """The tree below a process that leads a group of its own.

    Whoever stays in the group is reached even when its parents are gone. Whoever left it is reached if ``look`` saw it as a descendant.
    """

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self._descendants: list[psutil.Process] = []

    async def look(self) -> None:
        """Note who descends from the leader now: once it has ended nobody can tell any more."""
        self._descendants = await asyncio.to_thread(_find_descendants, self._leader)

    async def end(self, is_leader_reaped: asyncio.Event) -> None:
        """Tell the group to end, kill after END_S what of it is left, and kill descendants that left the group."""
        if self._signal(signal.SIGTERM):
            await self._wait_until_gone(END_S, is_leader_reaped)
            self._signal(signal.SIGKILL)
            await self._wait_until_gone(BURY_S, is_leader_reaped)
        for process in self._descendants:
            with suppress(psutil.Error):  # it ended, or belongs to somebody else by now
                process.kill()
        self._descendants = []

    async def _wait_until_gone(self, limit_s: float, is_leader_reaped: asyncio.Event) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._signal(0):
                    if is_leader_reaped.is_set():
                        self._reap_adopted()
                    await asyncio.sleep(POLL_S)

    def _signal(self, number: int) -> bool:
        """Send a signal to the group; whether anybody is left in it."""
        try:
            os.killpg(self._leader, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # somebody in it belongs to another user
        return True

    def _reap_adopted(self) -> None:
        """Take the exit statuses of group members that fell to this process: the first process of a container inherits all orphans."""
        with suppress(ChildProcessError):
            while os.waitpid(-self._leader, os.WNOHANG) != (0, 0):
                pass


def _find_descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
