"""The other commands, beside a running server and without one."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.upstream import serve_in_thread
from tests.acceptance.commands import homeport
from tests.acceptance.test_cli_serve import ANSWER_TIMEOUT_S, Server, serving

KEY_FIELDS = {"id", "name", "prefix", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at"}
APP_FIELDS = {"id", "slug", "name", "description", "kind", "permissions", "requires_user", "launch", "process", "created_at", "updated_at"}
SECOND_LIMITS = {"provider": "second", "model": None, "timeout_s": 9.0, "retries": 0, "concurrency": 2}
REQUEST_FIELDS = {"id", "app_id", "app_slug", "app_name", "permission", "state", "requested_at", "decided_at"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs beside the commands."""
    folder = tmp_path_factory.mktemp("home")
    with serving(folder / "data", folder / "errors", HOMEPORT_PERMISSION_WAIT_S="60") as running:
        assert running.get("/health").status_code == 200
        yield running


def run(server: Server, *arguments: str, stdin: str = "", **settings: str) -> str:
    """Run a command that must succeed; returns what it prints."""
    ended = homeport(server.data_dir, *arguments, stdin=stdin, **settings)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    return ended.stdout


def listed(server: Server, *arguments: str) -> list[dict[str, Any]]:
    """The items of a list, read from its JSON."""
    items: list[dict[str, Any]] = json.loads(run(server, *arguments, "--json"))
    assert isinstance(items, list)
    return items


def refusal(server: Server, *arguments: str, status: int = 1) -> str:
    """Run a command that must fail, with a message and no traceback."""
    ended = homeport(server.data_dir, *arguments)
    assert ended.returncode == status, ended.stdout
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.stderr


