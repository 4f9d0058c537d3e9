"""Conversations with agents over HTTP: what is on the wire, who sees what, and how a run ends."""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from contract.tool_hooks import STAND_IN
from contract.upstream import RunningUpstream
from homeport.home import open_home
from homeport.settings import Settings
from tests.acceptance.servers import TIMEOUT_S, Admin, Json, Server, Servers, eventually

# The SDK for TypeScript sends {}, others leave the body out, or send a null for each field.
EMPTY_BODIES: dict[str, Json | None] = {
    "no body": None,
    "empty": {},
    "nulls": {"workspace_slug": None, "thread_slug": None, "agent_name": None},
    "empty texts": {"workspace_slug": "", "thread_slug": "", "agent_name": ""},
    "extra fields": {"metadata": {"n": 1}},
}
# What the server promises to whoever leaves.
CANCELLED_WITHIN_S = 1.0
MISSING = {"workspace_slug": "WORKSPACE_NOT_FOUND", "thread_slug": "THREAD_NOT_FOUND", "agent_name": "AGENT_NOT_FOUND"}


def script(*steps: Json) -> str:
    """A message that tells the stand-in what its model does."""
    return f"script: {json.dumps(steps)}"


class Talker:
    """An app, or whoever holds a key, that talks with agents of a server."""

    def __init__(self, server: Server, headers: Json, agent: str = "", at: str = "") -> None:
        self.agent = agent
        self.http = httpx.Client(base_url=at or server.url, headers=headers, timeout=TIMEOUT_S * 4, trust_env=False)

    def ask(self, method: str, path: str = "", body: Json | None = None) -> httpx.Response:
        return self.http.request(method, f"/sdk/agent/session{path}", json=body)

    def succeed(self, method: str, path: str = "", body: Json | None = None) -> Json:
        answer = self.ask(method, path, body)
        assert answer.status_code == 200, answer.text
        result: Json = answer.json()
        assert result["success"] is True
        return result

    def begin(self, **named: Any) -> str:
        session_id: str = self.succeed("POST", body={"agent_name": self.agent} | named)["session"]["session_id"]
        return session_id

    def chat(self, session_id: str, message: str) -> Json:
        response: Json = self.succeed("POST", f"/{session_id}/chat", {"message": message})["response"]
        return response

    def session(self, session_id: str) -> Json:
        session: Json = self.succeed("GET", f"/{session_id}")["session"]
        return session

    @contextmanager
    def streaming(self, session_id: str, message: str, **options: bool) -> Iterator[httpx.Response]:
        body = {"message": message, **options}
        with self.http.stream("POST", f"/sdk/agent/session/{session_id}/chat/stream", json=body) as answer:
            yield answer

    def frames(self, session_id: str, message: str, **options: bool) -> list[Json]:
        """All frames of a stream, each without its id, which is the same in all of them."""
        with self.streaming(session_id, message, **options) as answer:
            assert answer.status_code == 200, answer.read()
            frames = frames_of(answer.read())
        assert len({frame.pop("id") for frame in frames}) == 1
        return frames


def frames_of(content: bytes) -> list[Json]:
    """What the official client reads: each line that begins with ``data: `` is JSON; nothing else is read."""
    return [json.loads(line[6:]) for line in content.decode().split("\n") if line.startswith("data: ")]


def events_of(admin: Admin, run_id: str) -> list[str]:
    """What was done in a run, in order."""
    return [event["kind"] for event in reversed(admin.call("GET", f"/events?subject={run_id}&limit=200")["items"])]


def runs_of(admin: Admin, session_id: str) -> list[Json]:
    runs: list[Json] = admin.call("GET", f"/agent-runs?session_id={session_id}")["items"]
    return runs


@pytest.fixture(scope="module")
def agent(admin: Admin) -> str:
    """An agent whose model does what the message says."""
    slug: str = admin.call("POST", "/agents", {"display_name": "Scripted", "model": "script"})["slug"]
    return slug


@pytest.fixture(scope="module")
def app(server: Server, admin: Admin, agent: str) -> Iterator[Talker]:
    """An app that may talk with agents."""
    talker = Talker(server, {"X-App-Id": admin.register("Talking app", granted=("agent.chat", "mcp.tools"))}, agent)
    with talker.http:
        yield talker


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


# --- sessions


