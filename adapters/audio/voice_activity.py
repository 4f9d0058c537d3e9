"""Whether somebody speaks in a recording, and when they have finished, by how loud it is.

Loudness is enough to end a recording, takes a thousandth of the time of a neural detector and needs no model. Each 50 ms have a level;
the quietest of the last seconds is the noise floor, because speech is full of short gaps and noise is not. What is well above the floor is
speech, as soon as there is a little more of it than a click has. Decisions are made again whenever the floor has moved, so somebody who
speaks from the first moment is heard as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

from adapters.audio.pcm import BYTES_PER_SAMPLE, Pcm

FRAME_S = 0.05
SILENCE_AFTER_S = 0.8
MARGIN_BEFORE_S = 0.5  # words begin softly
MARGIN_AFTER_S = 0.3

# Levels in dB, 0 being the loudest sine there is; frames are numbers of 50 ms.
LOWEST_DB = -100.0
# Below there is no sound at all, not even of a room: the device has not begun yet, or a filter in it shuts out what is no speech.
NOTHING_DB = -90.0
LEAST_FLOOR_DB = -65.0
BEGIN_ABOVE_FLOOR_DB = 9.0
STAY_ABOVE_FLOOR_DB = 6.0
FLOOR_FRAMES = 60
BEGIN_FRAMES = 3
BEGIN_WITHIN_FRAMES = 6
SILENT_FRAMES = round(SILENCE_AFTER_S / FRAME_S)


@dataclass(frozen=True, slots=True)
class Speech:
    """Where speech is in a recording: frames from ``start`` up to, not including, ``end``."""

    start: int
    end: int


class VoiceActivity:
    """Listens to a recording of ``rate`` samples a second, piece by piece."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._frame_bytes = int(rate * FRAME_S) * BYTES_PER_SAMPLE
        self._samples = bytearray()
        self._levels: list[float] = []
        self._speech: Speech | None = None

    def add(self, samples: bytes) -> None:
        """Take in what was recorded next."""
        self._samples += samples
        while len(self._samples) >= (len(self._levels) + 1) * self._frame_bytes:
            start = len(self._levels) * self._frame_bytes
            self._levels.append(level_db(bytes(self._samples[start : start + self._frame_bytes])))
        self._speech = find_speech(self._levels, self._speech)

    @property
    def has_begun(self) -> bool:
        """Whether somebody has spoken."""
        return self._speech is not None

    @property
    def has_ended(self) -> bool:
        """Whether somebody has spoken, and then been silent for SILENCE_AFTER_S."""
        return self._speech is not None and len(self._levels) - self._speech.end >= SILENT_FRAMES

    def speech(self) -> Pcm | None:
        """What was said, with a little of what was around it; None when nobody has spoken."""
        if self._speech is None:
            return None
        start = max(0, self._speech.start - round(MARGIN_BEFORE_S / FRAME_S)) * self._frame_bytes
        end = (self._speech.end + round(MARGIN_AFTER_S / FRAME_S)) * self._frame_bytes
        return Pcm(bytes(self._samples[start:end]), self._rate)


def level_db(samples: bytes) -> float:
    """How loud 16-bit samples are, without any constant part, which cheap microphones have and nobody hears."""
    values = memoryview(samples).cast("h")
    mean = sum(values) / len(values)
    power = sum(map(mul, values, values)) / len(values) - mean * mean
    return max(LOWEST_DB, 10 * math.log10(2 * power / 32768**2)) if power > 0 else LOWEST_DB


def find_speech(levels: Sequence[float], known: Speech | None = None) -> Speech | None:
    """Where speech is, by the levels of all frames. ``known`` is what was found before the last of them, and stays."""
    sounding = next((index for index, level in enumerate(levels) if level > NOTHING_DB), len(levels))
    first = max(sounding, len(levels) - FLOOR_FRAMES)
    recent = levels[first:]
    floor = noise_floor_db(recent)
    begin = _find_begin(recent, floor + BEGIN_ABOVE_FLOOR_DB)
    if begin is None:
        return known
    last = max(index for index, level in enumerate(recent) if level > floor + STAY_ABOVE_FLOOR_DB)
    start, end = first + begin, first + last + 1
    return Speech(min(known.start, start), max(known.end, end)) if known else Speech(start, end)


def noise_floor_db(levels: Sequence[float]) -> float:
    """How loud it is when nobody speaks, by the levels of the last seconds."""
    return max(LEAST_FLOOR_DB, min(levels, default=LEAST_FLOOR_DB))


def _find_begin(levels: Sequence[float], threshold: float) -> int | None:
    """The first frame above ``threshold`` with enough others close behind it."""
    loud = [index for index, level in enumerate(levels) if level > threshold]
    for index, later in zip(loud, loud[BEGIN_FRAMES - 1 :], strict=False):
        if later - index < BEGIN_WITHIN_FRAMES:
            return index
    return None
