"""Playing sound on the machine's default device: for the command line, since a server has nobody in front of it."""

from collections.abc import AsyncIterator

from adapters.audio.devices import LIBRARIES, NoDevice, open_device
from adapters.audio.pcm import Pcm
from homeport.errors import Unavailable


class PlaybackUnavailable(Unavailable):
    """No device can play sound."""

    code = "PLAYBACK_UNAVAILABLE"


async def play(pieces: AsyncIterator[Pcm], libraries: tuple[str, ...] = LIBRARIES) -> None:
    """Play pieces of one rate, each as soon as it is there, and return when the last has been heard.

    Raises PlaybackUnavailable, and what ``pieces`` raises.
    """
    first = await anext(pieces, None)
    if first is None:
        return
    try:
        async with open_device("play", first_line=b"%d\n" % first.rate, libraries=libraries) as device:
            try:
                device.sink.write(first.samples)
                async for piece in pieces:
                    device.sink.write(piece.samples)
                    await device.sink.drain()
                device.sink.close()
            except ConnectionError as error:
                raise PlaybackUnavailable("The device stopped while it was playing.") from error
            if await device.process.wait() != 0:
                raise PlaybackUnavailable("The device stopped while it was playing.")
    except NoDevice as error:
        raise PlaybackUnavailable(f"Nothing here can play sound: {error}.") from error