@pytest.mark.parametrize("body", EMPTY_BODIES.values(), ids=EMPTY_BODIES)
def test_a_session_needs_nothing(app: Talker, body: Json | None) -> None:
    session = app.succeed("POST", body=body)["session"]
    assert str(UUID(session.pop("session_id")))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", session.pop("created_at"))
    agent = session.pop("agent")
    assert (agent["name"], agent["provider"], bool(agent["model"])) == ("@agent", "openai", True)
    assert session == {"workspace": {"slug": "default", "name": "Default"}, "thread": None, "message_count": 0}


def test_a_session_is_where_and_with_whom_it_is_wanted(app: Talker) -> None:
    session = app.succeed("POST", body={"workspace_slug": "default", "thread_slug": "general", "agent_name": app.agent})["session"]
    assert session["thread"] == {"slug": "general", "name": "General"}
    assert session["agent"] == {"name": app.agent, "provider": "openai", "model": "script"}
    new = app.succeed("POST", body={"thread_slug": "create_new"})["session"]["thread"]
    assert new["slug"] not in ("general", "create_new")
    assert app.succeed("POST", body={"thread_slug": new["slug"]})["session"]["thread"] == new


@pytest.mark.parametrize("field", MISSING)
def test_what_a_session_names_must_be_there(app: Talker, field: str) -> None:
    answer = app.ask("POST", body={field: "nowhere"})
    assert (answer.status_code, answer.json()["code"]) == (404, MISSING[field])
    assert "'nowhere'" in answer.json()["error"]


def test_an_agent_remembers_the_conversation(app: Talker, upstream: RunningUpstream) -> None:
    session_id = app.begin()
    first = app.chat(session_id, "one")
    assert first | {"id": ""} == {
        "id": "",
        "session_id": session_id,
        "text": "You said: one",
        "thoughts": [],
        "message_count": 2,
        "blocks": [],
    }
    assert app.chat(session_id, "two")["message_count"] == 4
    said = [(each["role"], each["content"]) for each in upstream.state.last_request["messages"] if each["role"] != "system"]
    assert said == [("user", "one"), ("assistant", "You said: one"), ("user", "two")]
    session = app.session(session_id)
    assert session["message_count"] == 4
    assert session["last_message_at"] > session["created_at"]


def test_instructions_go_first(admin: Admin, app: Talker, upstream: RunningUpstream) -> None:
    admin.call("POST", "/agents", {"display_name": "Brief", "slug": "brief", "model": "echo", "instructions": "Be brief."})
    app.chat(app.begin(agent_name="brief"), "hello")
    first = upstream.state.last_request["messages"][0]
    assert first["role"] == "system"
    assert "Be brief." in first["content"]


def each_use(talker: Talker, session_id: str) -> list[httpx.Response]:
    """What a session can be used for, but for its end."""
    said = {"message": "hello"}
    return [
        talker.ask("GET", f"/{session_id}"),
        talker.ask("POST", f"/{session_id}/chat", said),
        talker.ask("POST", f"/{session_id}/chat/stream", said),
    ]


def assert_gone(answers: Sequence[httpx.Response]) -> None:
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "SESSION_NOT_FOUND")] * len(answers)


def test_a_session_is_its_owners_alone(server: Server, admin: Admin, app: Talker) -> None:
    session_id = app.begin()
    other = Talker(server, {"X-App-Id": admin.register("Other app", granted=("agent.chat",))})
    developer = Talker(server, {"x-api-key": admin.key})
    for stranger in (other, developer):
        with stranger.http:
            assert_gone([*each_use(stranger, session_id), stranger.ask("DELETE", f"/{session_id}")])
    assert app.session(session_id)["message_count"] == 0
    assert_gone(each_use(app, "nonsense"))


def test_a_session_that_is_closed_is_gone(app: Talker) -> None:
    session_id = app.begin()
    closed = app.succeed("DELETE", f"/{session_id}")["session"]
    assert closed["session_id"] == session_id
    assert_gone([*each_use(app, session_id), app.ask("DELETE", f"/{session_id}")])


def test_closing_a_session_stops_what_is_done_in_it(
    admin: Admin, app: Talker, upstream: RunningUpstream, threads: ThreadPoolExecutor
) -> None:
    session_id = app.begin()
    asking = threads.submit(app.ask, "POST", f"/{session_id}/chat", {"message": script({"wait": 60, "say": "never"})})
    eventually(lambda: upstream.state.open, lambda count: count == 1)
    app.succeed("DELETE", f"/{session_id}")
    answer = asking.result(TIMEOUT_S)
    assert (answer.status_code, answer.json()["code"]) == (409, "RUN_CANCELLED")
    eventually(lambda: upstream.state.cancelled, lambda count: count == 1)
    (run,) = runs_of(admin, session_id)
    assert run["state"] == "cancelled"


