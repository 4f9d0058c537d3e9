"""Pieces of sound to one file that can be played."""

from collections.abc import Sequence

from adapters.audio.encoded import EncodedAudio
from adapters.audio.files import MEDIA_TYPES, AudioFormat, encode
from adapters.audio.pcm import BYTES_PER_SAMPLE, Pcm
from homeport.errors import AppError, InvalidRequest, UpstreamError

SHORTEST_S = 0.1
MAX_S = 3600.0
MP3 = MEDIA_TYPES["mp3"]

Audio = Pcm | EncodedAudio


def join(parts: Sequence[Audio], format: AudioFormat) -> EncodedAudio:
    """One file of all parts, in this format; in the one that a service sent, where it sent files. Call it in a thread.

    What holds nothing that can be heard becomes a short silence. Raises InvalidRequest when it would play for more than an hour,
    UpstreamError (SPEECH_ERROR) when a service has sent what is no sound.
    """
    first = parts[0]
    if isinstance(first, EncodedAudio) and len(parts) == 1:
        return first
    if all(isinstance(part, EncodedAudio) and part.media_type == MP3 for part in parts):
        return EncodedAudio(b"".join(part.content for part in parts if isinstance(part, EncodedAudio)), MP3)
    return EncodedAudio(encode(_joined([_samples(part) for part in parts]), format), MEDIA_TYPES[format])


def check_length(duration_s: float) -> None:
    """Raise InvalidRequest for a duration that is too long for one file."""
    if duration_s > MAX_S:
        raise InvalidRequest("text: it would be spoken for more than an hour. Split it, or stream it.")


def _joined(parts: Sequence[Pcm]) -> Pcm:
    rate = parts[0].rate
    samples = b"".join(part.samples for part in parts)
    check_length(len(samples) / BYTES_PER_SAMPLE / rate)
    return Pcm(samples.ljust(int(SHORTEST_S * rate) * BYTES_PER_SAMPLE, b"\0"), rate)


def _samples(part: Audio) -> Pcm:
    if isinstance(part, Pcm):
        return part
    from adapters.audio.decoding import decode

    try:
        return decode(part.content, max_s=MAX_S)
    except AppError as error:
        raise UpstreamError("The voice answered with audio that cannot be read. Try another one.", code="SPEECH_ERROR") from error
