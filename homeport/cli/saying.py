"""A text said aloud, sentence by sentence, or written to a file."""

import io
import wave
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from homeport.cli.running import end
from homeport.cli.writing import say

if TYPE_CHECKING:
    from adapters.audio.pcm import Pcm
    from homeport.speech.speaking import Speaking
    from homeport.speech.speeches import Speech

MAX_CHUNK_S = 3600.0


async def say_aloud(speaking: "Speaking", text: str, options: dict[str, Any]) -> None:
    """Say ``text`` on the default loudspeaker, each sentence while the next one is made."""
    from adapters.audio.playback import PlaybackUnavailable, play

    async with aclosing(await speaking.stream(text, **options)) as stream:

        async def pieces() -> "AsyncIterator[Pcm]":
            async for chunk in stream:
                yield _samples(chunk.content)

        try:
            await play(pieces())
        except PlaybackUnavailable as error:
            end(f"{error.message} To have a file instead: --out speech.wav")


def write_speech(speech: "Speech", file: Path) -> None:
    """Write a spoken text, and say so; ends the process where that is not possible."""
    try:
        file.write_bytes(speech.content)
    except OSError as error:
        end(f"{file} cannot be written: {error.strerror}.")
    say(f"Wrote {file} ({speech.media_type}), spoken by {speech.provider} with the voice {speech.voice}.")


def _samples(content: bytes) -> "Pcm":
    """The sound of a file, at the file's own rate where it is what this machine's voices make."""
    from adapters.audio.decoding import decode
    from adapters.audio.pcm import BYTES_PER_SAMPLE, Pcm

    try:
        with wave.open(io.BytesIO(content)) as file:
            if (file.getnchannels(), file.getsampwidth()) == (1, BYTES_PER_SAMPLE):
                return Pcm(file.readframes(file.getnframes()), file.getframerate())
    except (wave.Error, EOFError):
        pass  # MP3, or a WAV of another kind
    return decode(content, max_s=MAX_CHUNK_S)
