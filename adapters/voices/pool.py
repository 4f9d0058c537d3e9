"""Processes that speak, for the libraries that must not take the server down with them: eSpeak NG aborts its process over some texts, and
pyttsx3 crashes and hangs.

A process is started when somebody speaks and kept for the next text. It is killed when it fails or takes too long, when the caller leaves
(nothing else stops a synthesis for certain), and when nobody has spoken for a while.
"""

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, cast

import structlog

from adapters.audio.pcm import Pcm
from adapters.voices.serving import LENGTH_BYTES, Json
from homeport.errors import Unavailable, UpstreamError

START_S = 30.0
SPEAK_S = 30.0
IDLE_S = 60.0
MAX_ANSWER_BYTES = 256 * 1024 * 1024
ROOT = Path(__file__).resolve().parents[2]

log = structlog.get_logger(__name__)


class Pool:
    """At most ``size`` processes of a module. Who finds all of them speaking waits in line.

    ``title`` names the voices in errors, and ``fix`` says what to do when the module does not start.
    """

    def __init__(self, module: str, size: int, *, title: str, fix: str, idle_s: float = IDLE_S, speak_s: float = SPEAK_S) -> None:
        self._module = module
        self._title = title
        self._fix = fix
        self._idle_s = idle_s
        self._speak_s = speak_s
        self._size = size
        self._turns = asyncio.Semaphore(size)
        self._free: list[_Process] = []
        self._busy: set[_Process] = set()
        self._ending: asyncio.TimerHandle | None = None
        self._ends: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that run."""
        return [each.pid for each in (*self._free, *self._busy) if each.is_running]

    async def voices(self) -> Any:
        """The voices as the module describes them. Raises as ``speak`` does."""
        header, _ = await self._ask({"work": "voices"})
        return header["voices"]

    async def speak(self, text: str, voice: str, wpm: int, *, folder: str = "") -> Pcm:
        """The sound of a text. Raises Unavailable when no process starts, UpstreamError (SPEECH_ERROR) when it fails or takes too long.

        ``folder`` is where the process may leave a file.
        """
        header, samples = await self._ask({"work": "speak", "text": text, "voice": voice, "wpm": wpm, "folder": folder})
        return Pcm(samples, header["rate"])

    async def close(self) -> None:
        """End the processes; who is speaking or waiting fails with Unavailable."""
        self._is_closed = True
        for process in self._busy:
            process.kill()
        async with AsyncExitStack() as turns:
            for _ in range(self._size):
                await turns.enter_async_context(self._turns)
            if self._ending is not None:
                self._ending.cancel()
            self._end_idle()
        await asyncio.gather(*self._ends)

    async def _ask(self, request: Json) -> tuple[Json, bytes]:
        async with self._turns:
            if self._ending is not None:
                self._ending.cancel()
            process = await self._take()
            try:
                answer = await self._answer_of(process, request)
            except BaseException:
                self._end(process)
                raise
            else:
                self._give_back(process)
                return answer
            finally:
                self._ending = asyncio.get_running_loop().call_later(self._idle_s, self._end_idle)

    async def _take(self) -> "_Process":
        """A process for the caller alone. Raises Unavailable."""
        if self._is_closed:
            raise self._closed()
        while self._free:
            process = self._free.pop()
            if process.is_running:
                self._busy.add(process)
                return process
            self._end(process)
        process = _Process(await self._spawn())
        self._busy.add(process)
        try:
            async with asyncio.timeout(START_S):
                await process.answer()
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            self._end(process)
            if self._is_closed:
                raise self._closed() from error
            raise Unavailable(f"{self._title} do not start. {self._fix}", code="PROVIDER_UNAVAILABLE") from error
        except BaseException:
            self._end(process)
            raise
        log.debug("a process that speaks started", module=self._module, pid=process.pid)
        return process

    async def _spawn(self) -> asyncio.subprocess.Process:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", self._module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # a Ctrl-C in the terminal is the parent's to handle
        )

    async def _answer_of(self, process: "_Process", request: Json) -> tuple[Json, bytes]:
        try:
            async with asyncio.timeout(self._speak_s):
                header, samples = await process.ask(request)
        except TimeoutError as error:
            raise UpstreamError(f"{self._title} took too long. Try a shorter text.", code="SPEECH_ERROR") from error
        except (OSError, EOFError, ValueError) as error:
            if self._is_closed:
                raise self._closed() from error
            log.warning("a process that speaks ended", module=self._module, work=request["work"])
            raise UpstreamError(f"{self._title} failed over this text. Try another voice or text.", code="SPEECH_ERROR") from error
        if "error" in header:
            log.warning("a process that speaks failed", module=self._module, work=request["work"], reason=header["error"])
            raise UpstreamError(f"{self._title} failed. Try again, or try another voice.", code="SPEECH_ERROR")
        return header, samples

    def _give_back(self, process: "_Process") -> None:
        self._busy.discard(process)
        self._free.append(process)

    def _end_idle(self) -> None:
        """End the processes that nobody uses; called when nobody has been using any."""
        while self._free and not self._busy:
            self._end(self._free.pop())

    def _end(self, process: "_Process") -> None:
        """Kill a process that is no longer among the free ones, and see to its end in the background."""
        self._busy.discard(process)
        task = asyncio.create_task(process.end())
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    def _closed(self) -> Unavailable:
        return Unavailable(f"{self._title} were stopped before this was spoken. Try again.", code="PROVIDER_UNAVAILABLE")


class _Process:
    """One life of a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        # Both are pipes, and there.
        self._input = cast(asyncio.StreamWriter, process.stdin)
        self._output = cast(asyncio.StreamReader, process.stdout)
        self.pid = process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def ask(self, request: Json) -> tuple[Json, bytes]:
        """Send a request and read its answer."""
        content = json.dumps(request).encode()
        self._input.write(len(content).to_bytes(LENGTH_BYTES, "little") + content)
        await self._input.drain()
        return await self.answer()

    async def answer(self) -> tuple[Json, bytes]:
        """Read an answer. Raises EOFError when the process has ended, ValueError when it is none."""
        header: Json = json.loads(await self._read(int.from_bytes(await self._read(LENGTH_BYTES), "little")))
        return header, await self._read(header.get("size", 0))

    def kill(self) -> None:
        """Kill it; whoever waits for its answer then learns of its end."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        """Kill it and wait for its end."""
        self.kill()
        await self._process.communicate()

    async def _read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of {size} bytes")
        return await self._output.readexactly(size)
