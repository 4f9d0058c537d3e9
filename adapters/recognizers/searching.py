"""The parent's side of ``sphinx_process``: one process, started at the first use, ended when nobody has asked for a while."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process

import structlog

from adapters.recognizers.sphinx_process import LENGTH_BYTES
from homeport.errors import Unavailable

START_S = 30.0
# Ten times what the longest utterance takes on a slow machine.
ANSWER_S = 60.0
IDLE_S = 300.0
COMMAND = (sys.executable, "-P", "-m", "adapters.recognizers.sphinx_process")
# What a Python needs to start and to find what it imports; the server's keys are none of its business.
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")

log = structlog.get_logger(__name__)

# A word with its start and end in seconds.
Word = tuple[str, float, float]


class SearchProcess:
    """Finds the words in utterances, one at a time, in the order in which they were asked for."""

    def __init__(self, *, idle_s: float = IDLE_S) -> None:
        self._idle_s = idle_s
        self._turn = asyncio.Lock()
        self._process: Process | None = None
        self._ending: set[asyncio.Task[int]] = set()
        self._idle: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process is not None else None

    @property
    def is_busy(self) -> bool:
        """Whether it searches, or starts."""
        return self._turn.locked()

    async def start(self) -> None:
        """Start the process if it does not run. Raises Unavailable."""
        async with self._turn:
            await self._ready()
            self._rest()

    async def search(self, samples: bytes) -> list[Word]:
        """The words of an utterance. A caller that is cancelled ends the process, which is started again for the next.

        Raises Unavailable when the process cannot be started, or ends, or takes too long.
        """
        async with self._turn:
            process = await self._ready()
            words = await self._exchange(process, samples, ANSWER_S)
            self._rest()
            return words

    async def close(self) -> None:
        """End the process. Whoever asks, now or later, gets Unavailable."""
        self._is_closed = True
        self._end()
        await asyncio.gather(*self._ending)

    async def _ready(self) -> Process:
        if self._is_closed:
            raise Unavailable("The recogniser was stopped before this was done. Try again.", code="PROVIDER_UNAVAILABLE")
        if self._idle is not None:
            self._idle.cancel()
        if self._process is None or self._process.returncode is not None:
            environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
            # In a session of its own: Ctrl-C is for the server, which ends it.
            self._process = await asyncio.create_subprocess_exec(*COMMAND, stdin=PIPE, stdout=PIPE, env=environment, start_new_session=True)
            await self._exchange(self._process, b"", START_S)
        return self._process

    async def _exchange(self, process: Process, samples: bytes, limit_s: float) -> list[Word]:
        """Send an utterance, if there is one, and read an answer. Whatever goes wrong, the process is ended: its next answer is
        nobody's.
        """
        try:
            async with asyncio.timeout(limit_s):
                return await _ask(process, samples)
        except (OSError, asyncio.IncompleteReadError) as error:  # TimeoutError is an OSError
            log.warning("pocketsphinx failed", reason=type(error).__name__, status=process.returncode)
            message = "The recogniser pocketsphinx ended, or took too long. Try again; the server's log has more."
            self._end()
            raise Unavailable(message, code="PROVIDER_UNAVAILABLE") from error
        except BaseException:
            self._end()
            raise

    def _rest(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._end)

    def _end(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            ending = asyncio.get_running_loop().create_task(process.wait())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)


async def _ask(process: Process, samples: bytes) -> list[Word]:
    if process.stdin is None or process.stdout is None:
        raise BrokenPipeError
    if samples:
        process.stdin.write(len(samples).to_bytes(LENGTH_BYTES, "little") + samples)
        await process.stdin.drain()
    length = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "little")
    return [(word, start_s, end_s) for word, start_s, end_s in json.loads(await process.stdout.readexactly(length))]
