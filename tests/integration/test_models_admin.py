"""The admin surface of models: providers, defaults, limits and usage."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adapters.postgres import Database
from contract.upstream import RunningUpstream
from handlers.admin import models as handlers
from handlers.admin import usage as usage_handlers
from homeport.errors import Conflict, InvalidRequest, NotFound
from homeport.models import Models
from homeport.models.usage_report import GROUPS
from homeport.secrets import SecretBox
from homeport.settings import Settings
from tests.integration.parts import Parts, open_parts

pytestmark = pytest.mark.anyio

KEY = "sk-very-secret-0123456789"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def home(database: Database, tmp_path: Path, upstream: RunningUpstream) -> AsyncIterator[Any]:
    """As much of a home as these handlers use; the environment configures one provider."""
    settings = Settings(data_dir=tmp_path, ollama_url="off", chat_timeout_s=5, stream_idle_s=5)
    models = Models(settings, database, SecretBox(bytes(32)), {"OPENAI_BASE_URL": upstream.base_url})
    yield SimpleNamespace(models=models)
    await models.close()


@pytest.fixture
async def parts(database_url: str, tmp_path: Path) -> AsyncIterator[Parts]:
    """The rest of the domain on the same database."""
    async with open_parts(database_url, tmp_path) as parts:
        yield parts


async def test_a_provider_is_added_shown_tried_and_removed_without_its_key(home: Any, upstream: RunningUpstream) -> None:
    body = {"name": "mine", "base_url": upstream.base_url, "api_key": KEY, "models": ["echo"], "is_default": True}
    added = await handlers.register_provider(home, body)
    assert added == {
        "name": "mine",
        "kind": "openai",
        "source": "database",
        "base_url": upstream.base_url,
        "models": ("echo",),
        "default_for": ("chat",),
    }
    assert await handlers.get_provider(home, "mine") == added
    with pytest.raises(Conflict):
        await handlers.register_provider(home, body)
    page = await handlers.list_providers(home)
    by_name = {each["name"]: each for each in page["items"]}
    assert (by_name["mine"], by_name["openai"]["source"], by_name["openai"]["default_for"]) == (added, "environment", ())
    tried = await handlers.test_provider(home, "mine")
    assert (tried["works"], "works" in tried["message"]) == (True, True)
    await home.models.chat(MESSAGES)
    assert upstream.state.last_headers["authorization"] == f"Bearer {KEY}"
    assert await handlers.remove_provider(home, "mine") == added
    assert KEY not in repr([added, page, tried])
    for gone in (handlers.get_provider, handlers.remove_provider, handlers.test_provider):
        with pytest.raises(NotFound):
            await gone(home, "mine")


async def test_a_provider_of_the_environment_is_not_removed_here(home: Any) -> None:
    with pytest.raises(NotFound, match="environment"):
        await handlers.remove_provider(home, "openai")


async def test_a_provider_that_does_not_work_is_an_answer(home: Any, free_tcp_port: int) -> None:
    await handlers.register_provider(home, {"name": "dead", "base_url": f"http://127.0.0.1:{free_tcp_port}/v1"})
    tried = await handlers.test_provider(home, "dead")
    assert (tried["works"], "cannot be reached" in tried["message"]) == (False, True)


async def test_a_key_that_no_header_can_carry_is_refused(home: Any) -> None:
    with pytest.raises(InvalidRequest, match="visible ASCII"):
        await home.models.add_provider("mine", base_url="http://127.0.0.1:9/v1", api_key="sk-1\r\nX-Evil: 1")


async def test_providers_are_listed_page_by_page(home: Any) -> None:
    for number in range(5):
        await handlers.register_provider(home, {"name": f"p{number}", "base_url": "http://127.0.0.1:9/v1"})
    names: list[str] = []
    cursor = None
    while True:
        page = await handlers.list_providers(home, limit=2, cursor=cursor)
        assert len(page["items"]) <= 2
        names += [each["name"] for each in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert names == sorted(each.name for each in await home.models.registry.providers())
    with pytest.raises(InvalidRequest):
        await handlers.list_limits(home, cursor=(await handlers.list_providers(home, limit=2))["next_cursor"])


async def test_a_route_is_set_shown_and_forgotten(home: Any) -> None:
    assert await handlers.get_route(home, "chat") == {"role": "chat", "targets": []}
    body = {"targets": [{"provider": "openai", "model": "503"}, {"provider": "openai", "model": "echo"}]}
    assert await handlers.set_route(home, "chat", body) == {"role": "chat"} | body
    assert await handlers.get_route(home, "chat") == {"role": "chat"} | body
    assert (await home.models.chat(MESSAGES)).model == "echo"
    assert await handlers.set_route(home, "chat", {"targets": []}) == {"role": "chat", "targets": []}


async def test_limits_are_set_listed_and_forgotten(home: Any) -> None:
    nothing = {"timeout_s": None, "retries": None, "concurrency": None}
    whole = {"provider": "openai", "model": None} | nothing | {"timeout_s": 30}
    one = {"provider": "openai", "model": "echo"} | nothing | {"concurrency": 2}
    assert await handlers.set_limits(home, "openai", {"timeout_s": 30}) == whole
    assert await handlers.set_limits(home, "openai", {"concurrency": 2}, model="echo") == one
    assert await handlers.list_limits(home) == {"items": [whole, one], "next_cursor": None}
    assert await handlers.reset_limits(home, "openai", "echo") == one
    assert (await handlers.list_limits(home))["items"] == [whole]


async def test_usage_names_the_app_and_the_key(home: Any, parts: Parts) -> None:
    app = await parts.app("Order Desk")
    key, text = await parts.keys.create("my laptop", ["*"])
    developer = await parts.identity.authenticate_key(text)
    for caller in (app, developer, developer):
        await home.models.chat(MESSAGES, caller=caller, model="echo")
    by_app = await usage_handlers.show_usage(home, group_by="app")
    assert [(each.get("app_slug"), each.get("app_id"), each["numbers"]["requests"]) for each in by_app["items"]] == [
        (None, None, 2),
        ("order-desk", str(app.id), 1),
    ]
    by_key = await usage_handlers.show_usage(home, group_by="key", limit=1)
    assert [(each["key_name"], each["key_id"]) for each in by_key["items"]] == [("my laptop", str(key.id))]
    assert (by_key["omitted"], by_key["totals"]["requests"]) == (1, 3)
    await parts.apps.remove(str(app.id))
    gone = (await usage_handlers.show_usage(home, group_by="app"))["items"][1]
    assert ("app_slug" in gone, gone["app_id"]) == (False, str(app.id))


async def test_usage_is_of_the_time_that_is_asked_for(home: Any) -> None:
    await home.models.chat(MESSAGES, model="echo")
    for group_by in GROUPS:
        for since, until, requests in (
            (None, None, 1),
            ("2000-01-01T00:00:00Z", "2000-01-02T00:00:00Z", 0),
            ("2999-01-01T00:00:00Z", None, 0),
        ):
            report = await usage_handlers.show_usage(home, since, until, group_by)
            assert (report["totals"]["requests"], len(report["items"])) == (requests, requests), (group_by, since)
    assert (await usage_handlers.show_usage(home, "2000-01-01T00:00:00Z", "2000-01-02T00:00:00Z"))["totals"] == {
        "requests": 0,
        "errors": 0,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "latency_avg_s": 0.0,
        "latency_max_s": 0.0,
        "cost_usd": None,
        "unpriced_requests": 0,
    }
