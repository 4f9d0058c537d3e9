"""The official Python SDK, unmodified, against a running server.

An app in production has an id and asks for permissions; a developer has an API key and every permission.
"""

import asyncio
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from realtimex_sdk import ChatMessage, ChatOptions, LLMProviderError, PermissionDeniedError, RealtimeXSDK  # type: ignore[import-untyped]
from realtimex_sdk import __version__ as sdk_module_version

from contract.upstream import OTHER_MODELS, RunningUpstream, echo_of, vector_of
from tests.acceptance.servers import Admin, Server, Servers

pytestmark = pytest.mark.anyio

Sdk = Callable[..., RealtimeXSDK]

EVERYTHING = (
    "activities.read",
    "activities.write",
    "api.agents",
    "api.workspaces",
    "api.threads",
    "llm.chat",
    "llm.embed",
    "llm.providers",
)
HELLO = [ChatMessage("system", "You are a parrot."), ChatMessage("user", "Hello, parrot!")]


@pytest.fixture(scope="module")
def app_id(admin: Admin) -> str:
    """An app that holds every permission."""
    return admin.register("Parrot", granted=EVERYTHING)


@pytest.fixture
def app(sdk: Sdk, app_id: str) -> RealtimeXSDK:
    """The SDK of that app."""
    return sdk(app_id=app_id, app_name="Parrot")


@pytest.fixture
def new_app(sdk: Sdk, admin: Admin) -> RealtimeXSDK:
    """The SDK of another app that holds every permission and has no rows yet."""
    return sdk(app_id=admin.register("New", granted=EVERYTHING), app_name="New")


@pytest.fixture
def newcomer(sdk: Sdk, admin: Admin) -> RealtimeXSDK:
    """The SDK of a new app about which nothing is decided."""
    return sdk(app_id=admin.register("Newcomer"), app_name="Newcomer")


@pytest.fixture(scope="module")
def by_policy(shared_servers: Servers, server: Server) -> Iterator[Callable[[str], Server]]:
    """Servers with other policies, beside the shared one on its database."""
    started: dict[str, Server] = {}

    def of(policy: str) -> Server:
        if policy not in started:
            started[policy] = shared_servers.start(server.data_dir.name, HOMEPORT_PERMISSION_POLICY=policy)
        return started[policy]

    yield of
    for each in started.values():
        assert each.stop() == 0


def test_the_sdk_is_the_release_that_is_promised() -> None:
    from importlib.metadata import version

    assert version("realtimex-sdk") == "1.7.28"
    assert sdk_module_version == "1.3.5rc1"  # what that release says of itself


# --- connection


async def test_an_app_pings_in_production(app: RealtimeXSDK, app_id: str) -> None:
    pong = await app.ping()
    assert (pong["success"], pong["mode"], pong["appId"]) == (True, "production", app_id)
    assert pong["timestamp"].endswith("Z")


async def test_a_developer_pings_in_development_without_and_with_an_app(sdk: Sdk, admin: Admin, app_id: str) -> None:
    alone = await sdk(api_key=admin.key).ping()
    assert alone["mode"] == "development"
    assert "appId" not in alone
    assert (await sdk(api_key=admin.key, app_id=app_id).ping())["appId"] == app_id


def test_the_synchronous_ping_works_without_a_loop(app: RealtimeXSDK, app_id: str) -> None:
    assert app.ping_sync()["appId"] == app_id


async def test_an_unknown_app_and_a_wrong_key_are_told_why(sdk: Sdk, admin: Admin) -> None:
    with pytest.raises(Exception, match="Connection failed: Invalid app ID: nobody"):
        await sdk(app_id="nobody").ping()
    with pytest.raises(Exception, match="Connection failed: Missing required header: x-app-id"):
        await sdk().ping()
    with pytest.raises(Exception, match="Connection failed: The API key is not valid"):
        await sdk(api_key=f"{admin.key}x").ping()


async def test_each_caller_has_a_private_directory(sdk: Sdk, app: RealtimeXSDK, admin: Admin, server: Server) -> None:
    own = Path(await app.get_app_data_dir())
    developers = Path(await sdk(api_key=admin.key).get_app_data_dir())
    assert own != developers
    for folder in (own, developers):
        assert folder.is_absolute()
        assert folder.is_relative_to(server.data_dir)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert await app.get_app_data_dir() == str(own)


