"""The provider ``native``: the checks of what is asked, and what is answered."""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from adapters.chat import Endpoint, Usage
from adapters.embedding import EmbeddingRequest, EmbeddingResult
from adapters.minilm.files import MODEL, is_installed
from adapters.minilm.runtime import Runtime
from adapters.minilm.worker import Worker
from homeport.errors import InvalidRequest

PROVIDER = "native"
DIMENSIONS = 384
MAX_TOKENS = 256  # word pieces of one text with the two that mark begin and end, as the published model counts
MARKS = 2
NAMES = frozenset({MODEL.lower(), f"sentence-transformers/{MODEL}".lower()})


class MiniLM:
    """The transport for the embedding model that runs here; the endpoint's address and key mean nothing to it.

    ``folder`` holds the model's files (None: where the wheel put them), ``threads`` bounds the cores that a run uses (None: at most 4).
    Belongs to one event loop.
    """

    def __init__(self, folder: Path | None = None, threads: int | None = None) -> None:
        self._folder = folder
        self._threads = threads
        self._worker: Worker | None = None

    @staticmethod
    def is_installed() -> bool:
        """Whether the model's files are here. Cheap: nothing is loaded."""
        return is_installed()

    async def embed(self, endpoint: Endpoint, request: EmbeddingRequest) -> EmbeddingResult:
        """Vectors of length 1. The first call loads the model.

        Raises InvalidRequest (also INVALID_MODEL) for another model or number of dimensions and for a text that is empty or longer than
        MAX_TOKENS, TooManyRequests when too much waits, Unavailable (PROVIDER_UNAVAILABLE) when the model is not installed.
        """
        started = perf_counter()
        _check_model(endpoint, request)
        worker = self._working()
        texts = await worker.encode(request.texts)
        for index, text in enumerate(texts):
            _check_length(index, len(text))
        vectors = await worker.embed(texts)
        tokens = sum(map(len, texts))
        usage = Usage(prompt_tokens=tokens, total_tokens=tokens)
        return EmbeddingResult(vectors, endpoint.provider, MODEL, usage, perf_counter() - started)

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, as MAX_TOKENS counts them. Raises InvalidRequest and Unavailable as ``embed`` does."""
        return [len(text) for text in await self._working().encode(texts)]

    async def close(self) -> None:
        """End the thread and free the memory. The model can be used again afterwards, and is then loaded again."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.close()

    def _working(self) -> Worker:
        if self._worker is None:
            self._worker = Worker(lambda: Runtime(self._folder, self._threads))
        return self._worker


def _check_model(endpoint: Endpoint, request: EmbeddingRequest) -> None:
    if request.model.lower() not in NAMES:
        message = f"The model provider '{endpoint.provider}' has only the model '{MODEL}', not '{request.model[:80]}'."
        raise InvalidRequest(message, code="INVALID_MODEL")
    if request.dimensions not in (None, DIMENSIONS):
        message = f"The model '{MODEL}' makes vectors of {DIMENSIONS} dimensions, not {request.dimensions}. Leave the number out."
        raise InvalidRequest(message)


def _check_length(index: int, tokens: int) -> None:
    if tokens <= MARKS:
        raise InvalidRequest(f"The text at index {index} is empty. Leave it out.")
    if tokens > MAX_TOKENS:
        raise InvalidRequest(
            f"The text at index {index} has {tokens} tokens; the model '{MODEL}' takes at most {MAX_TOKENS}. Split it into smaller texts "
            "(POST /sdk/llm/vectors/ingest does that), or choose another model."
        )
