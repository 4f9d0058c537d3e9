"""Two servers behind a plain nginx, configured as docs/scaling.md says: what a balancer could break, and what one of the processes would
have to know of the other. `make scale` runs all the other tests in the same place.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from typing import Any

import httpx
import pytest
from realtimex_sdk import ChatMessage, ChatOptions, RealtimeXSDK, SDKConfig  # type: ignore[import-untyped]

from contract.upstream import RunningUpstream
from tests.acceptance.conftest import provider_settings
from tests.acceptance.servers import KEY, PROCESS_TIMEOUT_S, Admin, Balanced, Json, Server, Servers, eventually, memory_folder
from tests.acceptance.test_mcp_server import Mode, both_generations, connected, succeed

NAME = "homeport.example"
MAX_BODY_BYTES = 32 * 1024 * 1024
MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def balanced(running_upstream: RunningUpstream) -> Iterator[Balanced]:
    """Two servers that were started at the same moment, and nginx before them."""
    settings = provider_settings(running_upstream) | {"HOMEPORT_PERMISSION_WAIT_S": "20", "HOMEPORT_ALLOWED_HOSTS": NAME}
    with memory_folder() as folder, Servers(folder, **settings) as servers:
        yield servers.start_behind_nginx("balanced", 2)


@pytest.fixture(scope="module")
def admin(balanced: Balanced) -> Iterator[Admin]:
    """The administrator, behind nginx."""
    admin = Admin(balanced.url, balanced.first_key or "")
    with admin.http:
        yield admin


def direct(server: Server, admin: Admin) -> httpx.Client:
    """The administrator at one of the servers itself."""
    return httpx.Client(base_url=server.own_url, headers={"x-api-key": admin.key}, timeout=PROCESS_TIMEOUT_S, trust_env=False)


def process_of(answer: httpx.Response) -> str:
    """The process that gave an answer: the first half of an id that it gives."""
    return answer.headers["x-request-id"][:16]


def test_requests_are_spread_over_the_processes_which_share_one_state(balanced: Balanced, admin: Admin) -> None:
    told = "\n".join(line for each in (balanced, *balanced.others) for line in each.lines)
    assert len(KEY.findall(told)) == 1, "the first key is made once, by one of them"
    app_id = admin.register("Spread", granted=("activities.read", "activities.write"))
    headers = {"x-app-id": app_id}
    made = [admin.http.post("/activities", json={"raw_data": {"n": n}}, headers=headers) for n in range(6)]
    assert {answer.status_code for answer in made} == {201}
    assert len({process_of(answer) for answer in made}) == 2
    lists = [admin.http.get("/activities", headers=headers) for _ in range(2)]
    assert len({process_of(answer) for answer in lists}) == 2
    assert len({each["id"] for answer in lists for each in answer.json()["data"]}) == 6


def test_a_stream_arrives_as_it_is_made_and_who_leaves_ends_it(admin: Admin, upstream: RunningUpstream) -> None:
    # Its first piece is a few hundred bytes, which a proxy that collects would keep; the second comes after a minute.
    body = {"messages": MESSAGES, "model": "stall"}
    with admin.http.stream("POST", "/sdk/llm/chat/stream", json=body, timeout=PROCESS_TIMEOUT_S) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        pieces = answer.iter_raw()
        assert b"data: " in next(pieces)
        assert upstream.state.open == 1
    eventually(lambda: upstream.state.cancelled, lambda number: number == 1)


@both_generations
def test_a_client_of_the_model_context_protocol_needs_no_sticky_session(balanced: Balanced, admin: Admin, mode: Mode, version: str) -> None:
    async def talk() -> None:
        async with connected(balanced, {"Authorization": f"Bearer {admin.key}"}, mode) as client:
            made = [(await succeed(client, "create_activity", raw_data={"n": n}))["data"]["id"] for n in range(4)]
            listed = (await succeed(client, "list_activities"))["data"]
            assert [each["id"] for each in listed[:4]] == made[::-1]

    asyncio.run(talk())


def test_an_app_is_asked_for_through_one_process_and_decided_through_the_next(balanced: Balanced, admin: Admin) -> None:
    app_id = admin.register("Newcomer")
    with ThreadPoolExecutor(1) as threads:
        client = RealtimeXSDK(SDKConfig(url=balanced.url, app_id=app_id, app_name="Newcomer"))
        chat = client.llm.chat([ChatMessage("user", "hello")], ChatOptions(model="echo"))
        asking = threads.submit(asyncio.run, chat)
        admin.decide(app_id, {"llm.chat": "granted"})
        assert asking.result(PROCESS_TIMEOUT_S).content == "You said: hello"


@pytest.fixture
def talk(balanced: Balanced, admin: Admin) -> Iterator[Callable[[Server, str, str], Any]]:
    """Has an app talk with a new agent through one of the servers itself; what it gives is a future of the answer."""
    headers = {"x-app-id": admin.register("Talker", granted=("agent.chat",))}
    with ExitStack() as clients, ThreadPoolExecutor(1) as threads:

        def begin(server: Server, agent: str, message: str) -> Any:
            client = httpx.Client(base_url=server.own_url, headers=headers, timeout=PROCESS_TIMEOUT_S, trust_env=False)
            http = clients.enter_context(client)
            session = http.post("/sdk/agent/session", json={"agent_name": agent}).json()["session"]["session_id"]
            return threads.submit(http.post, f"/sdk/agent/session/{session}/chat", json={"message": message})

        yield begin


def test_a_run_is_cancelled_through_the_process_that_does_not_carry_it_out(
    balanced: Balanced, admin: Admin, upstream: RunningUpstream, talk: Callable[[Server, str, str], Any]
) -> None:
    admin.call("POST", "/agents", {"display_name": "Slow", "slug": "slow", "model": "slow-60"})
    talking = talk(balanced.others[0], "slow", "hello")
    eventually(lambda: upstream.state.open, lambda number: number == 1)
    (run,) = admin.call("GET", "/agent-runs?agent=slow&state=running")["items"]
    with direct(balanced, admin) as first:
        assert first.post(f"/admin/v1/agent-runs/{run['id']}/cancel").json()["state"] == "cancelled"
    answer = talking.result(PROCESS_TIMEOUT_S)
    assert (answer.status_code, answer.json()["code"]) == (409, "RUN_CANCELLED")
    eventually(lambda: upstream.state.cancelled, lambda number: number == 1)


def test_an_agents_question_is_answered_through_the_other_process_and_its_file_is_seen_by_both(
    balanced: Balanced, admin: Admin, talk: Callable[[Server, str, str], Any]
) -> None:
    admin.call("POST", "/agents", {"display_name": "Clerk", "slug": "clerk", "model": "script", "tools": ["homeport/*"]})
    write = {"call": [{"tool": "write_file", "arguments": {"path": "note.md", "content": "Call Ada."}}]}
    talking = talk(balanced.others[0], "clerk", f"script: {json.dumps([write, {'say': '{results}'}])}")
    (approval,) = eventually(lambda: admin.call("GET", "/approvals?state=pending")["items"])
    with direct(balanced, admin) as first:
        decided = first.post(f"/admin/v1/approvals/{approval['id']}/decision", json={"decision": "granted", "remember": True})
    assert decided.status_code == 200, decided.text
    assert talking.result(PROCESS_TIMEOUT_S).json()["response"]["text"].startswith("Wrote note.md")
    read = {"call": [{"tool": "read_file", "arguments": {"path": "note.md"}}]}
    told = talk(balanced, "clerk", f"script: {json.dumps([read, {'say': '{results}'}])}").result(PROCESS_TIMEOUT_S)
    assert "Call Ada." in told.json()["response"]["text"]


def test_the_name_is_the_one_that_the_client_said_whatever_else_it_claims(admin: Admin) -> None:
    claims: dict[str, str] = {"X-Forwarded-Host": NAME, "Forwarded": f"for=127.0.0.1;host={NAME}", "X-Forwarded-For": "127.0.0.1"}
    for host, status in ((NAME, 200), (f"{NAME}:443", 200), ("other.example", 421)):
        answer = admin.http.get("/sdk/ping", headers=claims | {"Host": host})
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("header", "body"), [(("Content-Length", "2"), b"{}"), (("Transfer-Encoding", "chunked"), b"2\r\n{}\r\n0\r\n\r\n")]
)
def test_a_refusal_that_comes_before_a_small_body_leaves_the_connection_open(
    balanced: Balanced, header: tuple[str, str], body: bytes
) -> None:
    with closing(HTTPConnection("127.0.0.1", balanced.nginx_port, timeout=PROCESS_TIMEOUT_S)) as connection:
        for _ in range(3):
            connection.putrequest("POST", "/activities")
            connection.putheader(*header)
            connection.endheaders()
            time.sleep(0.1)
            connection.send(body)
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("Connection")) == (401, "keep-alive")
            answer.read()


def test_bounds_are_those_of_homeport(admin: Admin) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 2**20 + 1):
            yield b" " * 2**20

    contents: tuple[Any, ...] = (b" " * (MAX_BODY_BYTES + 1), body())
    for content in contents:
        answer = admin.http.post("/activities", content=content, headers={"Content-Type": "application/json"}, timeout=PROCESS_TIMEOUT_S)
        assert (answer.status_code, answer.json()["code"]) == (413, "PAYLOAD_TOO_LARGE")
    large: Json = {"raw_data": {"text": "x" * (8 * 2**20)}}
    assert admin.http.post("/activities", json=large, timeout=PROCESS_TIMEOUT_S).status_code == 201


def test_when_one_process_is_killed_its_clients_notice_nothing(balanced: Balanced, admin: Admin) -> None:
    """The last test: one of the two is gone afterwards."""
    app_id = admin.register("Survivor", granted=("activities.write",))
    balanced.others[0].kill()
    with httpx.Client(base_url=balanced.url, headers={"x-app-id": app_id}, timeout=PROCESS_TIMEOUT_S, trust_env=False) as http:
        answers = [http.post("/activities", json={"raw_data": {"n": n}}) for n in range(8)]
    assert {answer.status_code for answer in answers} == {201}
    assert len({process_of(answer) for answer in answers}) == 1
