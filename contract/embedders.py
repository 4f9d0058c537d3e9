"""How the stand-in for a model server makes embeddings, by the name of the model: well, within limits, or wrongly."""

from array import array
from base64 import b64encode
from collections.abc import Callable
from hashlib import shake_256
from math import fsum, sqrt
from typing import Any

from contract.exchange import FOREVER_S, Behaviour, Exchange

DIMENSIONS = 8


def vector_of(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """The embedding of a text: of length 1, the same for the same text, and another for another."""
    numbers = array("h", shake_256(text.encode()).digest(2 * dimensions))
    length = sqrt(fsum(number * number for number in numbers)) or 1.0
    return [number / length for number in numbers]


def texts_of(request: dict[str, Any]) -> list[str]:
    """The texts of a request for embeddings."""
    given = request["input"]
    return given if isinstance(given, list) else [given]


def _embeddings(exchange: Exchange, vectors: list[list[float]]) -> dict[str, Any]:
    """A good answer with these vectors, as numbers or as the bytes of 32-bit floats, as the client wants them."""
    is_packed = exchange.request.get("encoding_format") == "base64"
    shown = [b64encode(array("f", vector)).decode() for vector in vectors] if is_packed else vectors
    tokens = sum(len(text.split()) for text in texts_of(exchange.request))
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(shown)],
        "model": exchange.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _vectors(exchange: Exchange) -> list[list[float]]:
    """As long as is asked for, else as the model's name says: ``embed-384``, and what OpenAI's model of that name has."""
    usual = 1536 if exchange.model == "text-embedding-3-small" else DIMENSIONS
    if exchange.model.startswith("embed-"):
        usual = int(exchange.argument(DIMENSIONS))
    dimensions = exchange.request.get("dimensions") or usual
    return [vector_of(text, dimensions) for text in texts_of(exchange.request)]


async def embed(exchange: Exchange) -> None:
    """A vector for each text."""
    await exchange.answer(200, _embeddings(exchange, _vectors(exchange)))


async def batch(exchange: Exchange) -> None:
    """A vector for each text, but not for more than so many at once."""
    texts, most = len(texts_of(exchange.request)), int(exchange.argument(32))
    if texts > most:
        message = f"SECRET-DETAIL batch size {texts} > maximum allowed batch size {most}"
        return await exchange.answer(422, {"message": message, "code": 422, "type": "validation"})
    await embed(exchange)


def _is_too_long(exchange: Exchange) -> bool:
    return max(len(text.split()) for text in texts_of(exchange.request)) > exchange.argument(8)


async def short(exchange: Exchange) -> None:
    """As vLLM: a text of more than so many words is refused, in words and without a code."""
    if _is_too_long(exchange):
        message = "This model's maximum context length is 8 tokens. However, you requested more tokens. SECRET-DETAIL"
        return await exchange.answer(400, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400})
    await embed(exchange)


async def late(exchange: Exchange) -> None:
    """As ``short``, but what is not refused is not answered either, until the client leaves."""
    if not _is_too_long(exchange):
        await exchange.wait(FOREVER_S)
    await short(exchange)


async def shuffled(exchange: Exchange) -> None:
    """The right vectors, the last one first; their index tells whose they are."""
    answer = _embeddings(exchange, _vectors(exchange))
    answer["data"].reverse()
    await exchange.answer(200, answer)


async def uncounted(exchange: Exchange) -> None:
    """The right vectors, and no word about tokens."""
    answer = _embeddings(exchange, _vectors(exchange))
    del answer["usage"]
    await exchange.answer(200, answer)


async def rigid(exchange: Exchange) -> None:
    """Eight numbers, whatever was asked for."""
    await exchange.answer(200, _embeddings(exchange, [vector_of(text) for text in texts_of(exchange.request)]))


def _spoilt(spoil: Callable[[list[Any]], list[Any]]) -> Behaviour:
    async def answer_spoilt(exchange: Exchange) -> None:
        await exchange.answer(200, _embeddings(exchange, spoil(_vectors(exchange))))

    return answer_spoilt


# Models that only make embeddings; those of ``BEHAVIOURS`` make them, too, or fail as they do in a chat.
EMBEDDERS: dict[str, Behaviour] = {
    "text-embedding-3-small": embed,
    "embed": embed,
    "batch": batch,
    "short": short,
    "late": late,
    "shuffled": shuffled,
    "uncounted": uncounted,
    "rigid": rigid,
    "too-few": _spoilt(lambda vectors: vectors[:-1]),
    "too-many": _spoilt(lambda vectors: [*vectors, vectors[0]]),
    "ragged": _spoilt(lambda vectors: [vectors[0][:-1], *vectors[1:], vectors[0]][: len(vectors)]),
    "hollow": _spoilt(lambda vectors: [[] for _ in vectors]),
    "words": _spoilt(lambda vectors: [["0.1", *vector[1:]] for vector in vectors]),
    "nulls": _spoilt(lambda vectors: [[None, *vector[1:]] for vector in vectors]),
}
