"""Audio files made from samples: WAV, and MP3 where size matters."""

import struct
from typing import Literal

from adapters.audio.pcm import BYTES_PER_SAMPLE, Pcm

AudioFormat = Literal["wav", "mp3"]

MEDIA_TYPES: dict[AudioFormat, str] = {"wav": "audio/wav", "mp3": "audio/mpeg"}
MP3_KBIT_PER_S = 64
MP3_QUALITY = 5  # of 0, the best, to 9, the fastest


def encode(pcm: Pcm, format: AudioFormat) -> bytes:
    """A whole file of this format. MP3 takes a hundredth of the time that it plays; call it in a thread."""
    return _mp3(pcm) if format == "mp3" else _wav(pcm)


def _wav(pcm: Pcm) -> bytes:
    size = len(pcm.samples)
    layout = struct.pack("<IHHIIHH", 16, 1, 1, pcm.rate, pcm.rate * BYTES_PER_SAMPLE, BYTES_PER_SAMPLE, 8 * BYTES_PER_SAMPLE)
    return b"".join((b"RIFF", struct.pack("<I", 36 + size), b"WAVEfmt ", layout, b"data", struct.pack("<I", size), pcm.samples))


def _mp3(pcm: Pcm) -> bytes:
    import lameenc  # type: ignore[import-not-found]

    encoder = lameenc.Encoder()
    encoder.silence()  # it would write to standard error
    encoder.set_in_sample_rate(pcm.rate)
    encoder.set_channels(1)
    encoder.set_bit_rate(MP3_KBIT_PER_S)
    encoder.set_quality(MP3_QUALITY)
    return bytes(encoder.encode(pcm.samples) + encoder.flush())