# --- permissions


async def test_declared_permissions_are_decided_by_a_person_while_the_app_waits(
    sdk: Sdk, admin: Admin, capsys: pytest.CaptureFixture[str]
) -> None:
    app_id = admin.register("Careful", permissions=["llm.chat"])
    # Made within a running loop, it registers by itself.
    careful = sdk(app_id=app_id, app_name="Careful", permissions=["api.agents", "llm.chat"])
    await asyncio.to_thread(admin.decide, app_id, {"api.agents": "granted", "llm.chat": "denied"})
    await _until(lambda: careful._registered)
    assert "registered successfully" in capsys.readouterr().out
    assert admin.grants(app_id) == {"api.agents": "granted", "llm.chat": "denied"}

    assert await careful.api.get_agents()
    failed = await careful.llm.chat(HELLO)
    assert (failed.success, failed.code) == (False, "PERMISSION_DENIED")


async def test_what_is_decided_is_not_asked_again(sdk: Sdk, admin: Admin, capsys: pytest.CaptureFixture[str]) -> None:
    app_id = admin.register("Known", granted=("llm.chat",))
    admin.grant(app_id, "api.agents", "denied")
    known = sdk(app_id=app_id, permissions=["api.agents", "llm.chat"])
    await known.register()
    assert known._registered
    assert "All permissions already processed" in capsys.readouterr().out
    assert not admin.pending(app_id)


async def test_an_unknown_app_cannot_register(sdk: Sdk, capsys: pytest.CaptureFixture[str]) -> None:
    unknown = sdk(app_id="01900000-0000-7000-8000-000000000000", permissions=["llm.chat"])
    await unknown.register()
    assert not unknown._registered
    assert "Registration failed: App not found" in capsys.readouterr().out


async def test_under_the_manifest_policy_the_app_gets_what_its_manifest_declares(
    sdk: Sdk, admin: Admin, by_policy: Callable[[str], Server]
) -> None:
    url = (await asyncio.to_thread(by_policy, "manifest")).url
    app_id = admin.register("Declared", permissions=["api.agents"])
    declared = sdk(url=url, app_id=app_id, permissions=["api.agents", "llm.chat"])
    await declared.register()
    assert declared._registered
    assert await declared.api.get_agents()
    with pytest.raises(PermissionDeniedError):
        await declared.llm.chat(HELLO)
    assert admin.grants(app_id) == {"api.agents": "granted"}


async def test_under_the_allow_policy_the_app_gets_whatever_it_asks_for(sdk: Sdk, admin: Admin, by_policy: Callable[[str], Server]) -> None:
    url = (await asyncio.to_thread(by_policy, "allow")).url
    app_id = admin.register("Trusted")
    trusted = sdk(url=url, app_id=app_id)
    assert (await trusted.llm.chat(HELLO)).success
    assert admin.grants(app_id) == {"llm.chat": "granted"}


async def test_a_refused_call_is_asked_for_granted_and_repeated(newcomer: RealtimeXSDK, admin: Admin) -> None:
    asking = asyncio.create_task(newcomer.api.get_agents())
    await asyncio.to_thread(admin.decide, newcomer.app_id, {"api.agents": "granted"})
    assert await asking
    assert admin.grants(newcomer.app_id) == {"api.agents": "granted"}


async def test_a_refused_call_that_is_denied_is_remembered(newcomer: RealtimeXSDK, admin: Admin) -> None:
    asking = asyncio.create_task(newcomer.api.get_workspaces())
    await asyncio.to_thread(admin.decide, newcomer.app_id, {"api.workspaces": "denied"})
    with pytest.raises(PermissionDeniedError) as refused:
        await asking
    assert refused.value.permission == "api.workspaces"

    with pytest.raises(PermissionDeniedError, match="denied to this caller"):
        await newcomer.api.get_workspaces()
    assert not admin.pending(newcomer.app_id)


