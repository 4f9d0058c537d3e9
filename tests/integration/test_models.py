"""Which provider and model a chat goes to, on a real database, with real upstreams."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from adapters.postgres import Database, Notifications
from contract.upstream import BEHAVIOURS, RunningUpstream, serve_in_thread
from homeport.errors import AppError, Conflict, InvalidRequest, NotFound, Unavailable
from homeport.models import Delta, Models, Provider, Target, stored_providers
from homeport.secrets import SecretBox
from homeport.settings import Settings
from tests.integration.parts import eventually

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Item .* on TypedDict class:UserWarning", "ignore:Accessing the 'model_:DeprecationWarning"),
]

KEY = "sk-very-secret-0123456789"
MESSAGES = [{"role": "user", "content": "hi"}]


@asynccontextmanager
async def open_models(
    database: Database, data_dir: Path, environ: dict[str, str] | None = None, *, ollama_url: str = "", secret_key: bytes = bytes(32)
) -> AsyncIterator[Models]:
    settings = Settings(data_dir=data_dir, ollama_url=ollama_url, chat_timeout_s=5, stream_idle_s=5)
    models = Models(settings, database, SecretBox(secret_key), environ or {})
    try:
        yield models
    finally:
        await models.close()


@pytest.fixture
async def models(database: Database, tmp_path: Path) -> AsyncIterator[Models]:
    """Models with nothing configured."""
    async with open_models(database, tmp_path) as models:
        yield models


async def refusal(models: Models, provider: str | None, model: str | None) -> AppError:
    with pytest.raises(AppError) as caught:
        await models.resolve(provider, model)
    return caught.value


async def stored(database: Database) -> list[Any]:
    async with database.transaction() as connection:
        return list((await connection.execute(text("SELECT name, api_key FROM model_providers ORDER BY name"))).all())


def names(providers: list[Provider]) -> list[tuple[str, str, bool]]:
    return [(each.name, each.source, each.active) for each in providers]


async def test_with_nothing_configured_a_chat_says_what_to_set(models: Models) -> None:
    for provider, model in ((None, None), ("openai", "gpt-4o"), (None, "openai/gpt-4o")):
        error = await refusal(models, provider, model)
        assert isinstance(error, Unavailable)
        assert error.code == "PROVIDER_UNAVAILABLE"
        assert all(hint in error.message for hint in ("OPENAI_API_KEY", "Ollama", "homeport models add"))
    assert await models.providers() == []


async def test_the_environment_and_the_database_configure_providers_and_the_database_wins(
    database: Database, tmp_path: Path, upstream: RunningUpstream
) -> None:
    environ = {"OPENAI_API_KEY": "sk-environment", "OPENAI_BASE_URL": upstream.base_url, "ANTHROPIC_API_KEY": "sk-a"}
    async with open_models(database, tmp_path, environ) as models:
        assert names(await models.providers()) == [("openai", "environment", True), ("anthropic", "environment", False)]
        endpoint, _ = await models.resolve("openai", "echo")
        assert endpoint.api_key == "sk-environment"
        await models.add_provider("openai", base_url=upstream.base_url, api_key="sk-database", models=["echo"])
        assert names(await models.providers()) == [("openai", "database", True), ("anthropic", "environment", False)]
        endpoint, model = await models.resolve(None, None)
        assert (endpoint.api_key, model) == ("sk-database", "echo")
        await models.remove_provider("openai")
        endpoint, _ = await models.resolve("openai", "echo")
        assert endpoint.api_key == "sk-environment"


async def test_a_request_chooses_provider_and_model_together_or_apart(
    database: Database, tmp_path: Path, upstream: RunningUpstream
) -> None:
    environ = {"GROQ_API_KEY": "sk-g", "GEMINI_API_KEY": "sk-m"}
    async with open_models(database, tmp_path, environ, ollama_url=upstream.url) as models:
        await models.add_provider("mine", base_url=upstream.base_url, models=["first", "second"])
        for provider, model, expected in [
            (None, None, ("mine", "first")),
            ("", "", ("mine", "first")),
            ("mine", None, ("mine", "first")),
            ("MINE", "other", ("mine", "other")),
            (None, "other", ("mine", "other")),
            (None, "mine/other", ("mine", "other")),
            (None, "groq/openai/gpt-oss-20b", ("groq", "openai/gpt-oss-20b")),
            ("groq", "openai/gpt-oss-20b", ("groq", "openai/gpt-oss-20b")),
            (None, "nobody/model", ("mine", "nobody/model")),
            (None, "mine/", ("mine", "mine/")),
            (None, "ollama/llama3:latest", ("ollama", "llama3:latest")),
            ("gemini", "gemini/gemini-flash-latest", ("gemini", "gemini-flash-latest")),
            ("gemini", None, ("gemini", "gemini-flash-latest")),
        ]:
            endpoint, name = await models.resolve(provider, model)
            assert (endpoint.provider, name) == expected, (provider, model)


async def test_an_unknown_provider_is_refused_by_naming_those_that_there_are(database: Database, tmp_path: Path) -> None:
    async with open_models(database, tmp_path, {"GROQ_API_KEY": "sk-g", "ANTHROPIC_API_KEY": "sk-a"}) as models:
        error = await refusal(models, "opnai", "gpt-4o")
    assert isinstance(error, InvalidRequest)
    assert error.code == "VALIDATION_ERROR"
    assert "anthropic, groq" in error.message


async def test_a_chat_goes_to_the_upstream_and_back(models: Models, upstream: RunningUpstream) -> None:
    await models.add_provider("mine", base_url=upstream.base_url, api_key=KEY)
    blocks = [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "https://example.org/a.png"}]
    result = await models.chat([{"role": "user", "content": blocks, "name": None}], model="echo", max_tokens=9)
    assert (result.content, result.provider, result.model) == ("You said: see [image_url]", "mine", "echo")
    assert upstream.state.last_request["messages"] == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}],
        }
    ]
    stream = await models.stream_chat(MESSAGES, model="mine/echo")
    assert "".join([event.text async for event in stream if isinstance(event, Delta)]) == "You said: hi"


async def test_the_same_chat_goes_through_litellm_for_other_kinds(models: Models, upstream: RunningUpstream) -> None:
    await models.add_provider("other", kind="hosted_vllm", base_url=upstream.base_url, api_key=KEY, models=["echo"])
    await models.warm()
    assert (await models.chat(MESSAGES)).content == "You said: hi"
    stream = await models.stream_chat(MESSAGES, provider="other")
    assert "".join([event.text async for event in stream if isinstance(event, Delta)]) == "You said: hi"
    assert upstream.state.last_headers["authorization"] == f"Bearer {KEY}"


async def test_without_a_model_the_first_that_the_provider_lists_is_used(models: Models, upstream: RunningUpstream) -> None:
    await models.add_provider("mine", base_url=upstream.base_url)
    assert (await models.chat(MESSAGES)).model == next(iter(BEHAVIOURS))


async def test_a_provider_that_cannot_be_asked_for_its_models_is_the_error_of_a_chat_without_one(
    models: Models, upstream: RunningUpstream
) -> None:
    await models.add_provider("mine", base_url=upstream.fault_url("401"))
    error = await refusal(models, None, None)
    assert (error.status, error.code) == (503, "PROVIDER_UNAVAILABLE")
    assert "key" in error.message


async def test_ollama_is_found_where_it_runs_and_is_the_last_choice(database: Database, tmp_path: Path) -> None:
    with serve_in_thread() as ollama:
        async with open_models(database, tmp_path, ollama_url=ollama.url) as models:
            assert names(await models.providers()) == [("ollama", "ollama", True)]
            assert (await models.chat(MESSAGES)).provider == "ollama"
        async with open_models(database, tmp_path, {"ANTHROPIC_API_KEY": "sk-a"}, ollama_url=ollama.url) as models:
            assert names(await models.providers()) == [("anthropic", "environment", True), ("ollama", "ollama", False)]
            endpoint, _ = await models.resolve(None, None)
            assert endpoint.provider == "anthropic"
            assert (await models.chat(MESSAGES, provider="ollama", model="echo")).content == "You said: hi"
    async with open_models(database, tmp_path, {"ANTHROPIC_API_KEY": "sk-a"}, ollama_url=ollama.url) as models:
        assert names(await models.providers()) == [("anthropic", "environment", True)]
        with pytest.raises(Unavailable, match="'ollama' cannot be reached"):
            await models.chat(MESSAGES, provider="ollama", model="echo")
    async with open_models(database, tmp_path, ollama_url=ollama.url) as models:
        assert (await refusal(models, None, None)).code == "PROVIDER_UNAVAILABLE"


async def test_a_chat_with_another_provider_does_not_look_for_ollama(database: Database, tmp_path: Path, upstream: RunningUpstream) -> None:
    asked = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with open_models(database, tmp_path, {"OPENAI_BASE_URL": upstream.base_url}, ollama_url=url) as models:
            assert (await models.chat(MESSAGES)).provider == "openai"
            assert (await models.chat(MESSAGES, model="openai/echo")).provider == "openai"
            with pytest.raises(InvalidRequest):
                await models.chat(MESSAGES, provider="nobody")
            assert not asked.is_set()
            assert names(await models.providers()) == [("openai", "environment", True)], "nor does it hold up the list"
            assert asked.is_set()


async def test_dead_and_silent_providers_do_not_hold_up_the_list(models: Models, upstream: RunningUpstream, free_tcp_port: int) -> None:
    await models.add_provider("dead", base_url=f"http://127.0.0.1:{free_tcp_port}/v1")
    await models.add_provider("dead-with-models", base_url=f"http://127.0.0.1:{free_tcp_port}/v1", models=["a", "b"])
    await models.add_provider("silent", base_url=upstream.fault_url("stall"))
    await models.add_provider("alive", base_url=upstream.base_url)
    with anyio.fail_after(5), capture_logs() as logs:
        providers = await models.providers()
    assert [each.name for each in providers] == ["alive", "dead-with-models"]
    assert [model.id for model in providers[1].models] == ["a", "b"]
    assert {line["provider"] for line in logs if line["event"] == "model provider gives no list of models"} == {"dead", "silent"}
    assert [each.name for each in await models.configured_providers()] == ["alive", "dead", "dead-with-models", "silent"]


async def test_one_question_serves_all_who_ask_for_the_list_at_once(models: Models) -> None:
    asked = 0

    async def list_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while await reader.readuntil(b"\r\n\r\n"):
            asked += 1
            body = b'{"data": [{"id": "only"}]}'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await list_one(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        await models.add_provider("mine", base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        lists = await asyncio.gather(*(models.providers() for _ in range(20)))
        await models.resolve(None, None)
        await models.close()
    assert {model.id for providers in lists for each in providers for model in each.models} == {"only"}
    assert asked == 1


async def test_keys_are_stored_encrypted_and_shown_nowhere(models: Models, database: Database, upstream: RunningUpstream) -> None:
    with capture_logs() as logs:
        added = await models.add_provider("mine", base_url=upstream.base_url, api_key=KEY, models=["echo"])
        [row] = await stored(database)
        endpoint, _ = await models.resolve("mine", None)
        with pytest.raises(Unavailable):
            await models.chat(MESSAGES, model="401")
    assert row.api_key is not None
    assert KEY.encode() not in bytes(row.api_key)
    assert SecretBox(bytes(32)).open(bytes(row.api_key), "model_provider:mine") == KEY
    assert endpoint.api_key == KEY
    assert KEY not in repr([added, endpoint, await models.providers(), logs])


async def test_a_key_that_cannot_be_decrypted_disables_its_provider_only(
    database: Database, tmp_path: Path, upstream: RunningUpstream
) -> None:
    async with open_models(database, tmp_path) as models:
        await models.add_provider("locked", base_url=upstream.base_url, api_key=KEY, models=["echo"])
        await models.add_provider("open", base_url=upstream.base_url, models=["echo"])
    async with open_models(database, tmp_path, secret_key=b"x" * 32) as models:
        error = await refusal(models, "locked", None)
        assert (error.code, "Remove the provider" in error.message) == ("PROVIDER_UNAVAILABLE", True)
        assert (await models.chat(MESSAGES, provider="open")).content == "You said: hi"


async def test_one_provider_is_the_default_at_a_time(models: Models) -> None:
    for name in ("a", "b", "c"):
        await models.add_provider(name, base_url="http://127.0.0.1:9/v1", models=["m"], is_default=name != "c")
    assert await models.registry.routes() == {"chat": (Target("b"),)}
    assert [each.name for each in await models.configured_providers() if each.active] == ["b"]
    await models.registry.set_route("chat", [Target("c")])
    assert (await models.resolve(None, None))[0].provider == "c"
    with pytest.raises(NotFound):
        await models.registry.set_route("chat", [Target("nobody")])
    assert (await models.resolve(None, None))[0].provider == "c", "a wrong name changes nothing"


async def test_adding_checks_what_it_is_given(models: Models, database: Database) -> None:
    await models.add_provider("mine", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(Conflict) as caught:
        await models.add_provider("mine", base_url="http://127.0.0.1:9/v1")
    assert caught.value.code == "PROVIDER_EXISTS"
    for name, values in [
        ("Bad Name", {"base_url": "http://127.0.0.1:9/v1"}),
        ("no-address", {}),
        ("credentials", {"base_url": "http://me:secret@127.0.0.1:9/v1"}),
        ("kind", {"kind": "no-such-kind", "base_url": "http://127.0.0.1:9/v1"}),
        ("models", {"base_url": "http://127.0.0.1:9/v1", "models": [" "]}),
    ]:
        with pytest.raises(InvalidRequest):
            await models.add_provider(name, **values)  # type: ignore[arg-type]
    assert [row.name for row in await stored(database)] == ["mine"]
    with pytest.raises(NotFound):
        await models.remove_provider("nobody")


async def test_a_well_known_name_needs_no_more_than_its_key(models: Models) -> None:
    added = await models.add_provider("groq", api_key="sk-g")
    assert (added.kind, added.base_url) == ("openai", "https://api.groq.com/openai/v1")
    assert (await models.add_provider("anthropic", api_key="sk-a")).kind == "anthropic"
    endpoint, model = await models.resolve("anthropic", None)
    assert (endpoint.kind, endpoint.base_url, model) == ("anthropic", None, "claude-haiku-4-5")


async def test_a_change_in_one_process_is_seen_by_the_other(database: Database, tmp_path: Path) -> None:
    async with open_models(database, tmp_path) as one, open_models(database, tmp_path) as other:
        assert await other.configured_providers() == []
        await one.add_provider("mine", base_url="http://127.0.0.1:9/v1", models=["m"])
        assert [each.name for each in await eventually(other.configured_providers)] == ["mine"]


@pytest.mark.parametrize(
    ("fault", "works", "words"),
    [("", True, f"it has {len(BEHAVIOURS)} models"), ("401", False, "Check the key"), ("html", False, "not JSON"), ("500", False, "500")],
)
async def test_a_test_of_a_provider_says_in_a_sentence_what_is_wrong(
    models: Models, upstream: RunningUpstream, fault: str, works: bool, words: str
) -> None:
    await models.add_provider("mine", base_url=upstream.fault_url(fault) if fault else upstream.base_url, api_key=KEY)
    tested = await models.test_provider("mine")
    assert tested.works is works
    assert words in tested.message
    assert tested.message.startswith("'mine' ")


async def test_a_test_of_a_provider_behind_litellm_chats(models: Models, upstream: RunningUpstream) -> None:
    await models.warm()
    await models.add_provider("good", kind="hosted_vllm", base_url=upstream.base_url, models=["echo"])
    await models.add_provider("bad", kind="hosted_vllm", base_url=upstream.base_url, models=["401"])
    assert (await models.test_provider("good")).message == "'good' works: echo answered."
    assert (await models.test_provider("bad")).works is False
    assert "not configured" in (await models.test_provider("nobody")).message


async def test_what_one_process_changes_the_others_know_without_reading_again(
    database: Database, database_url: str, tmp_path: Path, upstream: RunningUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_providers, "REREAD_S", 3600.0)
    async with (
        Notifications(database_url) as notifications,
        open_models(database, tmp_path) as here,
        open_models(database, tmp_path) as there,
    ):
        there.follow(notifications)
        await notifications.settle()

        async def known() -> list[str]:
            return [each.name for each in await there.providers()]

        assert await known() == []
        await here.add_provider("mine", base_url=upstream.base_url)
        assert await eventually(known) == ["mine"]
        await here.remove_provider("mine")
        await eventually(known, lambda names: names == [])
