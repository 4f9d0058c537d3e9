"""Listening: the machine's microphone until the speaker pauses, and what was said."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic

from adapters.audio.decoding import RATE, resample
from adapters.audio.microphone import record
from adapters.audio.pcm import Pcm
from adapters.audio.voice_activity import VoiceActivity
from adapters.postgres.locks import LockTimeoutError, exclusive
from adapters.recognizers import Transcript
from homeport.errors import Conflict
from homeport.speech.recognition import Recognition

USUAL_TIMEOUT_S = 10.0
# The official client for Python waits so long for its answer. Who asks for no more than that gets it by then: after the last of these
# seconds of recording the time is needed to write down what was said.
PATIENCE_S = 5.0
RECORDING_WITHIN_PATIENCE_S = 3.5


class Listening:
    """The microphone of this machine, for one listener at a time: a file in the data directory is locked, so that whoever shares that, the
    server's processes and the commands, share the microphone as well.
    """

    def __init__(self, recognition: Recognition, data_dir: Path) -> None:
        self._recognition = recognition
        self._lock_path = data_dir / "microphone.lock"

    async def listen(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        language: str | None = None,
        timeout_ms: int | None = None,
        on_open: Callable[[], None] | None = None,
    ) -> Transcript:
        """What is said into the microphone from now until the speaker pauses, ``timeout_ms`` (10 s when left out) at most; an empty text
        when nobody speaks. ``on_open`` is called when the microphone is open. When the caller is cancelled, it is closed at once.

        Raises Conflict (MICROPHONE_BUSY) while somebody else listens, Unavailable (MICROPHONE_UNAVAILABLE), and what a transcription with
        these choices raises: as a rule before the microphone is opened.
        """
        deadline = monotonic() + _recording_s(timeout_ms)
        choice = {"provider": provider, "model": model, "language": language}
        with self._alone():
            loading = asyncio.create_task(self._recognition.prepare(**choice))
            try:
                # Lets it look at the choice, so that a wrong one is refused here and now.
                await asyncio.wait({loading}, timeout=0)
                sound = await _record(loading, deadline, on_open)
            except BaseException:
                loading.cancel()
                await asyncio.gather(loading, return_exceptions=True)
                raise
        await loading
        return await self._recognition.transcribe_pcm(sound, **choice)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the microphone. Raises Conflict (MICROPHONE_BUSY) at once when somebody else does, in whatever process."""
        self._lock_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with ExitStack() as stack:
            try:
                stack.enter_context(exclusive(self._lock_path, 0))
            except LockTimeoutError as error:
                message = "Somebody else is listening to the microphone. Try again when they have finished."
                raise Conflict(message, code="MICROPHONE_BUSY") from error
            yield


def _recording_s(timeout_ms: int | None) -> float:
    timeout_s = USUAL_TIMEOUT_S if timeout_ms is None else timeout_ms / 1000
    return min(timeout_s, RECORDING_WITHIN_PATIENCE_S) if timeout_s <= PATIENCE_S else timeout_s


async def _record(loading: "asyncio.Task[None]", deadline: float, on_open: Callable[[], None] | None) -> Pcm:
    """What is said until ``deadline``, at 16 kHz: nothing when it is silent. Raises what ``loading`` has raised by then."""
    if loading.done():
        await loading
    async with record() as recording:
        if on_open is not None:
            on_open()
        activity = VoiceActivity(recording.rate)
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline - monotonic()):
                async for block in recording:
                    if loading.done():
                        await loading
                    activity.add(block.samples)
                    if activity.has_ended:
                        break
    speech = activity.speech()
    return await asyncio.to_thread(resample, speech) if speech else Pcm(b"", RATE)
