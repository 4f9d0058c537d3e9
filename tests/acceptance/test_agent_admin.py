"""The administration of agents over HTTP: what they are made of, what they do, and with whom they talk."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from contract.upstream import RunningUpstream
from tests.acceptance.servers import TIMEOUT_S, Admin, Json, Server, eventually

WHOLE: Json = {
    "display_name": "Order Clerk",
    "slug": "@order-clerk",
    "description": "Takes orders",
    "hub_id": "hub-1",
    "instructions": "Take orders.",
    "provider": "openai",
    "model": "echo",
    "tools": ["homeport/search_vectors", "files/*"],
    "limits": {"turns": 2, "approval_s": 3600},
}
NOBODY = "00000000-0000-4000-8000-000000000000"


def refused(admin: Admin, method: str, path: str, body: Json | None = None) -> tuple[int, str]:
    """The status and the code of an answer that is an error."""
    answer = admin.http.request(method, f"/admin/v1{path}", json=body)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def talk(admin: Admin, path: str = "", **body: Any) -> httpx.Response:
    return admin.http.post(f"/sdk/agent/session{path}", json=body, timeout=TIMEOUT_S * 4)


def begin(admin: Admin, agent: str) -> str:
    session_id: str = talk(admin, agent_name=agent).json()["session"]["session_id"]
    return session_id


def test_an_agent_is_made_changed_and_removed(admin: Admin) -> None:
    made = admin.call("POST", "/agents", WHOLE)
    limits = {
        "turns": 2,
        "tokens": 200_000,
        "time_s": 600,
        "tool_time_s": 60,
        "approval_s": 3600,
        "result_chars": 20_000,
        "answer_tokens": None,
    }
    times = {name: made[name] for name in ("created_at", "updated_at")}
    assert made == WHOLE | {"limits": limits} | times
    assert refused(admin, "POST", "/agents", WHOLE) == (409, "slug-taken")
    assert admin.call("GET", "/agents/@order-clerk") == made
    assert made in admin.call("GET", "/agents?limit=200")["items"]

    changed = admin.call("PATCH", "/agents/@order-clerk", {"description": "Takes no orders", "limits": {"turns": None, "tokens": 10}})
    assert changed | {"updated_at": ""} == made | {
        "description": "Takes no orders",
        "limits": limits | {"turns": 16, "tokens": 10},
        "updated_at": "",
    }
    plain = admin.call("PATCH", "/agents/@order-clerk", {"hub_id": None, "provider": None, "model": None, "tools": []})
    assert "hub_id" not in plain
    assert (plain["provider"], plain["model"], plain["tools"]) == (None, None, [])

    assert admin.call("DELETE", "/agents/@order-clerk") == plain
    for method, body in (("GET", None), ("PATCH", {"tools": []}), ("DELETE", None)):
        assert refused(admin, method, "/agents/@order-clerk", body) == (404, "agent-not-found")
    assert refused(admin, "DELETE", "/agents/@agent") == (409, "conflict")


def test_pages_of_agents_follow_each_other(admin: Admin) -> None:
    for number in range(3):
        admin.call("POST", "/agents", {"display_name": f"Page {number}"})
    whole = admin.call("GET", "/agents?limit=200")["items"]
    paged: list[Json] = []
    cursor = ""
    while True:
        page = admin.call("GET", f"/agents?limit=2{cursor}")
        paged += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert paged == whole


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"display_name": ""},
        {"display_name": "x", "nickname": "x"},
        {"display_name": "x", "slug": "Not A Slug"},
        {"display_name": "x", "tools": ["files"]},
        {"display_name": "x", "limits": {"turns": 0}},
        {"display_name": "x", "limits": {"speed": 1}},
        {"display_name": "x", "instructions": "a\0b"},
    ],
    ids=["nothing", "no name", "unknown field", "no slug", "no tool", "too little", "unknown limit", "a null character"],
)
def test_what_an_agent_cannot_be_is_refused(admin: Admin, body: Json) -> None:
    assert refused(admin, "POST", "/agents", body) == (400, "validation-error")


def test_runs_and_sessions_are_found_by_what_they_are_about(server: Server, admin: Admin) -> None:
    for name in ("First", "Second"):
        admin.call("POST", "/agents", {"display_name": name, "slug": name.lower(), "model": "echo"})
    session_id = begin(admin, "first")
    answer = talk(admin, f"/{session_id}/chat", message="hello").json()["response"]
    (run,) = admin.call("GET", "/agent-runs?agent=first")["items"]
    assert (run["id"], run["session_id"], run["agent"], run["state"]) == (answer["id"], session_id, "first", "completed")
    assert (run["provider"], run["model"], run["turns"], run["tool_calls"]) == ("openai", "echo", 1, 0)
    assert "error" not in run
    assert admin.call("GET", f"/agent-runs?session_id={session_id}&state=completed")["items"] == [run]
    assert admin.call("GET", f"/agent-runs?session_id={session_id}&state=failed")["items"] == []
    assert admin.call("GET", "/agent-runs?agent=second")["items"] == []

    details = admin.call("GET", f"/agent-runs/{run['id']}")
    assert details["run"] == run
    assert [(each["role"], each["text"], each["tool_calls"]) for each in details["messages"]] == [
        ("user", "hello", []),
        ("assistant", "You said: hello", []),
    ]
    events = admin.call("GET", f"/events?subject={run['id']}")["items"]
    assert {event["subject"] for event in events} == {run["id"]}
    assert (events[-1]["kind"], events[0]["kind"]) == ("agent.run.started", "agent.run.completed")
    assert "hello" not in str(events)

    (session,) = admin.call("GET", "/agent-sessions?agent=first")["items"]
    assert (session["id"], session["state"], session["message_count"]) == (session_id, "open", 2)
    assert session in admin.call("GET", f"/agent-sessions?owner_id={session['owner_id']}&limit=200")["items"]
    assert admin.call("GET", f"/agent-sessions?owner_id={NOBODY}")["items"] == []
    admin.http.delete(f"/sdk/agent/session/{session_id}").raise_for_status()
    (session,) = admin.call("GET", "/agent-sessions?agent=first")["items"]
    assert session["state"] == "closed"


def test_a_run_is_cancelled_by_an_operator(admin: Admin, upstream: RunningUpstream) -> None:
    admin.call("POST", "/agents", {"display_name": "Slow", "slug": "slow", "model": "slow-60"})
    session_id = begin(admin, "slow")
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(talk, admin, f"/{session_id}/chat", message="hello")
        eventually(lambda: upstream.state.open, lambda count: count == 1)
        (run,) = admin.call("GET", f"/agent-runs?session_id={session_id}&state=running")["items"]
        cancelled = admin.call("POST", f"/agent-runs/{run['id']}/cancel")
        answer = asking.result(TIMEOUT_S)
    assert (cancelled["state"], cancelled["error_code"]) == ("cancelled", "RUN_CANCELLED")
    assert (answer.status_code, answer.json()["code"]) == (409, "RUN_CANCELLED")
    eventually(lambda: upstream.state.cancelled, lambda count: count == 1)
    assert admin.call("POST", f"/agent-runs/{run['id']}/cancel") == cancelled, "again changes nothing"
    assert refused(admin, "POST", f"/agent-runs/{NOBODY}/cancel") == (404, "run-not-found")
    assert refused(admin, "GET", f"/agent-runs/{NOBODY}") == (404, "run-not-found")


def test_an_agent_that_is_removed_ends_its_sessions_and_what_it_does(admin: Admin, upstream: RunningUpstream) -> None:
    admin.call("POST", "/agents", {"display_name": "Doomed", "slug": "doomed", "model": "slow-60"})
    busy, idle = begin(admin, "doomed"), begin(admin, "doomed")
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(talk, admin, f"/{busy}/chat", message="hello")
        eventually(lambda: upstream.state.open, lambda count: count == 1)
        admin.call("DELETE", "/agents/doomed")
        answer = asking.result(TIMEOUT_S)
    assert (answer.status_code, answer.json()["code"]) in [(409, "RUN_CANCELLED"), (404, "SESSION_NOT_FOUND")]
    eventually(lambda: upstream.state.cancelled, lambda count: count == 1)
    assert talk(admin, f"/{idle}/chat", message="hello").json()["code"] == "SESSION_NOT_FOUND"


def test_what_a_key_may_do_is_what_its_scopes_say(server: Server, admin: Admin) -> None:
    reader = Admin(server.url, admin.create_key("admin.agents.read")["key"])
    with reader.http:
        for path in ("/agents", "/agents/@agent", "/agent-runs", "/agent-sessions"):
            assert reader.http.get(f"/admin/v1{path}").status_code == 200
        assert refused(reader, "PATCH", "/agents/@agent", {"instructions": "Obey."}) == (403, "permission-denied")
        assert refused(reader, "POST", f"/agent-runs/{NOBODY}/cancel") == (403, "permission-denied")