def test_a_session_ends_after_an_idle_hour(server: Server, app: Talker) -> None:
    kept, idle = app.begin(), app.begin()

    async def let_time_pass() -> None:
        async with open_home(Settings(data_dir=server.data_dir)) as home, home.database.transaction() as connection:
            for session_id, age in ((kept, "59 minutes"), (idle, "61 minutes")):
                passed = text("UPDATE agent_sessions SET last_active_at = now() - cast(:age AS interval) WHERE id = cast(:id AS uuid)")
                await connection.execute(passed, {"age": age, "id": session_id})

    asyncio.run(let_time_pass())
    assert app.chat(kept, "still there?")["text"] == "You said: still there?"
    assert_gone(each_use(app, idle))


def test_talking_needs_a_permission(server: Server, admin: Admin) -> None:
    talker = Talker(server, {"X-App-Id": admin.register("Silent app")})
    with talker.http:
        for answer in [talker.ask("POST", body={}), *each_use(talker, "any")]:
            assert answer.status_code == 403
            assert (answer.json()["code"], answer.json()["permission"]) == ("PERMISSION_REQUIRED", "agent.chat")


# --- tools


def test_what_is_done_with_a_tool_is_told(admin: Admin, app: Talker) -> None:
    admin.call("POST", "/mcp-servers", {"name": "echoing", **STAND_IN})
    tools = {"display_name": "Tooled", "slug": "tooled", "model": "script", "tools": ["echoing/echo"]}
    admin.call("POST", "/agents", tools)
    message = script({"call": [{"tool": "echo", "arguments": {"text": "spade"}}]}, {"say": "It says: {results}"})
    answer = app.chat(app.begin(agent_name="tooled"), message)
    assert answer["text"] == "It says: spade"
    assert answer["thoughts"]
    (block,) = answer["blocks"]
    assert block["dataType"] == "toolUse"

    *before, last = app.frames(app.begin(agent_name="tooled"), message)
    assert last == {"type": "textResponse", "textResponse": "It says: spade"}
    assert [frame["thought"] for frame in before if frame["type"] == "agentThought"] == answer["thoughts"]
    (rich,) = [json.loads(frame["textResponse"]) for frame in before if frame["type"] == "textResponse"]
    assert (rich["dataType"], rich["data"].keys()) == ("toolUse", block["data"].keys())

    (run,) = runs_of(admin, answer["session_id"])
    details = admin.call("GET", f"/agent-runs/{run['id']}")
    assert details["run"] == run
    assert (run["state"], run["turns"], run["tool_calls"]) == ("completed", 2, 1)
    messages = details["messages"]
    assert [each["role"] for each in messages] == ["user", "assistant", "tool", "assistant"]
    (call,) = messages[1]["tool_calls"]
    assert json.loads(call["arguments"]) == {"text": "spade"}
    assert (messages[2]["tool_call_id"], messages[2]["text"], messages[3]["text"]) == (call["id"], "spade", "It says: spade")
    kinds = events_of(admin, run["id"])
    order = ["agent.run.started", "agent.model.answered", "agent.tool.started", "agent.tool.finished", "agent.run.completed"]
    assert [kinds.index(kind) for kind in order] == sorted(kinds.index(kind) for kind in order)


# --- streams


def test_a_stream_is_lines_of_json_and_nothing_else(server: Server, app: Talker) -> None:
    session_id = app.begin()
    # Asked of the process itself: nginx decides for itself what becomes of a connection.
    app_itself = Talker(server, dict(app.http.headers), at=server.own_url)
    with app_itself.http, app_itself.streaming(session_id, "hello") as answer:
        content = answer.read()
        assert answer.headers["content-type"] == "text/event-stream"
        assert (answer.headers["cache-control"], answer.headers["connection"]) == ("no-store", "close")
    (frame,) = frames_of(content)
    assert content == b'data: {"id":"%b","type":"textResponse","textResponse":"You said: hello"}\n\n' % frame["id"].encode()
    assert str(UUID(frame["id"])) == frame["id"]


def test_thoughts_come_before_the_answer_each_on_one_line(app: Talker) -> None:
    frames = app.frames(app.begin(), script({"think": "First this.\nThen that.", "say": "Done.\nReally."}))
    assert frames[-1] == {"type": "textResponse", "textResponse": "Done.\nReally."}
    assert {frame["type"] for frame in frames[:-1]} == {"agentThought"}
    assert "".join(frame["thought"] for frame in frames[:-1]) == "First this.\nThen that."