def chat(server: Server) -> dict[str, Any]:
    """Say hello to the default."""
    answer = httpx.post(
        f"{server.url}/sdk/llm/chat",
        json={"messages": [{"role": "user", "content": "hello"}]},
        headers={"x-api-key": server.first_key},
        timeout=ANSWER_TIMEOUT_S,
        trust_env=False,
    )
    response: dict[str, Any] = answer.json()["response"]
    return response


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds."""
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        threading.Event().wait(0.05)


def test_a_key_made_quietly_opens_the_running_server_until_it_is_revoked(server: Server) -> None:
    key = run(server, "keys", "create", "laptop", "--quiet").strip()
    assert "\n" not in key
    assert server.get("/sdk/ping", key).status_code == 200
    item = next(each for each in listed(server, "keys", "list") if each["name"] == "laptop")
    assert set(item) == KEY_FIELDS
    assert key.startswith(item["prefix"])
    assert item["scopes"] == ["*"]
    assert item["expires_at"] is None

    said = run(server, "keys", "revoke", item["prefix"])
    assert "laptop" in said
    assert server.get("/sdk/ping", key).status_code == 401
    assert "revoked" in next(line for line in run(server, "keys", "list").splitlines() if line.startswith("laptop"))


def test_a_key_can_be_narrow_and_short_lived(server: Server) -> None:
    said = run(server, "keys", "create", "reader", "--scope", "activities.*", "--scope", "api.agents", "--expires", "30d")
    key = next(line.strip() for line in said.splitlines() if line.startswith("  hp_local_"))
    item = next(each for each in listed(server, "keys", "list") if each["name"] == "reader")
    assert item["scopes"] == ["activities.*", "api.agents"]
    left = datetime.fromisoformat(item["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < left <= timedelta(days=30)
    assert server.get("/activities", key).status_code == 200
    assert server.get("/workspaces", key).status_code == 403


def test_wrong_arguments_are_refused_in_a_sentence(server: Server) -> None:
    assert "30d" in refusal(server, "keys", "create", "x", "--expires", "soon", status=2)
    assert "has passed" in refusal(server, "keys", "create", "x", "--expires", "2020-01-01")
    assert "homeport keys list" in refusal(server, "keys", "revoke", "hp_local_nobody")
    assert "homeport apps list" in refusal(server, "apps", "grant", "nobody", "llm.chat")
    assert "NO SUCH" in refusal(server, "apps", "register", "x", "--permission", "NO SUCH")
    assert "homeport workspaces list" in refusal(server, "threads", "list", "nowhere")
    assert "default" in refusal(server, "workspaces", "remove", "default")


def test_granting_on_the_command_line_releases_an_app_that_waits(server: Server) -> None:
    app_id = run(server, "apps", "register", "Waiting App", "--slug", "waiter", "--quiet").strip()
    body = {"app_id": app_id, "app_name": "I am\x1b[31m red", "permissions": ["llm.chat", "activities.read"]}
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(httpx.post, f"{server.url}/sdk/register", json=body, timeout=60, trust_env=False)
        wait_for(lambda: len(server.get("/admin/v1/permission-requests?state=pending", server.first_key).json()["items"]) == 2)
        pending = listed(server, "apps", "requests")
        assert {(each["app_slug"], each["permission"]) for each in pending} == {("waiter", "llm.chat"), ("waiter", "activities.read")}
        assert all(set(each) == REQUEST_FIELDS for each in pending)
        said = run(server, "apps", "requests")
        assert "  homeport apps grant waiter llm.chat activities.read" in said
        assert "\x1b" not in said

        assert "had asked for llm.chat" in run(server, "apps", "grant", "waiter", "llm.chat")
        run(server, "apps", "deny", app_id, "activities.read")
        permissions = answer.result(ANSWER_TIMEOUT_S).json()["permissions"]
    assert permissions == {"granted": ["llm.chat"], "denied": ["activities.read"]}
    assert listed(server, "apps", "requests") == []
    assert "homeport apps requests --all" in run(server, "apps", "requests")
    assert {each["state"] for each in listed(server, "apps", "requests", "--all")} == {"granted", "denied"}


def test_an_app_is_registered_shown_changed_and_removed(server: Server) -> None:
    wanted = "6f1b2c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d"
    arguments = [
        "--id",
        wanted,
        "--description",
        "Reads.",
        "--permission",
        "llm.chat",
        "--permission",
        "activities.read",
        "--requires-user",
    ]
    said = run(server, "apps", "register", "Reading App", *arguments)
    assert f"RTX_APP_ID={wanted}" in said
    assert "homeport apps grant reading-app llm.chat activities.read" in said
    item = next(each for each in listed(server, "apps", "list") if each["id"] == wanted)
    assert set(item) == APP_FIELDS
    assert (item["slug"], item["permissions"], item["requires_user"]) == ("reading-app", ["llm.chat", "activities.read"], True)
    agents = {"url": f"{server.url}/agents", "headers": {"X-App-Id": wanted}, "timeout": ANSWER_TIMEOUT_S, "trust_env": False}

    assert httpx.get(**agents).json()["code"] == "PERMISSION_REQUIRED"
    run(server, "apps", "grant", "reading-app", "api.agents", "llm.chat")
    assert httpx.get(**agents).status_code == 200
    run(server, "apps", "deny", "reading-app", "api.agents")
    assert httpx.get(**agents).json()["code"] == "PERMISSION_DENIED"
    shown = json.loads(run(server, "apps", "show", "reading-app", "--json"))
    assert set(shown) == APP_FIELDS | {"grants", "requests"}
    assert {each["permission"]: each["state"] for each in shown["grants"]} == {"api.agents": "denied", "llm.chat": "granted"}
    run(server, "apps", "reset", "reading-app", "api.agents")
    assert httpx.get(**agents).json()["code"] == "PERMISSION_REQUIRED"
    run(server, "apps", "reset", "reading-app")
    assert json.loads(run(server, "apps", "show", wanted, "--json"))["grants"] == []
    assert "Nothing is granted" in run(server, "apps", "show", "reading-app")

    assert "--yes" in refusal(server, "apps", "remove", "reading-app")
    run(server, "apps", "remove", "reading-app", "--yes")
    assert httpx.get(**agents).status_code == 401


def test_nothing_is_granted_when_one_of_several_permissions_is_wrong(server: Server) -> None:
    run(server, "apps", "register", "Careful", "--quiet")
    assert "admin.keys.read" in refusal(server, "apps", "grant", "careful", "llm.chat", "admin.keys.read")
    assert json.loads(run(server, "apps", "show", "careful", "--json"))["grants"] == []


def test_workspaces_threads_and_agents_reach_the_apps(server: Server) -> None:
    assert run(server, "workspaces", "create", "Über uns", "--quiet").strip() == "uber-uns"
    assert run(server, "threads", "create", "uber-uns", "First talk", "--quiet").strip() == "first-talk"
    assert run(server, "agents", "create", "Helper", "--slug", "@helper", "--description", "Helps.", "--quiet").strip() == "@helper"
    assert [each["slug"] for each in listed(server, "workspaces", "list")] == ["default", "uber-uns"]
    assert [each["slug"] for each in listed(server, "threads", "list", "uber-uns")] == ["first-talk"]
    assert [each["slug"] for each in listed(server, "agents", "list")] == ["@agent", "@helper"]
    threads = server.get("/workspaces/uber-uns/threads", server.first_key).json()["threads"]
    assert [each["slug"] for each in threads] == ["first-talk"]
    run(server, "threads", "remove", "uber-uns", "first-talk")
    assert "homeport threads create uber-uns" in run(server, "threads", "list", "uber-uns")
    run(server, "workspaces", "remove", "uber-uns")
    run(server, "agents", "remove", "@helper")
    assert [each["slug"] for each in listed(server, "workspaces", "list")] == ["default"]


def test_a_model_provider_is_added_tried_and_removed(server: Server) -> None:
    assert "homeport models add" in run(server, "models", "list")
    with serve_in_thread() as upstream:
        run(
            server, "models", "add", "mine", "--base-url", upstream.base_url, "--api-key-stdin", "--model", "echo", stdin="sk-very-secret\n"
        )
        said = run(server, "models", "add", "broken", "--base-url", "http://127.0.0.1:9/v1", "--api-key-env", "KEY_OF_IT", KEY_OF_IT="sk-2")
        assert "homeport models test broken" in said
        assert "works" in run(server, "models", "test", "mine")
        assert "cannot be reached" in refusal(server, "models", "test", "broken")
        assert "default" in run(server, "models", "default", "mine")
        providers = {each["name"]: each for each in listed(server, "models", "list")}
        assert providers["mine"]["active"] is True
        assert providers["mine"]["models"] == [{"id": "echo", "name": "echo"}]
        assert providers["broken"]["active"] is False
        assert "secret" not in run(server, "models", "list") + json.dumps(providers)
        run(server, "models", "remove", "broken")
        assert chat(server)["content"] == "You said: hello"
        assert upstream.state.last_headers["authorization"] == "Bearer sk-very-secret"
    assert "cannot be reached" in refusal(server, "models", "test", "mine")
    run(server, "models", "remove", "mine")
    assert "NO_SUCH_KEY" in refusal(server, "models", "add", "openai", "--api-key-env", "NO_SUCH_KEY", status=2)


def test_defaults_fallbacks_and_limits_are_set_shown_and_forgotten(server: Server) -> None:
    with serve_in_thread() as upstream:
        for name in ("first", "second"):
            run(server, "models", "add", name, "--base-url", upstream.base_url, "--api-key-stdin", "--model", "echo", stdin="sk-1\n")
        said = run(server, "models", "default", "second/503", "first/long-3")
        assert "'second/503' is the default for chat now; when it fails: first/long-3" in said
        run(server, "models", "default", "first/text-embedding-3-small", "--for", "embedding")
        assert "Vectors of different models cannot be compared" in refusal(
            server, "models", "default", "first/a", "second/b", "--for", "embedding"
        )
        assert "homeport models list" in refusal(server, "models", "default", "nobody")
        run(server, "models", "limit", "second", "--timeout", "9", "--retries", "0")
        assert "9 s, 0 retries, 2 at once" in run(server, "models", "limit", "second", "--concurrency", "2")
        assert json.loads(run(server, "models", "limit", "second", "--json")) == SECOND_LIMITS
        providers = {each["name"]: each for each in listed(server, "models", "list")}
        assert [providers["second"][name] for name in ("default_for", "fallback_for", "limits")] == [["chat"], [], [SECOND_LIMITS]]
        assert [providers["first"][name] for name in ("default_for", "fallback_for", "limits")] == [["embedding"], ["chat"], []]
        assert "9 s, 0 retries, 2 at once" in run(server, "models", "list")

        answer = chat(server)
        assert (answer["provider"], answer["model"]) == ("first", "long-3")
        counted: set[tuple[str, str, int, int]] = set()

        def is_written() -> bool:
            for each in json.loads(run(server, "usage", "--json"))["items"]:
                numbers = each["numbers"]
                counted.add((each["provider"], each["model"], numbers["errors"], numbers["completion_tokens"]))
            return counted >= {("second", "503", 1, 0), ("first", "long-3", 0, 3)}

        wait_for(is_written)
        assert "first/long-3 chat" in run(server, "usage", "--since", "1h")
        assert "no app" in run(server, "usage", "--by", "app")
        assert "No model was called" in run(server, "usage", "--since", "2999-01-01")
        assert "--since" in refusal(server, "usage", "--since", "soon", status=2)

        run(server, "models", "limit", "second", "--reset")
        assert "none" in run(server, "models", "limit", "second")
        for role in ("chat", "embedding"):
            assert "No default is set" in run(server, "models", "default", "--reset", "--for", role)
        for name in ("first", "second"):
            run(server, "models", "remove", name)
    assert "--reset" in refusal(server, "models", "default", status=2)


def test_the_doctor_finds_the_running_server_and_what_is_wrong(server: Server) -> None:
    port = server.url.rpartition(":")[2]
    said = run(server, "doctor", HOMEPORT_PORT=port)
    assert f"a Homeport answers on port {port}" in said
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = homeport(server.data_dir, "doctor", "--json", HOMEPORT_PORT=str(taken.getsockname()[1]))
    assert ended.returncode == 1
    checks = {each["name"]: each for each in json.loads(ended.stdout)}
    assert all(set(each) == {"name", "status", "found", "advice"} for each in checks.values())
    assert checks["port"]["status"] == "fail"
    assert "homeport serve --port" in checks["port"]["advice"]
    assert {"contract", "data directory", "disk", "database", "schema", "pgvector", "models"} <= set(checks)
    assert {name for name, each in checks.items() if each["status"] == "fail"} == {"port"}


def test_commands_work_on_a_new_data_directory_without_a_server(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    looked = homeport(tmp_path, "--data-dir", str(data_dir), "doctor")
    assert looked.returncode == 0, looked.stdout
    assert not data_dir.exists()
    created = homeport(tmp_path, "--data-dir", str(data_dir), "keys", "create", "early", "--quiet")
    assert created.stdout.startswith("hp_local_"), created.stderr
    assert not (data_dir / "postgres" / "data" / "postmaster.pid").exists()
    assert [each["name"] for each in json.loads(homeport(data_dir, "keys", "list", "--json").stdout)] == ["early"]
    assert json.loads(homeport(data_dir, "apps", "list", "--json").stdout) == []
    assert "homeport apps register" in homeport(data_dir, "apps", "list").stdout
