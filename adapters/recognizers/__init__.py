"""Engines that write down what was said.

*pocketsphinx* comes with its model and needs nothing else, knows English only, and makes many mistakes. *whisper* (faster-whisper) is
good, in about a hundred languages, once one of its models is in the data directory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from adapters.audio.pcm import Pcm


@dataclass(frozen=True, slots=True)
class Segment:
    """What was said between two times, in seconds from the start of the sound."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said. ``text`` is empty when nothing was; ``language`` is a code of two or three letters, None when it is not known."""

    text: str
    language: str | None
    segments: tuple[Segment, ...]
    provider: str
    model: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class RecognizerModel:
    """A model that an engine can use now. ``language`` is the only one that it knows, None for many; ``size_bytes`` what it takes on
    disk.
    """

    id: str
    name: str
    language: str | None = None
    size_bytes: int | None = None


class Recognizer(Protocol):
    """An engine. Nothing is imported or loaded before the first use."""

    @property
    def name(self) -> str:
        """The provider id."""
        ...

    def models(self) -> Sequence[RecognizerModel]:
        """The models that can be used now, the one to use unless another is named first. Reads a folder at most."""
        ...

    def find_problem(self) -> str | None:
        """Why it cannot be used, and what to do about that; None when it can. Cheap."""
        ...

    async def transcribe(self, audio: Pcm, *, model: str | None, language: str | None) -> Transcript:
        """Write down ``audio`` (16 kHz) with one of ``models()``. When the caller is cancelled, the work stops soon after.

        Raises InvalidRequest for a language that the model does not know, Unavailable when the engine cannot be started.
        """
        ...

    async def prepare(self, *, model: str | None, language: str | None) -> None:
        """Load what ``transcribe`` will need, so that it answers sooner. Raises what it would raise for this model and language."""
        ...

    async def close(self) -> None:
        """End what runs and free the memory."""
        ...
