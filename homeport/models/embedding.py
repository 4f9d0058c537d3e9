"""Embedding many texts: in requests of a size that the provider takes, a few at once, and put together again."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter

from adapters.chat import Endpoint, Usage
from adapters.embedding import EmbeddingRequest, EmbeddingResult
from adapters.model_failures import bad_answer
from homeport.errors import FieldProblem, InvalidRequest
from homeport.models.environment import DEFAULT_EMBEDDING_LIMITS, EmbeddingLimits, recognize_provider
from homeport.models.providers import NATIVE

MAX_AT_ONCE = 4
# No provider is sent more: an answer of 256 vectors has up to 20 MB, and four of them are there sooner than one four times as large.
MAX_TEXTS_AT_ONCE = 256

Embed = Callable[[EmbeddingRequest], Awaitable[EmbeddingResult]]


def check_texts(texts: Sequence[str]) -> None:
    """Raises InvalidRequest when there are none, or when one of them is empty, saying which."""
    if not texts:
        raise _wrong("/input", "There is no text to embed.")
    for index, text in enumerate(texts):
        if not text:
            raise _wrong(f"/input/{index}", f"The text at index {index} is empty. Leave it out.")


def limits_of(endpoint: Endpoint) -> EmbeddingLimits | None:
    """What the provider takes in one request: little when it is not a well-known one, anything (None) when it is built in."""
    if endpoint.kind == NATIVE:
        return None
    known = recognize_provider(endpoint)
    return known.embedding_limits if known else DEFAULT_EMBEDDING_LIMITS


async def embed_in_batches(embed: Embed, endpoint: Endpoint, request: EmbeddingRequest) -> EmbeddingResult:
    """The vectors of all texts of ``request``, asked for in as many requests as the provider's limits make necessary.

    One that fails ends the others. Raises what ``embed`` raises, and InvalidRequest when the model does not keep to ``dimensions``.
    """
    started = perf_counter()
    limits = limits_of(endpoint)
    parts = split(request.texts, limits) if limits else [request.texts]
    results = await _embed_each(embed, [replace(request, texts=texts) for texts in parts])
    vectors = [vector for result in results for vector in result.vectors]
    lengths = {len(vector) for vector in vectors}
    if len(lengths) > 1:
        raise bad_answer(endpoint, "gave vectors of different lengths", sorted(lengths))
    if request.dimensions is not None and lengths != {request.dimensions}:
        made = f"The model '{request.model}' makes vectors of {lengths.pop()} numbers"
        raise InvalidRequest(f"{made}, not of {request.dimensions}. Leave dimensions out.")
    return EmbeddingResult(vectors, endpoint.provider, results[0].model, _sum(results), perf_counter() - started)


def split(texts: Sequence[str], limits: EmbeddingLimits) -> Iterator[Sequence[str]]:
    """The texts in order, in parts within the limits. A text that is larger than a whole part is one by itself."""
    start = size = 0
    for end, text in enumerate(texts):
        is_full = end - start >= min(limits.texts, MAX_TEXTS_AT_ONCE) or size + len(text) > limits.characters
        if is_full and end > start:
            yield texts[start:end]
            start, size = end, 0
        size += len(text)
    yield texts[start:]


async def _embed_each(embed: Embed, batches: Sequence[EmbeddingRequest]) -> Sequence[EmbeddingResult]:
    if len(batches) == 1:
        return [await embed(batches[0])]
    places = asyncio.Semaphore(MAX_AT_ONCE)

    async def embed_one(batch: EmbeddingRequest) -> EmbeddingResult:
        async with places:
            return await embed(batch)

    tasks = [asyncio.create_task(embed_one(batch)) for batch in batches]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _sum(results: Sequence[EmbeddingResult]) -> Usage:
    """All usage together; unknown where one part of it is."""

    def add(counts: Sequence[int | None]) -> int | None:
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    return Usage(add([each.usage.prompt_tokens for each in results]), None, add([each.usage.total_tokens for each in results]))


def _wrong(pointer: str, detail: str) -> InvalidRequest:
    return InvalidRequest(detail, problems=(FieldProblem("body", pointer, detail),))