async def test_the_other_family_of_clients_asks_too(newcomer: RealtimeXSDK, admin: Admin) -> None:
    asking = asyncio.create_task(newcomer.llm.chat(HELLO))
    await asyncio.to_thread(admin.decide, newcomer.app_id, {"llm.chat": "granted"})
    assert (await asking).success


async def test_a_refused_stream_is_asked_for_and_repeated(newcomer: RealtimeXSDK, admin: Admin) -> None:
    asking = asyncio.create_task(_collect(newcomer, HELLO))
    await asyncio.to_thread(admin.decide, newcomer.app_id, {"llm.chat": "granted"})
    assert "".join(await asking) == echo_of("Hello, parrot!")


async def test_a_refused_activity_is_asked_for_and_written_once(newcomer: RealtimeXSDK, admin: Admin) -> None:
    asking = asyncio.create_task(newcomer.activities.insert({"step": 1}))
    await asyncio.to_thread(admin.decide, newcomer.app_id, {"activities.write": "granted"})
    # The SDK unwraps a repeated answer twice, which for an activity is harmless.
    assert (await asking)["raw_data"] == {"step": 1}
    admin.grant(newcomer.app_id, "activities.read")
    assert len(await newcomer.activities.list()) == 1


async def test_a_grant_that_is_reset_is_asked_for_again(new_app: RealtimeXSDK, admin: Admin) -> None:
    assert await new_app.api.get_agents()
    admin.call("DELETE", f"/apps/{new_app.app_id}/grants/api.agents")
    asking = asyncio.create_task(new_app.api.get_agents())
    await asyncio.to_thread(admin.decide, new_app.app_id, {"api.agents": "granted"})
    assert await asking


async def test_a_developer_holds_every_permission(sdk: Sdk, admin: Admin) -> None:
    developer = sdk(api_key=admin.key)
    assert await developer.api.get_agents()
    assert (await developer.llm.chat(HELLO)).success


async def test_a_narrow_key_is_refused_without_being_asked_about(sdk: Sdk, admin: Admin) -> None:
    narrow = sdk(api_key=admin.create_key("api.*")["key"])
    assert await narrow.api.get_agents()
    with pytest.raises(PermissionDeniedError):
        await narrow.activities.insert({})


# --- agents, workspaces, threads


async def test_an_agent_a_workspace_and_a_thread_are_always_there(app: RealtimeXSDK) -> None:
    # Other tests may have added some.
    (agent,) = [each for each in await app.api.get_agents() if each["slug"] == "@agent"]
    assert {"slug", "name", "display_name", "description", "hub_id"} <= agent.keys()
    (workspace,) = [each for each in await app.api.get_workspaces() if each["slug"] == "default"]
    assert {"id", "slug", "name", "type", "created_at"} <= workspace.keys()
    (thread,) = await app.api.get_threads(workspace["slug"])
    assert {"id", "slug", "name", "created_at"} <= thread.keys()
    with pytest.raises(Exception, match="(?i)workspace not found"):
        await app.api.get_threads("nowhere")


# --- activities


async def test_activities_are_kept_listed_changed_and_deleted(new_app: RealtimeXSDK) -> None:
    first = await new_app.activities.insert({"n": 1, "text": "größer 🦜", "nested": {"list": [1, 2.5, None, True]}})
    assert first["status"] == "pending"
    assert first["raw_data"] == {"n": 1, "text": "größer 🦜", "nested": {"list": [1, 2.5, None, True]}}
    second = await new_app.activities.insert({"n": 2})

    assert await new_app.activities.get(first["id"]) == first
    assert [each["id"] for each in await new_app.activities.list()] == [second["id"], first["id"]]
    assert [each["id"] for each in await new_app.activities.list(limit=1, offset=1)] == [first["id"]]

    changed = await new_app.activities.update(first["id"], {"status": "completed", "result": {"ok": True}})
    assert (changed["status"], changed["result"], changed["raw_data"]) == ("completed", {"ok": True}, first["raw_data"])
    assert [each["id"] for each in await new_app.activities.list(status="completed")] == [first["id"]]
    assert [each["id"] for each in await new_app.activities.list(status="pending")] == [second["id"]]

    await new_app.activities.delete(first["id"])
    assert await new_app.activities.get(first["id"]) is None
    assert [each["id"] for each in await new_app.activities.list()] == [second["id"]]


