"""``homeport agents`` beside a running server: agents are made and changed, and what they do is looked at and cancelled."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.upstream import RunningUpstream
from tests.acceptance.conftest import provider_settings
from tests.acceptance.servers import eventually
from tests.acceptance.test_cli_commands import listed, refusal, run
from tests.acceptance.test_cli_serve import ANSWER_TIMEOUT_S, Server, serving

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, running_upstream: RunningUpstream) -> Iterator[Server]:
    """A server that runs beside the commands, with the stand-in as its model provider."""
    folder = tmp_path_factory.mktemp("agents")
    with serving(folder / "data", folder / "errors", **provider_settings(running_upstream)) as running:
        assert running.get("/health").status_code == 200
        yield running


def shown(server: Server, slug: str) -> dict[str, Any]:
    """An agent, read from the command's JSON."""
    found: dict[str, Any] = json.loads(run(server, "agents", "show", slug, "--json"))
    return found


def call(server: Server, path: str, **body: Any) -> dict[str, Any]:
    """Ask the server as a developer; the answer must be a success."""
    answer = httpx.post(
        f"{server.url}{path}", json=body, headers={"x-api-key": server.first_key or ""}, timeout=ANSWER_TIMEOUT_S, trust_env=False
    )
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def begin(server: Server, agent: str) -> str:
    """Begin a conversation; returns its id."""
    session_id: str = call(server, "/sdk/agent/session", agent_name=agent)["session"]["session_id"]
    return session_id


