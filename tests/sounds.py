"""Sounds for tests: spoken ones, tones, and files of them in every format that is read."""

import io
import struct
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adapters.audio.pcm import Pcm
from adapters.voices import Voice
from adapters.voices.espeak import Espeak

# Of eSpeak's voices the one that pocketsphinx understands best, at 200 words a minute.
CLEAR = Voice("en-us+klatt4", "English")
CLEAR_SPEED = 200 / 175

Samples = NDArray[np.float64]


async def speak(*texts: str, pause_s: float = 1.0) -> Pcm:
    """These texts, spoken, with a pause after each."""
    voice = Espeak()
    try:
        spoken = [await voice.speak(text, voice=CLEAR, speed=CLEAR_SPEED) for text in texts]
    finally:
        await voice.close()
    rate = spoken[0].rate
    return Pcm(b"".join(each.samples + bytes(2 * int(pause_s * rate)) for each in spoken), rate)


def tone(rate: int, duration_s: float, channels: int = 1) -> Samples:
    """A tone of 440 Hz at half of the full level, one column a channel."""
    times = np.arange(round(rate * duration_s)) / rate
    return np.repeat(0.5 * np.sin(2 * np.pi * 440 * times)[:, None], channels, axis=1)


def make_wav(samples: Samples, rate: int, bits: int, *, is_float: bool = False) -> bytes:
    """A WAV file of ``samples`` between -1 and 1."""
    channels = samples.shape[1]
    if is_float:
        content = samples.astype(f"<f{bits // 8}").tobytes()
    elif bits == 8:
        content = (samples * 127 + 128).astype("u1").tobytes()
    else:
        whole = (samples * (2 ** (bits - 1) - 1)).astype("<i8")
        content = b"".join(int(value).to_bytes(bits // 8, "little", signed=True) for value in whole.ravel())
    size = bits // 8
    layout = struct.pack("<HHIIHH", 3 if is_float else 1, channels, rate, rate * channels * size, channels * size, bits)
    return b"".join(
        (b"RIFF", struct.pack("<I", 36 + len(content)), b"WAVEfmt \x10\0\0\0", layout, b"data", struct.pack("<I", len(content)), content)
    )


def make_file(samples: Samples, rate: int, container: str, codec: str) -> bytes:
    """A file of one or two channels, made by FFmpeg."""
    import av

    layout: Literal["mono", "stereo"] = "mono" if samples.shape[1] == 1 else "stereo"
    output = io.BytesIO()
    with av.open(output, "w", format=container) as file:
        stream: Any = file.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype("<i2").reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    return output.getvalue()


def values_of(pcm: Pcm) -> Samples:
    """Samples between -1 and 1."""
    return np.frombuffer(pcm.samples, "<i2").astype(np.float64) / 32768


def wrong_words(said: str, heard: str) -> int:
    """How many words were left out, put in or taken for others, at least."""
    row: Sequence[int] = range(len(heard.split()) + 1)
    for number, word in enumerate(said.split(), 1):
        above, row = row, [number]
        for place, other in enumerate(heard.split(), 1):
            row.append(min(above[place] + 1, row[place - 1] + 1, above[place - 1] + (word != other)))
    return row[-1]
