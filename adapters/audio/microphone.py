"""The microphone: what the machine's default recording device hears."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.audio.devices import LIBRARIES, Device, NoDevice, open_device
from adapters.audio.pcm import BYTES_PER_SAMPLE, Pcm
from homeport.errors import Unavailable

BLOCK_S = 0.1
# For 0.1 s of sound. Longer, and none will come.
SOUND_S = 3.0

_LINUX = (
    "Plug in or switch on a microphone. On Debian or Ubuntu, as a rule: sudo apt-get install libportaudio2 libasound2-plugins. "
    "A container needs the machine's sound passed in."
)
_ADVICE = {
    "darwin": "Plug in or switch on a microphone, and allow it for this program in System Settings, Privacy & Security, Microphone.",
    "win32": "Plug in or switch on a microphone, and allow it in Settings, Privacy & security, Microphone.",
}


class MicrophoneUnavailable(Unavailable):
    """No microphone can be used. ``reason`` says why, ``advice`` what to do; the message says both."""

    code = "MICROPHONE_UNAVAILABLE"

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.advice = _ADVICE.get(sys.platform, _LINUX)
        super().__init__(f"No microphone can be used: {reason}. {self.advice}")


class Recording:
    """A microphone that is open: iterate over it for blocks of sound, each of 100 ms, at the device's own rate."""

    def __init__(self, device: Device) -> None:
        self.rate = device.rate
        self.device = device.name
        self.library = device.library
        self._source = device.source
        self._block_bytes = int(self.rate * BLOCK_S) * BYTES_PER_SAMPLE

    def __aiter__(self) -> AsyncIterator[Pcm]:
        return self

    async def __anext__(self) -> Pcm:
        """The next 100 ms. Raises MicrophoneUnavailable when the device has gone, or gives nothing at all."""
        try:
            async with asyncio.timeout(SOUND_S):
                return Pcm(await self._source.readexactly(self._block_bytes), self.rate)
        except TimeoutError as error:
            raise MicrophoneUnavailable("it is open and gives no sound") from error
        except asyncio.IncompleteReadError as error:
            raise MicrophoneUnavailable("it stopped while it was recording") from error


@asynccontextmanager
async def record(libraries: tuple[str, ...] = LIBRARIES) -> AsyncIterator[Recording]:
    """Open the default microphone, and close it on the way out. Raises MicrophoneUnavailable; recording, within seconds."""
    try:
        async with open_device("record", libraries=libraries) as device:
            yield Recording(device)
    except NoDevice as error:
        raise MicrophoneUnavailable(str(error)) from error


async def find_microphone(libraries: tuple[str, ...] = LIBRARIES) -> str:
    """The name of the default microphone, which is not opened. Raises MicrophoneUnavailable."""
    try:
        async with open_device("find", libraries=libraries) as device:
            return device.name
    except NoDevice as error:
        raise MicrophoneUnavailable(str(error)) from error


async def find_problem() -> str | None:
    """Why no microphone can be used, and what to do; None when there is one."""
    try:
        await find_microphone()
    except MicrophoneUnavailable as error:
        return error.message
    return None