def test_pieces_come_to_those_who_ask_and_the_answer_is_whole(app: Talker) -> None:
    *pieces, last = app.frames(app.begin(), "a b c d", stream_chunks=True)
    assert {piece["type"] for piece in pieces} == {"textResponseChunk"}
    assert "".join(piece["textResponse"] for piece in pieces) == last["textResponse"] == "You said: a b c d"
    assert last["type"] == "textResponse"


def test_what_fails_before_the_first_frame_is_an_ordinary_error(app: Talker) -> None:
    answer = app.ask("POST", f"/{app.begin()}/chat/stream", {"message": script({"fail": 500})})
    assert answer.status_code in (502, 503)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["success"] is False
    assert answer.json()["code"] in ("LLM_ERROR", "PROVIDER_UNAVAILABLE")


def test_what_fails_later_is_the_last_frame(app: Talker) -> None:
    *before, last = app.frames(app.begin(), script({"fail": "cut"}), stream_chunks=True)
    assert before
    assert last.keys() == {"type", "error", "code"}
    assert (last["type"], bool(last["error"])) == ("error", True)
    assert last["code"] in ("LLM_ERROR", "LLM_STREAM_ERROR")


def test_a_message_must_be_one(app: Talker) -> None:
    session_id = app.begin()
    for said in ({}, {"message": ""}, {"message": 5}, {"message": "x" * 200_001}, {"message": None}):
        for path in ("chat", "chat/stream"):
            answer = app.ask("POST", f"/{session_id}/{path}", said)
            assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert app.session(session_id)["message_count"] == 0


def test_two_messages_at_once_are_not_mixed(app: Talker, upstream: RunningUpstream, threads: ThreadPoolExecutor) -> None:
    session_id = app.begin()
    first = threads.submit(app.chat, session_id, script({"wait": 1, "say": "first"}))
    eventually(lambda: upstream.state.open, lambda count: count == 1)
    for path in ("chat", "chat/stream"):
        answer = app.ask("POST", f"/{session_id}/{path}", {"message": "second"})
        assert (answer.status_code, answer.json()["code"]) == (409, "SESSION_BUSY")
    assert first.result(TIMEOUT_S)["text"] == "first"
    assert app.chat(session_id, "third")["message_count"] == 4


# --- clients that leave


@pytest.fixture
def waiter(admin: Admin) -> str:
    """An agent with a tool that takes its time, from a server of its own: that one does one thing after the other."""
    agent = {"display_name": "Waiter", "model": "script"}
    slug: str = admin.call("POST", "/agents", agent)["slug"]
    admin.call("POST", "/mcp-servers", {"name": slug, **STAND_IN})
    admin.call("PATCH", f"/agents/{slug}", {"tools": [f"{slug}/slow"]})
    return slug


@pytest.fixture(scope="module")
def chatterbox(admin: Admin) -> str:
    """An agent that never comes to an end."""
    slug: str = admin.call("POST", "/agents", {"display_name": "Chatterbox", "model": "endless"})["slug"]
    return slug


def wait_for(seconds: float) -> str:
    return script({"call": [{"tool": "slow", "arguments": {"seconds": seconds}}]}, {"say": "Done."})


def leave_after_one_frame(talker: Talker, session_id: str, message: str, **options: bool) -> str:
    """Read one frame of a stream, and leave; returns the id of the run."""
    with talker.streaming(session_id, message, **options) as answer:
        line = next(line for line in answer.iter_lines() if line.startswith("data: "))
        run_id: str = json.loads(line[6:])["id"]
        return run_id


def assert_cancelled(admin: Admin, run_id: str) -> None:
    kinds = eventually(lambda: events_of(admin, run_id), lambda found: "agent.run.cancelled" in found, CANCELLED_WITHIN_S)
    assert kinds[-1] == "agent.run.cancelled"
    assert admin.call("GET", f"/agent-runs/{run_id}")["run"]["state"] == "cancelled"


def test_a_client_that_leaves_stops_the_model(admin: Admin, app: Talker, chatterbox: str, upstream: RunningUpstream) -> None:
    session_id = app.begin(agent_name=chatterbox)
    run_id = leave_after_one_frame(app, session_id, "hello", stream_chunks=True)
    assert_cancelled(admin, run_id)
    eventually(lambda: upstream.state.cancelled, lambda count: count == 1, CANCELLED_WITHIN_S)
    assert app.session(session_id)["session_id"] == session_id