async def test_a_missing_activity_is_none_and_cannot_be_changed(app: RealtimeXSDK) -> None:
    for missing in ("01900000-0000-7000-8000-000000000000", "no-uuid"):
        assert await app.activities.get(missing) is None
        with pytest.raises(httpx.HTTPStatusError, match="404"):
            await app.activities.update(missing, {"status": "completed"})
        with pytest.raises(httpx.HTTPStatusError, match="404"):
            await app.activities.delete(missing)


async def test_an_activity_can_be_claimed_once(app: RealtimeXSDK) -> None:
    activity = await app.activities.insert({})
    claimed = await app.activities.update(activity["id"], {"status": "claimed", "locked_by": "one"})
    assert (claimed["status"], claimed["locked_by"]) == ("claimed", "one")
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        await app.activities.update(activity["id"], {"status": "claimed", "locked_by": "two"})
    done = await app.activities.update(activity["id"], {"status": "completed", "locked_by": "one"})
    assert (done["status"], done["locked_by"]) == ("completed", None)


async def test_apps_do_not_see_each_others_activities(app: RealtimeXSDK, sdk: Sdk, admin: Admin) -> None:
    other = sdk(app_id=admin.register("Other", granted=EVERYTHING))
    own = await app.activities.insert({"secret": 1})
    assert await other.activities.get(own["id"]) is None
    assert await other.activities.list() == []
    # A developer who names the app acts for it; one who does not has rows of his own.
    assert await sdk(api_key=admin.key, app_id=app.app_id).activities.get(own["id"]) == own
    assert await sdk(api_key=admin.key).activities.get(own["id"]) is None


# --- the signed-in user


async def test_an_app_that_requires_a_user_is_refused_until_its_token_is_handed_over(sdk: Sdk, admin: Admin) -> None:
    app_id = admin.register("Signed", granted=EVERYTHING, requires_user=True)
    signed = sdk(app_id=app_id)
    assert await signed.auth.get_access_token() is None
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        await signed.activities.insert({})
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        await signed.activities.list()

    synced = await signed.auth.sync_supabase_token("a.user.token")
    assert (synced.success, synced.has_token, bool(synced.synced_at), bool(synced.message)) == (True, True, True, True)
    kept = await signed.auth.get_access_token()
    assert kept is not None
    assert (kept.token, kept.has_token, kept.synced_at) == ("a.user.token", True, synced.synced_at)
    assert (await signed.activities.insert({"n": 1}))["raw_data"] == {"n": 1}
    assert await sdk(app_id=admin.register("Stranger")).auth.get_access_token() is None


# --- models


async def test_an_app_chats(app: RealtimeXSDK, upstream: RunningUpstream) -> None:
    answer = await app.llm.chat(HELLO, ChatOptions(model="echo", temperature=1, max_tokens=50, response_format={"type": "json_object"}))
    assert (answer.success, answer.content, answer.model, answer.provider) == (True, echo_of("Hello, parrot!"), "echo", "openai")
    assert answer.metrics is not None
    assert answer.metrics.total_tokens == answer.metrics.prompt_tokens + answer.metrics.completion_tokens > 0
    assert answer.metrics.duration is not None
    assert answer.metrics.output_tps is not None
    sent = upstream.state.last_request
    assert sent["messages"] == [{"role": each.role, "content": each.content} for each in HELLO]
    assert (sent["temperature"], sent["max_tokens"], sent["response_format"]) == (1, 50, {"type": "json_object"})
    assert upstream.state.last_headers["authorization"] == "Bearer sk-stand-in"


async def test_provider_and_model_may_be_left_out(app: RealtimeXSDK) -> None:
    answer = await app.llm.chat(HELLO)
    assert (answer.success, answer.content, answer.provider, answer.model) == (True, echo_of("Hello, parrot!"), "openai", "echo")