def test_an_agent_is_made_shown_changed_and_removed(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "instructions.md"
    file.write_text("You file notes.\nSearch first.\n", encoding="utf-8")
    made = run(
        server,
        *("agents", "create", "Note Keeper", "--description", "Files notes", "--instructions", f"@{file}", "--model", "echo"),
        *("--tool", "homeport/search_vectors", "--tool", "files/*", "--limit", "turns=8", "--limit", "time_s=1.5"),
    )
    assert made == "Created the agent 'note-keeper'. Show it: homeport agents show note-keeper\n"
    found = shown(server, "note-keeper")
    assert (found["instructions"], found["provider"], found["model"]) == ("You file notes.\nSearch first.\n", None, "echo")
    assert found["tools"] == ["homeport/search_vectors", "files/*"]
    assert (found["limits"]["turns"], found["limits"]["time_s"], found["limits"]["tokens"]) == (8, 1.5, 200_000)
    text = run(server, "agents", "show", "note-keeper")
    assert "Files notes" in text
    assert "turns=8 tokens=200000 time_s=1.5" in text
    assert text.endswith("You file notes.\nSearch first.\n")
    assert "note-keeper" in [each["slug"] for each in listed(server, "agents", "list")]

    run(
        server,
        "agents",
        "update",
        "note-keeper",
        "--name",
        "Keeper",
        "--model",
        "",
        "--no-tools",
        "--limit",
        "turns=",
        "--limit",
        "tokens=9",
    )
    found = shown(server, "note-keeper")
    assert (found["display_name"], found["description"], found["model"], found["tools"]) == ("Keeper", "Files notes", None, [])
    assert (found["limits"]["turns"], found["limits"]["time_s"], found["limits"]["tokens"]) == (16, 1.5, 9)
    assert call(server, "/sdk/agent/session", agent_name="note-keeper")["session"]["agent"]["name"] == "note-keeper"

    assert run(server, "agents", "remove", "note-keeper") == "Removed the agent 'note-keeper'.\n"
    assert "There is no agent 'note-keeper'" in refusal(server, "agents", "show", "note-keeper")


def test_the_default_agent_can_be_changed_but_not_removed(server: Server) -> None:
    run(server, "agents", "update", "@agent", "--instructions", "Be brief.")
    assert shown(server, "@agent")["instructions"] == "Be brief."
    assert "cannot be removed" in refusal(server, "agents", "remove", "@agent")
    run(server, "agents", "update", "@agent", "--instructions", "")


def test_what_is_wrong_is_said_and_nothing_changes(server: Server, tmp_path: Path) -> None:
    before = shown(server, "@agent")
    assert "'files' names no tool" in refusal(server, "agents", "update", "@agent", "--tool", "files")
    assert "must be a whole number from 1 to 200" in refusal(server, "agents", "update", "@agent", "--limit", "turns=1000")
    assert "There is no limit 'speed'" in refusal(server, "agents", "update", "@agent", "--limit", "speed=1")
    assert "not NAME=NUMBER" in refusal(server, "agents", "update", "@agent", "--limit", "turns=many", status=2)
    assert "say what to change" in refusal(server, "agents", "update", "@agent", status=2)
    assert "either --tool or --no-tools" in refusal(server, "agents", "update", "@agent", "--tool", "a/b", "--no-tools", status=2)
    missing = tmp_path / "missing"
    assert f"{missing} cannot be used" in refusal(server, "agents", "update", "@agent", "--instructions", f"@{missing}")
    assert shown(server, "@agent") == before


def test_a_run_is_listed_and_shown_with_what_was_said_and_done(server: Server) -> None:
    run(server, "agents", "create", "Talker", "--model", "echo")
    session_id = begin(server, "talker")
    answer = call(server, f"/sdk/agent/session/{session_id}/chat", message="hello\nthere")["response"]
    (item,) = listed(server, "agents", "runs", "--agent", "talker")
    assert (item["id"], item["session_id"], item["state"], item["turns"]) == (answer["id"], session_id, "completed", 1)
    assert listed(server, "agents", "runs", "--agent", "talker", "--state", "failed") == []
    assert answer["id"] in run(server, "agents", "runs")

    text = run(server, "agents", "run", answer["id"])
    assert text.startswith(f"Run {answer['id']} of talker: completed\n")
    assert text.index("user:\n  hello\n  there\n") < text.index("agent:\n  You said: hello\n")
    assert text.index("agent.run.started") < text.index("agent.model.answered") < text.index("agent.run.completed")
    whole = json.loads(run(server, "agents", "run", answer["id"], "--json"))
    assert [each["role"] for each in whole["messages"]] == ["user", "assistant"]
    events = [each["kind"] for each in listed(server, "events", "--subject", answer["id"])]
    assert [each["kind"] for each in whole["events"]] == events
    assert (events[0], events[-1]) == ("agent.run.started", "agent.run.completed")


def test_a_run_is_cancelled_in_the_server_that_carries_it_out(server: Server, upstream: RunningUpstream) -> None:
    run(server, "agents", "create", "Stuck", "--model", "slow-60")
    session_id = begin(server, "stuck")
    with ThreadPoolExecutor(1) as threads:
        path = f"{server.url}/sdk/agent/session/{session_id}/chat"
        headers = {"x-api-key": server.first_key or ""}
        asking = threads.submit(httpx.post, path, json={"message": "hello"}, headers=headers, timeout=30, trust_env=False)
        eventually(lambda: upstream.state.open, lambda count: count == 1)
        (item,) = listed(server, "agents", "runs", "--state", "running", "--agent", "stuck")
        assert run(server, "agents", "cancel", item["id"]) == "The run is cancelled.\n"
        answer = asking.result(30)
    assert (answer.status_code, answer.json()["code"]) == (409, "RUN_CANCELLED")
    eventually(lambda: upstream.state.cancelled, lambda count: count == 1)
    assert run(server, "agents", "cancel", item["id"]) == "The run is cancelled.\n", "again changes nothing"
    assert "The run was cancelled." in run(server, "agents", "run", item["id"])


def test_a_run_that_is_not_there_is_told(server: Server) -> None:
    assert "There is no such run" in refusal(server, "agents", "run", NOBODY)
    assert "There is no such run" in refusal(server, "agents", "cancel", "nonsense")
