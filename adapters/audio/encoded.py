"""Sound as a file that can be played: what is answered with, and what some voices give at once."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EncodedAudio:
    """A whole file, and what it is: ``audio/wav`` or ``audio/mpeg``."""

    content: bytes = field(repr=False)
    media_type: str
