"""``homeport tasks``, beside a running server that does what they say."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.servers import eventually
from tests.acceptance.test_cli_commands import refusal, run
from tests.acceptance.test_cli_serve import ANSWER_TIMEOUT_S, Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs beside the commands. It has no model."""
    folder = tmp_path_factory.mktemp("tasks")
    with serving(folder / "data", folder / "errors") as running:
        assert running.get("/health").status_code == 200
        yield running


@pytest.fixture(scope="module")
def app_id(server: Server) -> str:
    app_id = run(server, "apps", "register", "Order Desk", "--quiet").strip()
    run(server, "apps", "grant", "order-desk", "webhook.trigger")
    return app_id


def waiting(server: Server, app_id: str) -> str:
    """The id of a new task that waits for a person."""
    body = {"event": "task.trigger", "payload": {"raw_data": {"n": 1}, "prompt": "Process this order"}}
    answer = httpx.post(
        f"{server.url}/webhooks/realtimex", json=body, headers={"x-app-id": app_id}, timeout=ANSWER_TIMEOUT_S, trust_env=False
    )
    task_id: str = answer.json()["task_uuid"]
    return task_id


def test_a_task_is_listed_run_and_shown(server: Server, app_id: str) -> None:
    task_id = waiting(server, app_id)
    listing = run(server, "tasks", "list", "--status", "pending", "--app", "order-desk")
    assert task_id in listing
    assert "[Order Desk] Process this order" in listing
    assert "as soon as one is free" in run(server, "tasks", "run", task_id, "--agent", "@agent")
    shown = eventually(
        lambda: json.loads(run(server, "tasks", "show", task_id, "--json")), lambda task: task["status"] == "failed", ANSWER_TIMEOUT_S
    )
    assert [each["attempt_id"] for each in shown["runs"]] == ["run-1"]
    assert "No model provider is configured" in run(server, "tasks", "show", task_id)
    assert run(server, "tasks", "list", "--status", "completed") == "There are no such tasks.\n"


def test_a_task_is_cancelled_with_a_reason(server: Server, app_id: str) -> None:
    task_id = waiting(server, app_id)
    assert run(server, "tasks", "cancel", task_id, "--reason", "not needed") == "Cancelled [Order Desk] Process this order.\n"
    assert "not needed" in run(server, "tasks", "show", task_id)
    assert "This task is canceled, and cannot become pending from there." in refusal(server, "tasks", "run", task_id)


def test_what_is_no_task_is_said(server: Server) -> None:
    assert "There is no such task." in refusal(server, "tasks", "show", "nothing")
    assert "choose one of pending" in refusal(server, "tasks", "list", "--status", "done", status=2)
