"""Uploaded audio files to samples: WAV, MP3, OGG (Vorbis, Opus) and FLAC, of any rate and any number of channels.

The bytes come from strangers, so little of FFmpeg gets to see them: the first bytes choose one of four demuxers, only the decoders named
here are opened, and nothing in a file can make anything else be opened. How long it plays is counted while it is decoded, because a small
file can hold hours.
"""

import asyncio
import io
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from adapters.audio.pcm import BYTES_PER_SAMPLE, Pcm
from homeport.errors import InvalidRequest, PayloadTooLarge

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler

RATE = 16_000
# Below, a small file plays for ever; above, a resampler needs memory without end. Neither is sound that anybody records.
MIN_RATE = 1_000
MAX_RATE = 768_000
NAMED_CHANNELS = 8
_PCM = ("u8", "s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "s64le", "f32le", "f32be", "f64le", "f64be", "alaw", "mulaw")
# By demuxer, the decoders that may read what it finds.
_DECODERS = {
    "wav": frozenset(f"pcm_{name}" for name in _PCM),
    "mp3": frozenset({"mp3", "mp3float"}),
    "ogg": frozenset({"vorbis", "opus", "flac"}),
    "flac": frozenset({"flac"}),
}
_UNKNOWN = "The audio is no file that can be read. Send WAV (PCM), MP3, OGG (Vorbis or Opus) or FLAC."


def decode(content: bytes, *, max_s: float, stop: threading.Event | None = None) -> Pcm:
    """The sound of a file, at 16 kHz. What is damaged in it is passed over as long as anything is left.

    Blocks, so call it in a thread; it ends early, with what it has, once ``stop`` is set. Raises InvalidRequest when there is no sound in
    it, PayloadTooLarge when it plays for more than ``max_s`` seconds.
    """
    import av

    container_format = sniff(content)
    samples = bytearray()
    try:
        with av.open(io.BytesIO(content), format=container_format, options=_options(container_format), **_STRICT) as container:
            for piece in _resample(_frames(container, container_format, stop)):
                samples += piece
                if len(samples) > max_s * RATE * BYTES_PER_SAMPLE:
                    raise PayloadTooLarge(f"The audio plays for more than {max_s:g} s. Send it in parts.")
    except (av.FFmpegError, ValueError, OverflowError) as error:
        raise InvalidRequest(_UNKNOWN) from error
    if not samples and not (stop and stop.is_set()):
        raise InvalidRequest("The audio file holds no sound, or is cut off before any.")
    return Pcm(bytes(samples), RATE)


async def decode_in_thread(content: bytes, *, max_s: float) -> Pcm:
    """The same without blocking. Whoever is cancelled here stops the thread, too."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(decode, content, max_s=max_s, stop=stop)
    finally:
        stop.set()


def resample(audio: Pcm) -> Pcm:
    """The same sound at 16 kHz. Takes a thousandth of the time that it plays."""
    import numpy as np
    from av.audio.frame import AudioFrame

    if audio.rate == RATE:
        return audio
    frame = AudioFrame.from_ndarray(np.frombuffer(audio.samples, "<i2").reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = audio.rate
    return Pcm(b"".join(_resample(iter([frame]))), RATE)


def sniff(content: bytes) -> str:
    """The demuxer for a file, by its first bytes. Raises InvalidRequest when it is none of the four."""
    if not content:
        raise InvalidRequest("The audio file is empty.")
    if content[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and content[8:12] == b"WAVE":
        return "wav"
    if content.startswith(b"OggS"):
        return "ogg"
    if content.startswith(b"fLaC"):
        return "flac"
    # What music players write at the front, or the header of a frame: eleven bits, a version, layer III.
    if content.startswith(b"ID3") or (len(content) > 1 and content[0] == 0xFF and content[1] & 0xE6 == 0xE2):
        return "mp3"
    raise InvalidRequest(_UNKNOWN)


def _refuse(url: str, *_: object) -> NoReturn:
    raise ValueError("an audio file asks for another file")


# Titles in other encodings than they claim do no harm here.
_STRICT: dict[str, Any] = {"mode": "r", "metadata_errors": "ignore", "io_open": _refuse}


def _options(container_format: str) -> dict[str, str]:
    return {
        "format_whitelist": container_format,
        "codec_whitelist": ",".join(sorted(_DECODERS[container_format])),
        "protocol_whitelist": "",
        "max_streams": "8",
    }


def _frames(container: Any, container_format: str, stop: threading.Event | None) -> "Iterator[AudioFrame]":
    """The first stream of sound. Raises av.FFmpegError, ValueError."""
    import av

    stream = next(iter(container.streams.audio), None)
    if stream is None or stream.codec_context is None or stream.codec_context.name not in _DECODERS[container_format]:
        raise InvalidRequest(_UNKNOWN)
    for packet in container.demux(stream):
        if stop and stop.is_set():
            return
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            continue
        for frame in frames:
            if not MIN_RATE <= frame.sample_rate <= MAX_RATE:
                raise InvalidRequest(f"The audio has {frame.sample_rate} samples a second; it must be {MIN_RATE} to {MAX_RATE}.")
            yield frame


def _resample(frames: "Iterator[AudioFrame]") -> Iterator[bytes]:
    """One channel of 16 kHz out of whatever comes; a file may change its rate or channels on the way."""
    from av.audio.resampler import AudioResampler

    resampler: AudioResampler | None = None
    shape: tuple[object, ...] = ()
    for frame in frames:
        if frame.layout.nb_channels > NAMED_CHANNELS:
            frame = _mix(frame)
        frame.pts = None  # the resampler would object to gaps
        if (found := (frame.format.name, frame.layout.name, frame.sample_rate)) != shape:
            yield from _push(resampler, None)
            resampler, shape = AudioResampler(format="s16", layout="mono", rate=RATE), found
        yield from _push(resampler, frame)
    yield from _push(resampler, None)


def _mix(frame: "AudioFrame") -> "AudioFrame":
    """The mean of more channels than FFmpeg has a name for, without which it cannot mix them."""
    import numpy as np
    from av.audio.frame import AudioFrame

    values = frame.to_ndarray()
    channels = values if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels).T
    with np.errstate(all="ignore"):  # floating-point samples may be anything
        mean = channels.mean(axis=0).astype(values.dtype)
    mixed = AudioFrame.from_ndarray(mean.reshape(1, -1), format=frame.format.name, layout="mono")
    mixed.sample_rate = frame.sample_rate
    return mixed


def _push(resampler: "AudioResampler | None", frame: "AudioFrame | None") -> Iterator[bytes]:
    if resampler is not None:
        for out in resampler.resample(frame):
            if out is not None:
                yield bytes(out.planes[0])[: out.samples * BYTES_PER_SAMPLE]
