"""Which provider and model make embeddings, and how many texts they are sent at once: on a real database, with real upstreams."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from adapters.postgres import Database
from contract.upstream import RunningUpstream, serve_in_thread, vector_of
from homeport.errors import AppError, InvalidRequest, TooManyRequests, Unavailable
from homeport.models import Models, Provider, Target
from homeport.secrets import SecretBox
from homeport.settings import Settings
from tests.integration.parts import eventually

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning", "ignore:Accessing the 'model_:DeprecationWarning"),
]

MINILM = "all-MiniLM-L6-v2"


@asynccontextmanager
async def open_models(
    database: Database, data_dir: Path, environ: dict[str, str] | None = None, *, ollama_url: str = ""
) -> AsyncIterator[Models]:
    settings = Settings(data_dir=data_dir, ollama_url=ollama_url, chat_timeout_s=5, stream_idle_s=5)
    models = Models(settings, database, SecretBox(bytes(32)), environ or {})
    try:
        yield models
    finally:
        await models.close()


@pytest.fixture
async def models(database: Database, tmp_path: Path) -> AsyncIterator[Models]:
    """Models with nothing configured."""
    async with open_models(database, tmp_path) as models:
        yield models


@pytest.fixture
async def served(models: Models, upstream: RunningUpstream) -> Models:
    """Models with the stand-in as the provider ``mine``."""
    await models.add_provider("mine", base_url=upstream.base_url)
    return models


def shown(providers: list[Provider]) -> list[tuple[str, bool, list[str]]]:
    return [(each.name, each.active, [model.id for model in each.models]) for each in providers]


async def chosen(models: Models, provider: str | None, model: str | None) -> tuple[str, str]:
    endpoint, name = await models.resolve(provider, model, role="embedding")
    return endpoint.provider, name


async def test_with_nothing_configured_the_model_that_is_built_in_answers(models: Models) -> None:
    result = await models.embed(["A dog barks.", "A hound is barking.", "The stock market fell."])
    assert (result.provider, result.model) == ("native", MINILM)
    assert {len(vector) for vector in result.vectors} == {384}
    dog, hound, market = result.vectors
    assert sum(map(float.__mul__, dog, hound)) > 0.7 > 0.3 > sum(map(float.__mul__, dog, market))
    assert result.usage.prompt_tokens == result.usage.total_tokens
    assert shown(await models.embedding_providers()) == [("native", True, [MINILM])]
    with pytest.raises(Unavailable):
        await models.resolve(None, None)


async def test_the_model_that_is_built_in_counts_tokens_and_others_do_not(served: Models) -> None:
    counted = await served.count_embedding_tokens(["Hello world", "Hello"])
    assert counted == ([4, 3], 256)
    assert await served.count_embedding_tokens(["Hello"], provider="mine", model="embed") is None


async def test_a_text_that_is_too_long_for_the_model_is_named_and_not_cut(models: Models) -> None:
    with pytest.raises(InvalidRequest, match="The text at index 1 has"):
        await models.embed(["short", "word " * 300])


async def test_it_cannot_chat(served: Models) -> None:
    with pytest.raises(InvalidRequest, match="'native' is not configured"):
        await served.resolve("native", None)
    assert "native" not in [each.name for each in await served.providers()]


async def test_it_stays_the_default_when_a_provider_is_added_and_another_can_be_named(served: Models) -> None:
    for provider, model, expected in [
        (None, None, ("native", MINILM)),
        ("", "", ("native", MINILM)),
        (None, MINILM, ("native", MINILM)),
        (None, f"sentence-transformers/{MINILM}", ("native", f"sentence-transformers/{MINILM}")),
        (None, f"native/{MINILM}", ("native", MINILM)),
        ("native", None, ("native", MINILM)),
        ("mine", None, ("mine", "text-embedding-3-small")),
        ("MINE", "embed", ("mine", "embed")),
        (None, "mine/embed", ("mine", "embed")),
        (None, "embed", ("mine", "embed")),
    ]:
        assert await chosen(served, provider, model) == expected, (provider, model)
    assert shown(await served.embedding_providers()) == [("native", True, [MINILM]), ("mine", False, ["text-embedding-3-small"])]


async def test_a_model_that_nobody_has_is_refused_by_the_one_that_is_built_in(models: Models) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await models.embed(["hi"], model="text-embedding-3-small")
    assert (caught.value.code, MINILM in caught.value.message) == ("INVALID_MODEL", True)


async def test_the_default_is_the_one_that_was_set(served: Models) -> None:
    await served.registry.set_route("embedding", [Target("mine", "embed-16")])
    result = await served.embed(["hi"])
    assert (result.provider, result.model, len(result.vectors[0])) == ("mine", "embed-16", 16)
    assert [(name, active) for name, active, _ in shown(await served.embedding_providers())] == [("mine", True), ("native", False)]
    assert (await served.embed(["hi"], provider="native")).provider == "native"


async def test_where_it_is_not_installed_the_first_that_has_a_model_for_it_answers(
    database: Database, tmp_path: Path, upstream: RunningUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.minilm.is_installed", lambda: False)
    async with open_models(database, tmp_path, {"ANTHROPIC_API_KEY": "sk-a"}) as models:
        with pytest.raises(Unavailable, match="embedding model"):
            await models.embed(["hi"])
        assert await models.embedding_providers() == []
        await models.add_provider("words", base_url="http://127.0.0.1:9/v1", models=["llama3"])
        await models.add_provider("zwei", base_url=upstream.base_url, models=["llama3", "embed", "embed-16"])
        assert (await models.embed(["hi"])).model == "embed"
        assert shown(await models.embedding_providers()) == [("zwei", True, ["embed", "embed-16"])]
    with serve_in_thread() as ollama:
        await models.remove_provider("zwei")
        async with open_models(database, tmp_path, {"ANTHROPIC_API_KEY": "sk-a"}, ollama_url=ollama.url) as models:
            assert (await models.embed(["hi"])).provider == "ollama"


async def test_an_embedding_model_is_never_the_default_of_a_chat_nor_the_other_way_round(models: Models, upstream: RunningUpstream) -> None:
    await models.add_provider("both", base_url=upstream.base_url, models=["nomic-embed-text", "echo"])
    await models.add_provider("a-tei", base_url=upstream.base_url, models=["embed"])
    await models.add_provider("words", base_url=upstream.base_url, models=["echo"])
    assert (await models.resolve(None, None))[1] == "echo"
    assert (await models.resolve("both", None))[1] == "echo"
    assert await chosen(models, "both", None) == ("both", "nomic-embed-text")
    for role, provider in (("embedding", "words"), ("chat", "a-tei")):
        with pytest.raises(InvalidRequest) as caught:
            await models.resolve(provider, None, role=role)  # type: ignore[arg-type]
        assert caught.value.code == "INVALID_MODEL"
    assert [each.name for each in await models.providers()] == ["both", "words"]
    assert [each.name for each in await models.embedding_providers()] == ["native", "a-tei", "both"]


async def test_known_providers_list_their_embedding_models_without_being_asked(database: Database, tmp_path: Path) -> None:
    environ = {"GEMINI_API_KEY": "sk-g", "COHERE_API_KEY": "sk-c", "ANTHROPIC_API_KEY": "sk-a"}
    async with open_models(database, tmp_path, environ) as models:
        listed = {name: ids for name, _, ids in shown(await models.embedding_providers())}
        assert list(listed) == ["native", "gemini", "cohere"]
        assert "gemini-embedding-001" in listed["gemini"]
        assert await chosen(models, "cohere", None) == ("cohere", "embed-v4.0")
        assert await chosen(models, None, "gemini/gemini-embedding-001") == ("gemini", "gemini-embedding-001")
        with pytest.raises(InvalidRequest, match="no embedding models"):
            await models.embed(["hi"], provider="anthropic")


async def test_a_model_that_is_named_alone_goes_to_the_provider_that_lists_it(database: Database, tmp_path: Path) -> None:
    environ = {"GEMINI_API_KEY": "sk-g", "COHERE_API_KEY": "sk-c", "ANTHROPIC_API_KEY": "sk-a"}
    async with open_models(database, tmp_path, environ) as models:
        assert await chosen(models, None, "embed-v4.0") == ("cohere", "embed-v4.0")
        assert await chosen(models, None, "gemini-embedding-001") == ("gemini", "gemini-embedding-001")
        assert await chosen(models, None, "of-next-year") == ("gemini", "of-next-year"), "not to one that has none"


async def test_an_unknown_provider_is_refused_by_naming_those_that_there_are(served: Models) -> None:
    with pytest.raises(InvalidRequest, match=r"'realtimexai' is not configured. Configured: mine, native"):
        await served.embed(["hi"], provider="realtimexai", model="text-embedding-ada-002")


@pytest.mark.parametrize(("texts", "pointer"), [([], "/input"), (["a", "", "b"], "/input/1")])
async def test_no_text_and_an_empty_text_are_refused_before_anybody_is_asked(
    served: Models, upstream: RunningUpstream, texts: list[str], pointer: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await served.embed(texts, provider="mine", model="embed")
    assert [problem.pointer for problem in caught.value.problems] == [pointer]
    assert upstream.state.finished == 0


@pytest.mark.parametrize("kind", ["openai", "hosted_vllm"])
async def test_many_texts_are_sent_in_small_requests_four_at_once_and_keep_their_order(
    models: Models, upstream: RunningUpstream, kind: str
) -> None:
    await models.add_provider("mine", kind=kind, base_url=upstream.base_url)
    await models.warm()
    texts = [f"text number {number}" for number in range(300)]
    result = await models.embed(texts, provider="mine", model="batch-32")
    assert result.vectors == [pytest.approx(vector_of(text)) for text in texts]
    assert (result.usage.prompt_tokens, result.usage.total_tokens) == (900, 900)
    assert upstream.state.finished == 10
    assert upstream.state.most_open <= 4


async def test_four_requests_run_at_once(served: Models, upstream: RunningUpstream) -> None:
    await served.embed([f"{number}" for number in range(160)], provider="mine", model="slow-0.5")
    assert (upstream.state.finished, upstream.state.most_open) == (5, 4)


async def test_a_batch_that_fails_ends_the_others(served: Models, upstream: RunningUpstream) -> None:
    texts = ["long " * 9, *(f"{number}" for number in range(127))]
    with anyio.fail_after(5), pytest.raises(InvalidRequest, match="A text is longer"):
        await served.embed(texts, provider="mine", model="late-8")

    async def counts() -> tuple[int, int]:
        return upstream.state.open, upstream.state.finished

    assert await eventually(counts, lambda found: found == (0, 1)), "the others, which would not have been answered, were given up"


async def test_a_request_that_is_refused_as_too_large_is_not_cut_up(served: Models, upstream: RunningUpstream) -> None:
    with pytest.raises(InvalidRequest, match="refused the request"):
        await served.embed(["a", "b", "c"], provider="mine", model="batch-2")
    assert upstream.state.finished == 1


async def test_dimensions_are_passed_on_and_a_model_that_does_not_keep_to_them_is_refused(served: Models) -> None:
    result = await served.embed(["hi"], provider="mine", model="text-embedding-3-small", dimensions=12)
    assert len(result.vectors[0]) == 12
    with pytest.raises(InvalidRequest, match="makes vectors of 8 numbers, not of 12. Leave dimensions out"):
        await served.embed(["hi"], provider="mine", model="rigid", dimensions=12)
    with pytest.raises(InvalidRequest, match="384 dimensions, not 12"):
        await served.embed(["hi"], dimensions=12)
    assert len((await served.embed(["hi"], dimensions=384)).vectors[0]) == 384


async def test_a_failure_of_the_provider_is_raised_as_it_is(served: Models) -> None:
    with pytest.raises(TooManyRequests):
        await served.embed(["hi"], provider="mine", model="429")
    with pytest.raises(AppError) as caught:
        await served.embed(["hi", "ho"], provider="mine", model="ragged")
    assert (caught.value.status, caught.value.code) == (502, "LLM_ERROR")
