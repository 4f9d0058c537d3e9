"""What an embedding of texts is, whoever makes it. It fails as a chat does: the errors are those of ``adapters.model_failures``."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from adapters.chat import Endpoint, Usage


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts to be turned into vectors. None means that the model decides, and for ``timeout_s``, which bounds the answer, the transport."""

    model: str
    texts: Sequence[str] = field(repr=False)
    dimensions: int | None = None
    timeout_s: float | None = None

    def within(self, timeout_s: float | None) -> Self:
        """The same, within this time."""
        return self if timeout_s == self.timeout_s else replace(self, timeout_s=timeout_s)


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """One vector for each text, in the order of the texts, all of the same length."""

    vectors: list[list[float]] = field(repr=False)
    provider: str
    model: str
    usage: Usage
    duration_s: float


# What was asked of a model, as the errors of ``adapters.model_failures`` name it.
A_TEXT = "A text"


class EmbeddingTransport(Protocol):
    """A way to reach embedding models. Raises the errors of ``adapters.model_failures`` and nothing else."""

    async def embed(self, endpoint: Endpoint, request: EmbeddingRequest) -> EmbeddingResult:
        """Ask in one request and wait for all vectors, whose numbers are finite."""