async def test_a_chat_is_streamed_piece_by_piece(app: RealtimeXSDK) -> None:
    chunks = [chunk async for chunk in app.llm.chat_stream(HELLO, ChatOptions(model="long-20"))]
    texts = [chunk.text for chunk in chunks if chunk.text]
    assert "".join(texts) == "".join(f"token{i} " for i in range(20))
    assert len(texts) > 1
    assert [chunk.close for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert len({chunk.uuid for chunk in chunks}) == 1
    assert not any(chunk.error for chunk in chunks)


async def test_the_first_piece_arrives_while_the_model_is_still_speaking(app: RealtimeXSDK, upstream: RunningUpstream) -> None:
    stream = app.llm.chat_stream(HELLO, ChatOptions(model="endless"))
    assert (await anext(stream)).text
    assert upstream.state.open == 1
    await stream.aclose()
    await _until(lambda: upstream.state.cancelled == 1)


async def test_content_may_be_a_list_of_blocks(app: RealtimeXSDK, upstream: RunningUpstream) -> None:
    image = "data:image/png;base64,iVBORw0KGgo="
    blocks: list[Any] = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": image}]
    answer = await app.llm.chat([ChatMessage("user", blocks)], ChatOptions(model="echo"))
    assert answer.content == echo_of("What is this? [image_url]")
    assert upstream.state.last_request["messages"][0]["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": image}},
    ]


async def test_the_providers_of_chat_are_listed(app: RealtimeXSDK) -> None:
    listed = await app.llm.chat_providers()
    assert listed.success
    (provider,) = listed.providers
    assert provider.provider == "openai"
    models = [model.id for model in provider.models]
    assert "echo" in models
    assert not set(OTHER_MODELS) & set(models)
    assert all(model.name for model in provider.models)


async def test_the_list_that_older_releases_ask_for_is_there(app: RealtimeXSDK) -> None:
    # What ``get_providers`` of the releases up to 1.1.1 sends and reads; 1.7.28 has kept the call that it was built on.
    listed = await app.llm._request("GET", "/sdk/llm/providers", timeout=30.0)
    assert [provider["provider"] for provider in listed["llm"]] == ["openai"]
    assert [(provider["provider"], provider["active"]) for provider in listed["embedding"]] == [("native", True), ("openai", False)]


async def test_an_unknown_model_is_an_answer_with_a_code(app: RealtimeXSDK) -> None:
    failed = await app.llm.chat(HELLO, ChatOptions(model="no-such-model"))
    assert (failed.success, failed.code) == (False, "INVALID_MODEL")
    assert failed.error is not None
    assert "no-such-model" in failed.error
    with pytest.raises(LLMProviderError, match="no-such-model"):
        await _collect(app, HELLO, model="no-such-model")


async def test_an_unknown_provider_is_an_answer_with_a_code(app: RealtimeXSDK) -> None:
    failed = await app.llm.chat(HELLO, ChatOptions(provider="nobody"))
    assert (failed.success, failed.code) == (False, "VALIDATION_ERROR")


@pytest.mark.parametrize("model", ["401", "500", "503", "die", "nonsense", "empty"])
async def test_a_provider_that_fails_raises_the_error_of_the_sdk(app: RealtimeXSDK, model: str) -> None:
    with pytest.raises(LLMProviderError) as failed:
        await app.llm.chat(HELLO, ChatOptions(model=model))
    assert "SECRET-DETAIL" not in str(failed.value)


async def test_a_stream_that_breaks_off_raises_after_what_has_come(app: RealtimeXSDK) -> None:
    stream = app.llm.chat_stream(HELLO, ChatOptions(model="die"))
    assert (await anext(stream)).text == "Once"
    with pytest.raises(LLMProviderError) as failed:
        await anext(stream)
    assert failed.value.code == "LLM_STREAM_ERROR"


async def test_a_rate_limit_is_an_answer_with_a_code(app: RealtimeXSDK) -> None:
    failed = await app.llm.chat(HELLO, ChatOptions(model="429"))
    assert (failed.success, failed.code) == (False, "RATE_LIMIT")


async def test_messages_that_the_contract_refuses_are_an_answer_with_a_code(app: RealtimeXSDK) -> None:
    failed = await app.llm.chat([])
    assert (failed.success, failed.code) == (False, "VALIDATION_ERROR")
    assert failed.error


# --- embeddings


