"""An agent that asks a person before it uses a tool: answered at the command line and over the admin surface."""

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from contract.upstream import RunningUpstream
from tests.acceptance.conftest import provider_settings
from tests.acceptance.servers import eventually
from tests.acceptance.test_cli_commands import listed, refusal, run
from tests.acceptance.test_cli_serve import ANSWER_TIMEOUT_S, PROCESS_TIMEOUT_S, Server, serving

FIELDS = {
    "id", "run_id", "owner_id", "app_id", "app_slug", "agent", "server", "tool", "tool_call_id", "arguments", "is_cut", "permission",
    "state", "decided_by", "requested_at", "expires_at", "decided_at", "used_at",
}  # fmt: skip

APP_ID = "6f0c1a52-7d3e-4b8f-9a1c-2e5d7f8a9b0c"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, running_upstream: RunningUpstream) -> Iterator[Server]:
    """A server that runs beside the commands, with the stand-in as its model provider."""
    folder = tmp_path_factory.mktemp("approvals")
    with serving(folder / "data", folder / "errors", **provider_settings(running_upstream)) as running:
        assert running.get("/health").status_code == 200
        admin(running, "POST", "/agents", {"display_name": "Clerk", "slug": "clerk", "model": "script", "tools": ["homeport/*"]})
        run(running, "apps", "register", "Order Desk", "--id", APP_ID, "--quiet")
        run(running, "apps", "grant", "order-desk", "agent.chat")
        yield running


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def admin(server: Server, method: str, path: str, body: Any = None, status: int = 200) -> dict[str, Any]:
    """Ask the admin surface."""
    answer = httpx.request(
        method,
        f"{server.url}/admin/v1{path}",
        json=body,
        headers={"x-api-key": server.first_key},
        timeout=ANSWER_TIMEOUT_S,
        trust_env=False,
    )
    assert answer.status_code == status or (status == 200 and answer.status_code == 201), answer.text
    result: dict[str, Any] = answer.json()
    return result


def talk(server: Server, path: str) -> str:
    """As the app, have the agent write a file; returns what it says in the end."""
    steps = [{"call": [{"tool": "write_file", "arguments": {"path": path, "content": "Call Ada."}}]}, {"say": "It says: {results}"}]
    # Several commands are started one after the other while this waits.
    with httpx.Client(base_url=server.url, headers={"x-app-id": APP_ID}, timeout=2 * PROCESS_TIMEOUT_S, trust_env=False) as http:
        session = http.post("/sdk/agent/session", json={"agent_name": "clerk"}).json()["session"]["session_id"]
        answer = http.post(f"/sdk/agent/session/{session}/chat", json={"message": f"script: {json.dumps(steps)}"})
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["response"]["text"]
    return text


def asked(server: Server, threads: ThreadPoolExecutor, path: str) -> tuple[Future[str], dict[str, Any]]:
    """Begin such a talk; returns it with the approval that it waits for."""
    talking = threads.submit(talk, server, path)

    def pending() -> list[dict[str, Any]]:
        # What went wrong before anything was asked is told, and not waited for.
        if talking.done():
            talking.result()
        items: list[dict[str, Any]] = admin(server, "GET", "/approvals?state=pending")["items"]
        return items

    (approval,) = eventually(pending, timeout_s=ANSWER_TIMEOUT_S)
    return talking, approval


def test_without_questions_the_list_says_where_earlier_ones_are(server: Server) -> None:
    assert "homeport approvals list --all" in run(server, "approvals", "list")
    assert listed(server, "approvals", "list") == []
    assert "There is no approval with the id 'abc'" in refusal(server, "approvals", "show", "abc")
    assert "There is no approval" in refusal(server, "approvals", "grant", "00000000-0000-4000-8000-000000000000")


def test_a_question_is_looked_at_and_granted_once(server: Server, threads: ThreadPoolExecutor) -> None:
    talking, approval = asked(server, threads, "once.md")
    short = approval["id"][:8]
    table = run(server, "approvals", "list")
    for shown in (short, "order-desk", "clerk", "homeport/write_file", "once.md", "pending", f"homeport approvals grant {short}"):
        assert shown in table
    (item,) = listed(server, "approvals", "list")
    assert set(item) == FIELDS
    details = run(server, "approvals", "show", short)
    for shown in ("The agent 'clerk' asks to use homeport/write_file", "agent.files", '"content":"Call Ada."', "used        never"):
        assert shown in details
    assert run(server, "approvals", "grant", short) == "The agent 'clerk' may use homeport/write_file this once.\n"
    assert talking.result(ANSWER_TIMEOUT_S).startswith("It says: Wrote once.md")
    (found,) = [each for each in listed(server, "approvals", "list", "--all") if each["id"] == approval["id"]]
    assert (found["state"], found["decided_by"]) == ("granted", "cli")
    assert found["used_at"]
    assert "already granted" in refusal(server, "approvals", "deny", short)


