"""The embedding model that runs here, in process: asked with texts and a batch size, it answers how many texts a second, and the tokens."""

import asyncio
import time
from logging import WARNING
from typing import Any

import structlog

from adapters.chat import Endpoint
from adapters.embedding import EmbeddingRequest
from adapters.minilm import MODEL, PROVIDER, MiniLM
from tests.bench.workers import answer_questions

ENDPOINT = Endpoint(PROVIDER, PROVIDER)


async def embed(model: MiniLM, texts: list[str], batch: int) -> dict[str, Any]:
    """Embed the texts, so many at a time."""
    await model.embed(ENDPOINT, EmbeddingRequest(MODEL, texts[:batch]))
    tokens = 0
    started = time.perf_counter()
    for start in range(0, len(texts), batch):
        result = await model.embed(ENDPOINT, EmbeddingRequest(MODEL, texts[start : start + batch]))
        tokens += result.usage.prompt_tokens or 0
    return {"rate": len(texts) / (time.perf_counter() - started), "tokens": tokens / len(texts)}


if __name__ == "__main__":
    import uvloop

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(WARNING))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        minilm = MiniLM()
        answer_questions(lambda question: runner.run(embed(minilm, **question)))