def test_a_client_that_leaves_stops_the_tool_and_may_go_on_later(admin: Admin, app: Talker, waiter: str) -> None:
    session_id = app.begin(agent_name=waiter)
    run_id = leave_after_one_frame(app, session_id, wait_for(60))
    assert_cancelled(admin, run_id)
    assert app.chat(session_id, "And now?")["text"] == "You said: And now?"


def test_a_client_that_leaves_a_chat_stops_it(admin: Admin, app: Talker, waiter: str, threads: ThreadPoolExecutor) -> None:
    session_id = app.begin(agent_name=waiter)
    asking = threads.submit(app.http.post, f"/sdk/agent/session/{session_id}/chat", json={"message": wait_for(60)}, timeout=2)
    (run,) = eventually(lambda: runs_of(admin, session_id))
    with pytest.raises(httpx.ReadTimeout):
        asking.result(TIMEOUT_S)
    assert_cancelled(admin, run["id"])


def test_a_run_goes_on_without_its_client_where_that_is_asked_for(admin: Admin, app: Talker, waiter: str) -> None:
    session_id = app.begin(agent_name=waiter)
    run_id = leave_after_one_frame(app, session_id, wait_for(0.5), continue_on_disconnect=True)
    kinds = eventually(lambda: events_of(admin, run_id), lambda found: "agent.run.completed" in found, TIMEOUT_S * 4)
    assert kinds[-1] == "agent.run.completed"
    assert admin.call("GET", f"/agent-runs/{run_id}")["messages"][-1]["text"] == "Done."
    assert app.session(session_id)["message_count"] == 2


# --- other servers


def test_without_a_model_there_is_a_sentence_that_says_what_to_do(servers: Servers) -> None:
    server = servers.start("bare", OPENAI_BASE_URL="", OPENAI_API_KEY="")
    talker = Talker(server, {"x-api-key": server.first_key or ""})
    with talker.http:
        session = talker.succeed("POST", body={})["session"]
        assert session["agent"] == {"name": "@agent", "provider": None, "model": None}
        for path in ("chat", "chat/stream"):
            answer = talker.ask("POST", f"/{session['session_id']}/{path}", {"message": "hello"})
            assert (answer.status_code, answer.json()["code"]) == (503, "PROVIDER_UNAVAILABLE")
            assert "homeport models add" in answer.json()["error"]
        assert talker.session(session["session_id"])["agent"]["model"] is None


@pytest.mark.long
def test_any_process_goes_on_with_a_session_also_after_a_restart(servers: Servers) -> None:
    first = servers.start("pair")
    key = {"x-api-key": first.first_key or ""}
    with Talker(first, key).http as http:
        http.post("/admin/v1/agents", json={"display_name": "Echo", "slug": "echo", "model": "echo"}).raise_for_status()
    talkers = [Talker(first, key, "echo"), Talker(servers.start("pair"), key, "echo")]
    session_id = talkers[0].begin()
    for count, talker in enumerate([talkers[0], talkers[1], talkers[0]], 1):
        assert talker.chat(session_id, f"message {count}")["message_count"] == 2 * count
    assert first.stop() == 0
    again = Talker(servers.start("pair"), key)
    with again.http:
        assert again.chat(session_id, "message 4") | {"id": ""} == {
            "id": "",
            "session_id": session_id,
            "text": "You said: message 4",
            "thoughts": [],
            "message_count": 8,
            "blocks": [],
        }
    assert talkers[1].frames(session_id, "message 5") == [{"type": "textResponse", "textResponse": "You said: message 5"}]
    for talker in talkers:
        talker.http.close()


def test_a_server_that_stops_tells_the_reader_of_a_stream_so(servers: Servers) -> None:
    server = servers.start("stopping", HOMEPORT_SHUTDOWN_S="0.5")
    talker = Talker(server, {"x-api-key": server.first_key or ""})
    with talker.http as http:
        http.post("/admin/v1/agents", json={"display_name": "Chatterbox", "model": "endless"}).raise_for_status()
        session_id = talker.begin(agent_name="chatterbox")
        with talker.streaming(session_id, "hello", stream_chunks=True) as answer:
            lines = (line for line in answer.iter_lines() if line)
            assert json.loads(next(lines).removeprefix("data: "))["type"] == "textResponseChunk"
            assert server.stop() == 0
            *_, last = lines
    error = json.loads(last.removeprefix("data: "))
    assert (error["type"], error["code"]) == ("error", "SERVER_STOPPING")