def test_a_question_is_denied_and_the_agent_goes_on(server: Server, threads: ThreadPoolExecutor) -> None:
    talking, approval = asked(server, threads, "denied.md")
    assert run(server, "approvals", "deny", approval["id"]) == "The agent 'clerk' may not use homeport/write_file this time.\n"
    said = talking.result(ANSWER_TIMEOUT_S)
    assert said.startswith("It says: ")
    assert "Wrote" not in said


def test_over_the_admin_surface_a_question_is_read_and_answered(server: Server, threads: ThreadPoolExecutor) -> None:
    talking, approval = asked(server, threads, "admin.md")
    path = f"/approvals/{approval['id']}"
    assert admin(server, "GET", path) == approval
    assert (approval["app_slug"], approval["server"], approval["tool"]) == ("order-desk", "homeport", "write_file")
    assert json.loads(approval["arguments"]) == {"path": "admin.md", "content": "Call Ada."}
    decided = admin(server, "POST", f"{path}/decision", {"decision": "granted"})
    assert decided["state"] == "granted"
    assert decided["decided_by"].startswith("key:")
    assert talking.result(ANSWER_TIMEOUT_S).startswith("It says: Wrote admin.md")
    assert admin(server, "POST", f"{path}/decision", {"decision": "granted"})["state"] == "granted"
    assert admin(server, "POST", f"{path}/decision", {"decision": "denied"}, 409)["code"] == "conflict"
    assert admin(server, "POST", f"{path}/decision", {"decision": "perhaps"}, 400)["status"] == 400
    assert admin(server, "GET", "/approvals/00000000-0000-4000-8000-000000000000", status=404)["status"] == 404
    assert approval["id"] in [each["id"] for each in admin(server, "GET", "/approvals?state=granted")["items"]]


def test_what_is_remembered_is_not_asked_again(server: Server, threads: ThreadPoolExecutor) -> None:
    talking, approval = asked(server, threads, "remembered.md")
    told = run(server, "approvals", "grant", approval["id"], "--remember")
    assert told == "The agent 'clerk' may use homeport/write_file.\n'order-desk' may now do: agent.files.\n"
    assert talking.result(ANSWER_TIMEOUT_S).startswith("It says: Wrote remembered.md")
    assert talk(server, "again.md").startswith("It says: Wrote again.md")
    assert "agent.files" in run(server, "apps", "show", "order-desk")
    run(server, "apps", "reset", "order-desk", "agent.files")


def test_the_permission_that_is_granted_meanwhile_answers_the_question(server: Server, threads: ThreadPoolExecutor) -> None:
    talking, approval = asked(server, threads, "meanwhile.md")
    run(server, "apps", "grant", "order-desk", approval["permission"])
    assert talking.result(ANSWER_TIMEOUT_S).startswith("It says: Wrote meanwhile.md")
    run(server, "apps", "reset", "order-desk", "agent.files")


def test_the_tools_that_are_built_in_are_listed(server: Server) -> None:
    assert "homeport/write_file" in run(server, "tools", "builtin")
    assert "fetch_url" in [tool["name"] for tool in listed(server, "tools", "builtin")]


def test_rules_can_be_made_about_built_in_tools(server: Server) -> None:
    run(server, "tools", "deny", "agent:clerk", "homeport/fetch_url")
    run(server, "tools", "ask", "everybody", "homeport/*")
    rules = {(rule["subject"], rule["server"], rule["tool"], rule["decision"]) for rule in listed(server, "tools", "rules")}
    assert rules == {("agent:clerk", "homeport", "fetch_url", "deny"), ("everybody", "homeport", "", "ask")}
    run(server, "tools", "forget", "everybody")
    run(server, "tools", "forget", "agent:clerk")
    assert "built in" in refusal(server, "mcp", "add", "homeport", "--", "true")
    answer = httpx.get(f"{server.url}/sdk/mcp/servers", headers={"x-api-key": server.first_key}, timeout=ANSWER_TIMEOUT_S, trust_env=False)
    assert answer.json()["servers"] == []
