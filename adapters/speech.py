"""What speech from a text is, whichever model makes it. It fails as a chat does: the errors are those of ``adapters.model_failures``."""

import io
import wave
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from adapters.audio.encoded import EncodedAudio
from adapters.audio.pcm import BYTES_PER_SAMPLE, Pcm
from adapters.chat import Endpoint, Usage
from adapters.model_failures import bad_answer

MAX_AUDIO_BYTES = 32 * 1024 * 1024
THE_TEXT = "The text"  # as the errors of ``adapters.model_failures`` name what was asked
NOT_AUDIO = "did not answer with audio"


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """A text to be spoken. ``speed`` None is as the voice speaks; ``timeout_s``, which bounds the answer, None is as the transport does."""

    model: str
    text: str = field(repr=False)
    voice: str
    speed: float | None = None
    timeout_s: float | None = None

    def within(self, timeout_s: float | None) -> Self:
        """The same, within this time."""
        return self if timeout_s == self.timeout_s else replace(self, timeout_s=timeout_s)


@dataclass(frozen=True, slots=True)
class SpeechResult:
    """What was spoken: samples, or a file where the provider gave one that is not made of such samples."""

    audio: Pcm | EncodedAudio
    provider: str
    model: str
    usage: Usage
    duration_s: float


class SpeechTransport(Protocol):
    """A way to reach models that speak. Raises the errors of ``adapters.model_failures`` and nothing else."""

    async def speak(self, endpoint: Endpoint, request: SpeechRequest) -> SpeechResult:
        """Ask, and wait for the whole of it."""


def audio_of(endpoint: Endpoint, content: bytes) -> Pcm | EncodedAudio:
    """The audio that a provider answered with. What its header calls it is not looked at: many call all of it the same.

    Raises when it is neither a WAV nor an MP3 file, or holds nothing.
    """
    check_size(endpoint, content)
    if content[:4] == b"RIFF" and content[8:12] == b"WAVE":
        return _read_wav(endpoint, content)
    if content[:3] == b"ID3" or _begins_with_mp3_frame(content):
        return EncodedAudio(content, "audio/mpeg")
    raise bad_answer(endpoint, NOT_AUDIO, content[:64])


def samples_of(endpoint: Endpoint, content: bytes, rate: int) -> Pcm:
    """Samples that came without a header. Raises when there are none, or only a part of one."""
    check_size(endpoint, content)
    if not content or len(content) % BYTES_PER_SAMPLE:
        raise bad_answer(endpoint, NOT_AUDIO, f"{len(content)} bytes of samples")
    return Pcm(content, rate)


def check_size(endpoint: Endpoint, content: bytes) -> None:
    """Raise for what is larger than any text that is sent can be spoken in."""
    if len(content) > MAX_AUDIO_BYTES:
        raise bad_answer(endpoint, "gave an answer that is too large")


def _read_wav(endpoint: Endpoint, content: bytes) -> Pcm | EncodedAudio:
    """The samples of a WAV file; of another kind than ours it stays a file. The lengths in its header may be those of a stream, unknown."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            samples = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        if content[20:22] not in (b"\x01\x00", b""):  # not plain samples: floating-point numbers, compressed
            return EncodedAudio(content, "audio/wav")
        raise bad_answer(endpoint, NOT_AUDIO, error) from error
    if not samples or rate <= 0:
        raise bad_answer(endpoint, "gave audio with nothing in it")
    if (channels, width) != (1, BYTES_PER_SAMPLE):
        return EncodedAudio(content, "audio/wav")
    return Pcm(samples[: len(samples) // BYTES_PER_SAMPLE * BYTES_PER_SAMPLE], rate)


def _begins_with_mp3_frame(content: bytes) -> bool:
    """Whether it begins with the head of an MPEG frame of layer III."""
    return len(content) > 3 and content[0] == 0xFF and content[1] & 0xE6 == 0xE2 and content[1] & 0x18 != 0x08