async def test_texts_are_embedded_by_the_model_that_is_built_in(app: RealtimeXSDK) -> None:
    answer = await app.llm.embed(["A dog barks.", "A hound is barking."])
    assert (answer.success, answer.provider, answer.model, answer.dimensions) == (True, "native", "all-MiniLM-L6-v2", 384)
    assert answer.embeddings is not None
    assert [len(vector) for vector in answer.embeddings] == [384, 384]
    assert sum(map(float.__mul__, *answer.embeddings)) > 0.7
    assert (await app.llm.embed("A dog barks.")).embeddings == [pytest.approx(answer.embeddings[0], abs=1e-5)]


async def test_texts_are_embedded_by_the_provider_that_is_named(app: RealtimeXSDK, upstream: RunningUpstream) -> None:
    texts = [f"text {number}" for number in range(70)]
    answer = await app.llm.embed(texts, provider="openai", model="batch-32")
    assert (answer.success, answer.provider, answer.model, answer.dimensions) == (True, "openai", "batch-32", 8)
    assert answer.embeddings == [pytest.approx(vector_of(text)) for text in texts]
    assert upstream.state.finished == 3


async def test_a_model_may_be_named_alone(app: RealtimeXSDK) -> None:
    answer = await app.llm.embed("Hello", model="text-embedding-3-small")
    assert (answer.provider, answer.model, answer.dimensions) == ("openai", "text-embedding-3-small", 1536)


def test_the_synchronous_embedding_works_without_a_loop(app: RealtimeXSDK) -> None:
    assert app.llm.embed_sync("Hello").dimensions == 384


async def test_the_providers_of_embeddings_are_listed(app: RealtimeXSDK) -> None:
    listed = await app.llm.embed_providers()
    assert listed.success
    assert {provider.provider: [model.id for model in provider.models] for provider in listed.providers} == {
        "native": ["all-MiniLM-L6-v2"],
        "openai": ["text-embedding-3-small"],
    }


async def test_a_refused_embedding_is_asked_for_and_repeated(newcomer: RealtimeXSDK, admin: Admin) -> None:
    deciding = asyncio.create_task(asyncio.to_thread(admin.decide, newcomer.app_id, {"llm.embed": "granted"}))
    assert (await newcomer.llm.embed("Hello")).success
    await deciding


@pytest.mark.parametrize(
    ("texts", "words"),
    [([], "less than 1 item"), (["good", ""], "/input/1"), (["good", " "], "index 1 is empty"), (["word " * 300], "at most 256")],
)
async def test_texts_that_cannot_be_embedded_are_an_answer_that_says_which(app: RealtimeXSDK, texts: list[str], words: str) -> None:
    failed = await app.llm.embed(texts)
    assert (failed.success, failed.code) == (False, "VALIDATION_ERROR")
    assert failed.error is not None
    assert words in failed.error


@pytest.mark.parametrize(
    ("provider", "model", "code"),
    [
        ("realtimexai", "text-embedding-ada-002", "VALIDATION_ERROR"),
        ("openai", "no-such-model", "INVALID_MODEL"),
        ("native", "no-such-model", "INVALID_MODEL"),
        ("openai", "short-2", "VALIDATION_ERROR"),
        ("openai", "429", "RATE_LIMIT"),
    ],
)
async def test_an_embedding_that_is_refused_is_an_answer_with_a_code(app: RealtimeXSDK, provider: str, model: str, code: str) -> None:
    failed = await app.llm.embed("one two three", provider=provider, model=model)
    assert (failed.success, failed.code) == (False, code)


@pytest.mark.parametrize("model", ["401", "503", "die", "nonsense", "too-few"])
async def test_a_provider_of_embeddings_that_fails_raises_the_error_of_the_sdk(app: RealtimeXSDK, model: str) -> None:
    with pytest.raises(LLMProviderError) as failed:
        await app.llm.embed(["Hello", "World"], provider="openai", model=model)
    assert "SECRET-DETAIL" not in str(failed.value)


async def _collect(sdk: RealtimeXSDK, messages: list[ChatMessage], **options: Any) -> list[str]:
    return [chunk.text async for chunk in sdk.llm.chat_stream(messages, ChatOptions(**options))]


async def _until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)
