"""Sound as plain samples: what voices give, recognisers take and the microphone records."""

from dataclasses import dataclass, field

BYTES_PER_SAMPLE = 2


@dataclass(frozen=True, slots=True)
class Pcm:
    """One channel of 16-bit signed little-endian samples, ``rate`` of them a second."""

    samples: bytes = field(repr=False)
    rate: int

    @property
    def duration_s(self) -> float:
        """How long it plays."""
        return len(self.samples) / BYTES_PER_SAMPLE / self.rate
