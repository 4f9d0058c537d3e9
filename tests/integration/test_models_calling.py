"""Fallbacks, retries and limits of calls, with real HTTP; and what is counted of them."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from structlog.testing import capture_logs

from adapters.chat import Endpoint, Usage
from adapters.postgres import Database
from contract.upstream import RunningUpstream
from homeport.errors import AppError, InvalidRequest, NotFound, Unavailable
from homeport.identity import Principal
from homeport.models import Delta, Finish, Limits, Models, Target, ToolSpec
from homeport.models.calling import MAX_RETRY_AFTER_S, RETRY_BASE_S
from homeport.models.usage import ModelUsage
from homeport.secrets import SecretBox
from homeport.settings import Settings
from tests.integration.parts import eventually, key_principal

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "hi"}]
APP = Principal("app", uuid4(), "App", uuid4(), None, frozenset({"*"}), frozenset())


@asynccontextmanager
async def open_models(database: Database, data_dir: Path, *, chat_timeout_s: float = 5.0) -> AsyncIterator[Models]:
    settings = Settings(data_dir=data_dir, ollama_url="off", chat_timeout_s=chat_timeout_s, stream_idle_s=5)
    models = Models(settings, database, SecretBox(bytes(32)), {})
    try:
        yield models
    finally:
        await models.close()


@pytest.fixture
async def models(database: Database, tmp_path: Path, upstream: RunningUpstream) -> AsyncIterator[Models]:
    """Models with the stand-in under two names."""
    async with open_models(database, tmp_path) as models:
        await models.add_provider("one", base_url=upstream.base_url, models=["echo"])
        await models.add_provider("two", base_url=upstream.base_url, models=["echo"])
        yield models


async def fails(models: Models, **options: Any) -> AppError:
    with pytest.raises(AppError) as caught:
        await models.chat(MESSAGES, **options)
    return caught.value


async def read(models: Models, **options: Any) -> str:
    stream = await models.stream_chat(MESSAGES, **options)
    return "".join([event.text async for event in stream if isinstance(event, Delta)])


def asked(upstream: RunningUpstream) -> int:
    return upstream.state.finished + upstream.state.cancelled


async def counted(models: Models, group_by: Any = "model") -> list[Any]:
    return list((await models.report_usage(group_by=group_by)).items)


@pytest.mark.parametrize("failing", ["503", "429", "401", "quota", "nonsense", "404"])
async def test_a_fallback_answers_when_the_default_fails_through_no_fault_of_the_request(models: Models, failing: str) -> None:
    await models.registry.set_route("chat", [Target("one", failing), Target("two", "500"), Target("two", "echo")])
    result = await models.chat(MESSAGES)
    assert (result.content, result.provider, result.model) == ("You said: hi", "two", "echo")
    assert await read(models) == "You said: hi"


async def test_a_fallback_answers_when_the_default_is_too_slow(models: Models) -> None:
    await models.registry.set_limits(Limits("one", timeout_s=0.2))
    await models.registry.set_route("chat", [Target("one", "slow-60"), Target("two", "echo")])
    with anyio.fail_after(5):
        assert (await models.chat(MESSAGES)).provider == "two"


@pytest.mark.parametrize("code", ["400", "context"])
async def test_the_requests_own_fault_is_told_and_not_tried_elsewhere(models: Models, upstream: RunningUpstream, code: str) -> None:
    await models.registry.set_route("chat", [Target("one", code), Target("two", "echo")])
    assert (await fails(models)).code == "VALIDATION_ERROR"
    assert asked(upstream) == 1


async def test_a_request_that_names_a_provider_or_a_model_is_answered_by_no_other(models: Models, upstream: RunningUpstream) -> None:
    await models.registry.set_route("chat", [Target("one", "503"), Target("two", "echo")])
    await models.registry.set_limits(Limits("one", retries=0))
    for options in ({"provider": "one"}, {"provider": "one", "model": "503"}, {"model": "503"}, {"model": "one/503"}):
        before = asked(upstream)
        assert "'one'" in (await fails(models, **options)).message
        assert asked(upstream) == before + 1
    assert (await models.chat(MESSAGES, provider="two")).model == "echo"


async def test_when_all_fail_the_failure_of_the_default_is_told(models: Models) -> None:
    await models.registry.set_route("chat", [Target("one", "429"), Target("two", "401")])
    error = await fails(models)
    assert (error.status, error.headers["Retry-After"]) == (429, "7")


async def test_a_stream_that_has_begun_is_neither_repeated_nor_continued_by_another(models: Models, upstream: RunningUpstream) -> None:
    await models.registry.set_route("chat", [Target("one", "die"), Target("two", "echo")])
    stream = await models.stream_chat(MESSAGES)
    with pytest.raises(AppError) as caught:
        [event async for event in stream]
    assert caught.value.code == "LLM_STREAM_ERROR"
    assert asked(upstream) == 1


async def test_the_default_names_its_provider_and_model_everywhere(models: Models) -> None:
    await models.registry.set_route("chat", [Target("two", "long-3")])
    assert (await models.resolve(None, None))[1] == "long-3"
    assert (await models.resolve("two", None))[1] == "long-3"
    assert (await models.resolve("one", None))[1] == "echo"
    assert (await models.resolve(None, "other"))[0].provider == "two"
    assert [each.name for each in await models.providers() if each.active] == ["two"]
    assert [each.name for each in await models.registry.providers() if "chat" in each.default_for] == ["two"]
    await models.registry.set_route("chat", [])
    assert (await models.chat(MESSAGES)).provider == "one"


async def test_fallbacks_for_embedding_must_be_the_same_model(models: Models) -> None:
    registry = models.registry
    for targets in (
        [Target("one", "text-embedding-3-small"), Target("two", "other")],
        [Target("one", "text-embedding-3-small"), Target("two")],
        [Target("one"), Target("two")],
    ):
        with pytest.raises(InvalidRequest, match="Vectors of different models cannot be compared"):
            await registry.set_route("embedding", targets)
    same = [Target("one", "text-embedding-3-small"), Target("two", "text-embedding-3-small")]
    assert await registry.set_route("embedding", same) == tuple(same)
    result = await models.embed(["hi"])
    assert (result.provider, result.model) == ("one", "text-embedding-3-small")


async def test_an_embedding_falls_back_to_the_same_model_elsewhere(models: Models, free_tcp_port: int) -> None:
    await models.add_provider("dead", base_url=f"http://127.0.0.1:{free_tcp_port}/v1")
    name = "text-embedding-3-small"
    await models.registry.set_route("embedding", [Target("dead", name), Target("two", name)])
    assert (await models.embed(["hi"])).provider == "two"


async def test_what_cannot_be_a_default_is_refused(models: Models) -> None:
    registry = models.registry
    with pytest.raises(NotFound, match="homeport models list"):
        await registry.set_route("chat", [Target("nobody")])
    with pytest.raises(InvalidRequest, match="cannot chat"):
        await registry.set_route("chat", [Target("native")])
    with pytest.raises(InvalidRequest, match="named twice"):
        await registry.set_route("chat", [Target("one"), Target("one")])
    assert await registry.routes() == {}


async def test_a_provider_that_is_removed_leaves_routes_and_limits(models: Models) -> None:
    await models.registry.set_route("chat", [Target("two"), Target("one")])
    await models.registry.set_limits(Limits("two", "echo", retries=0))
    await models.remove_provider("two")
    assert await models.registry.routes() == {"chat": (Target("one"),)}
    assert await models.registry.limits() == []


async def test_a_new_default_takes_the_place_of_the_old_one_and_keeps_the_fallbacks(models: Models, upstream: RunningUpstream) -> None:
    await models.registry.set_route("chat", [Target("one"), Target("two")])
    await models.add_provider("three", base_url=upstream.base_url, is_default=True)
    assert await models.registry.routes() == {"chat": (Target("three"), Target("two"))}


async def test_routes_set_by_several_at_once_stay_whole(models: Models) -> None:
    routes = [[Target("one", f"m{number}"), Target("two", f"m{number}")] for number in range(10)]
    await asyncio.gather(*(models.registry.set_route("chat", route) for route in routes))
    assert list((await models.registry.routes())["chat"]) in routes


@pytest.mark.parametrize(
    ("model", "retries", "calls"),
    [("503", None, 2), ("503", 0, 1), ("503", 3, 4), ("nonsense", 2, 3), ("429", 3, 1), ("401", 3, 1), ("400", 3, 1), ("404", 3, 1)],
)
async def test_failures_that_may_pass_are_tried_again_as_often_as_allowed(
    models: Models, upstream: RunningUpstream, model: str, retries: int | None, calls: int
) -> None:
    if retries is not None:
        await models.registry.set_limits(Limits("one", retries=retries))
    with capture_logs() as logs:
        await fails(models, provider="one", model=model)
    assert asked(upstream) == calls
    waits = [line["wait_s"] for line in logs if line["event"] == "model is asked again"]
    assert len(waits) == calls - 1
    assert all(0 <= wait_s <= RETRY_BASE_S * 2**number for number, wait_s in enumerate(waits))


async def test_a_short_retry_after_is_kept_and_a_long_one_not_waited_for(models: Models, upstream: RunningUpstream) -> None:
    with capture_logs() as logs:
        await fails(models, provider="one", model="429")  # its Retry-After is 7
        assert (await models.chat(MESSAGES, provider="one", model="echo")).content == "You said: hi"
    assert asked(upstream) == 2
    assert MAX_RETRY_AFTER_S < 7
    assert [line for line in logs if line["event"] == "model is asked again"] == []


async def test_a_stream_is_tried_again_before_it_begins(models: Models, upstream: RunningUpstream) -> None:
    with pytest.raises(Unavailable):
        await models.stream_chat(MESSAGES, provider="one", model="503")
    assert asked(upstream) == 2


async def test_nothing_is_tried_again_after_its_time(models: Models, upstream: RunningUpstream) -> None:
    await models.registry.set_limits(Limits("one", timeout_s=0.2, retries=5))
    error = await fails(models, provider="one", model="slow-60")
    assert (error.status, "0.2 seconds" in error.message) == (504, True)

    async def cancelled() -> int:
        return upstream.state.cancelled

    assert await eventually(cancelled) == 1


async def test_a_limit_of_time_may_be_longer_than_the_settings(database: Database, tmp_path: Path, upstream: RunningUpstream) -> None:
    async with open_models(database, tmp_path, chat_timeout_s=0.1) as models:
        await models.add_provider("one", base_url=upstream.base_url)
        assert (await fails(models, model="slow-0.3")).status == 504
        await models.registry.set_limits(Limits("one", "slow-0.3", timeout_s=5))
        assert (await models.chat(MESSAGES, model="slow-0.3")).content == "You said: hi"


async def test_no_more_calls_run_at_once_than_allowed_and_the_others_wait(models: Models, upstream: RunningUpstream) -> None:
    await models.registry.set_limits(Limits("one", concurrency=2))
    await asyncio.gather(*(models.chat(MESSAGES, provider="one", model="slow-0.05") for _ in range(8)))
    assert upstream.state.most_open == 2
    assert upstream.state.finished == 8


async def test_who_waits_too_long_for_a_turn_is_told_when_to_come_again(models: Models) -> None:
    await models.registry.set_limits(Limits("one", "endless", timeout_s=0.2, concurrency=1))
    stream = await models.stream_chat(MESSAGES, provider="one", model="endless")
    error = await fails(models, provider="one", model="endless")
    assert (error.status, error.code, error.headers["Retry-After"]) == (429, "RATE_LIMIT", "5")
    assert "one/endless" in error.message
    assert (await models.chat(MESSAGES, provider="one", model="echo")).content == "You said: hi", "another model is not held up"
    await stream.aclose()
    await (await models.stream_chat(MESSAGES, provider="one", model="endless")).aclose()


async def test_a_caller_who_leaves_the_line_takes_no_place(models: Models) -> None:
    await models.registry.set_limits(Limits("one", concurrency=1))
    stream = await models.stream_chat(MESSAGES, provider="one", model="endless")
    waiting = [asyncio.create_task(models.chat(MESSAGES, provider="one")) for _ in range(3)]
    await asyncio.sleep(0)
    for each in waiting[:2]:
        each.cancel()
    await stream.aclose()
    with anyio.fail_after(5):
        assert (await waiting[2]).content == "You said: hi"
        assert (await models.chat(MESSAGES, provider="one")).content == "You said: hi"


async def test_limits_are_checked_changed_and_forgotten(models: Models) -> None:
    registry = models.registry
    for wrong in (
        Limits("one"),
        Limits("one", timeout_s=0),
        Limits("one", timeout_s=math.nan),
        Limits("one", retries=-1),
        Limits("one", concurrency=0),
    ):
        with pytest.raises(InvalidRequest):
            await registry.set_limits(wrong)
    with pytest.raises(NotFound):
        await registry.set_limits(Limits("nobody", retries=0))
    await registry.set_limits(Limits("one", "echo", retries=0))
    await registry.set_limits(Limits("one", timeout_s=9, concurrency=3))
    await registry.set_limits(Limits("one", timeout_s=8, concurrency=3))
    assert await registry.limits() == [Limits("one", timeout_s=8, concurrency=3), Limits("one", "echo", retries=0)]
    assert await registry.reset_limits(Target("one")) == Limits("one", timeout_s=8, concurrency=3)
    with pytest.raises(NotFound):
        await registry.reset_limits(Target("one"))


async def test_calls_are_counted_by_app_key_and_model(models: Models) -> None:
    key = key_principal(uuid4())
    await models.chat(MESSAGES, caller=APP, provider="one", model="echo")
    await read(models, caller=APP, provider="one", model="echo")
    await models.chat(MESSAGES, caller=replace(key, owner_id=APP.id), provider="two", model="long-3")
    await models.embed(["hi", "there"], caller=key, provider="one", model="text-embedding-3-small")
    await fails(models, caller=key, provider="one", model="500")
    by_model = {(row.provider, row.model, row.operation): row.numbers for row in await counted(models)}
    assert {name: (each.requests, each.errors, each.completion_tokens) for name, each in by_model.items()} == {
        ("one", "echo", "chat"): (2, 0, 6),
        ("two", "long-3", "chat"): (1, 0, 3),
        ("one", "text-embedding-3-small", "embedding"): (1, 0, 0),
        ("one", "500", "chat"): (1, 1, 0),
    }
    assert by_model["one", "echo", "chat"].prompt_tokens == 2
    assert by_model["one", "text-embedding-3-small", "embedding"].prompt_tokens > 0
    assert all(0 < each.latency_avg_s <= each.latency_max_s for each in by_model.values())
    assert {row.app_id: row.numbers.requests for row in await counted(models, "app")} == {APP.id: 3, None: 2}
    assert {row.key_id: row.numbers.requests for row in await counted(models, "key")} == {None: 2, key.id: 3}
    assert [row.numbers.requests for row in await counted(models, "hour")] == [5]


async def test_a_fallbacks_call_and_the_failed_one_are_both_counted(models: Models) -> None:
    await models.registry.set_route("chat", [Target("one", "503"), Target("two", "echo")])
    await models.chat(MESSAGES)
    assert {(row.provider, row.numbers.requests, row.numbers.errors) for row in await counted(models)} == {("one", 1, 1), ("two", 1, 0)}


async def test_a_stream_is_counted_when_its_reader_leaves_and_when_it_fails(models: Models) -> None:
    stream = await models.stream_chat(MESSAGES, provider="one", model="endless")
    await anext(stream)
    assert await counted(models) == []
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(AppError):
        await read(models, provider="one", model="die")
    assert {(row.model, row.numbers.requests, row.numbers.errors) for row in await counted(models)} == {("endless", 1, 0), ("die", 1, 1)}


async def test_a_caller_who_leaves_is_counted_and_is_no_error(models: Models, upstream: RunningUpstream) -> None:
    task = asyncio.create_task(models.chat(MESSAGES, provider="one", model="slow-60"))

    async def is_open() -> bool:
        return upstream.state.open == 1

    await eventually(is_open)
    task.cancel()
    await asyncio.wait([task])
    [row] = await counted(models)
    assert (row.model, row.numbers.requests, row.numbers.errors) == ("slow-60", 1, 0)


async def test_names_that_no_model_has_are_counted_together(models: Models) -> None:
    for name in ("no-such-model", "another", "x\0y"):
        await fails(models, provider="one", model=name)
    [row] = await counted(models)
    assert (row.model, row.numbers.requests, row.numbers.errors) == ("", 3, 3)


async def test_what_several_processes_count_adds_up(database: Database, tmp_path: Path, upstream: RunningUpstream) -> None:
    async with open_models(database, tmp_path) as one, open_models(database, tmp_path) as other:
        await one.add_provider("mine", base_url=upstream.base_url, models=["echo", "long-2"])
        other_sees = await eventually(other.configured_providers)
        assert [each.name for each in other_sees] == ["mine"]
        for _ in range(5):
            calls = [each.chat(MESSAGES, model=f"mine/{model}") for each in (one, other) for model in ("echo", "long-2")]
            await asyncio.gather(*calls)
            await asyncio.gather(one.usage.flush(), other.usage.flush())
        assert {row.model: row.numbers.requests for row in await counted(one)} == {"echo": 10, "long-2": 10}


async def test_counts_outlive_a_database_that_is_away(models: Models, database: Database) -> None:
    async def run_sql(statement: str) -> None:
        async with database.transaction() as connection:
            await connection.exec_driver_sql(statement)

    await models.chat(MESSAGES, provider="one")
    await run_sql("ALTER TABLE model_usage RENAME TO elsewhere")
    with pytest.raises(Exception, match="model_usage"):
        await models.usage.flush()
    await models.chat(MESSAGES, provider="one")
    await run_sql("ALTER TABLE elsewhere RENAME TO model_usage")
    [row] = await counted(models)
    assert row.numbers.requests == 2


async def test_counts_are_written_in_the_background_and_at_the_end(database: Database, tmp_path: Path, upstream: RunningUpstream) -> None:
    async with open_models(database, tmp_path) as reader:
        async with open_models(database, tmp_path) as writer:
            await writer.add_provider("mine", base_url=upstream.base_url, models=["echo"])
            writing = asyncio.create_task(writer.usage.run())
            await writer.chat(MESSAGES)

            async def requests() -> int:
                return (await reader.report_usage()).totals.requests

            assert await eventually(requests) == 1
            writing.cancel()
            await asyncio.wait([writing])
            await writer.chat(MESSAGES)
        assert await requests() == 2


async def test_costs_are_those_of_the_list_of_prices_and_unknown_elsewhere(models: Models, database: Database) -> None:
    usage = ModelUsage(database)
    openai = Endpoint("openai", "openai", "https://api.openai.com/v1")
    for endpoint in (openai, Endpoint("mine", "openai", "http://127.0.0.1:9/v1")):
        usage.record("chat", None, endpoint, "gpt-4o-mini", 0.5, Usage(1_000_000, 100_000), None)
    usage.record("embedding", None, openai, "text-embedding-3-small", 0.5, Usage(1_000_000), None)
    await usage.flush()
    report = await models.report_usage()
    assert {(row.provider, row.model): row.numbers.cost_usd for row in report.items} == {
        ("openai", "gpt-4o-mini"): pytest.approx(0.15 + 0.06),
        ("openai", "text-embedding-3-small"): pytest.approx(0.02),
        ("mine", "gpt-4o-mini"): None,
    }
    assert report.totals.cost_usd == pytest.approx(0.23)
    assert report.totals.unpriced_requests == 1


SCRIPT = [{"role": "user", "content": 'script: [{"call": [{"tool": "read", "arguments": {"path": "a"}}]}]'}]
READ = ToolSpec("files__read", "Read a file.", {"type": "object", "properties": {"path": {"type": "string"}}})


async def test_a_call_with_tools_falls_back_is_limited_and_is_counted_like_any_other(models: Models, upstream: RunningUpstream) -> None:
    await models.registry.set_route("chat", [Target("one", "503"), Target("two", "script")])
    await models.registry.set_limits(Limits("two", concurrency=1))
    result = await models.chat(SCRIPT, caller=APP, tools=[READ], tool_choice="auto")
    assert (result.provider, result.content) == ("two", "")
    assert [(call.name, call.arguments) for call in result.tool_calls] == [("files__read", '{"path":"a"}')]
    stream = await models.stream_chat(SCRIPT, caller=APP, tools=[READ])
    events = [event async for event in stream]
    assert [event.tool_calls for event in events if isinstance(event, Finish)] == [result.tool_calls]
    (used,) = [row for row in await counted(models) if row.provider == "two"]
    assert (used.model, used.numbers.requests, used.numbers.errors) == ("script", 2, 0)
    assert used.numbers.completion_tokens == 2 * (result.usage.completion_tokens or 0) > 0


async def test_a_model_that_refuses_tools_is_asked_again_as_one_call(models: Models, upstream: RunningUpstream) -> None:
    result = await models.chat(MESSAGES, provider="two", model="script-notools", tools=[READ], tool_choice="required")
    assert (result.content, result.tool_calls) == ("You said: hi", ())
    assert asked(upstream) == 2
    (used,) = await counted(models)
    assert (used.numbers.requests, used.numbers.errors) == (1, 0)


async def test_the_context_window_is_that_of_the_list_and_unknown_elsewhere(models: Models) -> None:
    await models.add_provider("openai", api_key="sk-x")
    await models.add_provider("together", api_key="sk-x")
    await models.add_provider("anthropic", api_key="sk-x")
    assert await models.context_window("openai", "gpt-4o-mini") == 128_000
    assert await models.context_window(None, "openai/gpt-4o-mini") == 128_000
    assert await models.context_window("anthropic", "claude-haiku-4-5") == 200_000
    assert (await models.context_window("together", "openai/gpt-oss-20b") or 0) >= 128_000, "known under another name there"
    assert await models.context_window("openai", "no-such-model") is None
    assert await models.context_window("one", "gpt-4o-mini") is None, "a server of one's own may cut it shorter"
