"""``homeport mcp``, ``homeport tools`` and ``homeport events``, beside a running server that follows at once."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.commands import homeport
from tests.acceptance.test_cli_commands import listed, refusal, run
from tests.acceptance.test_cli_serve import ANSWER_TIMEOUT_S, Server, serving

STAND_IN = str(Path(__file__).resolve().parents[2] / "contract" / "mcp_server.py")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs beside the commands."""
    folder = tmp_path_factory.mktemp("tools")
    with serving(folder / "data", folder / "errors") as running:
        assert running.get("/health").status_code == 200
        yield running


@pytest.fixture(scope="module")
def app_id(server: Server) -> str:
    """An app that may use tools."""
    app_id = run(server, "apps", "register", "Tool User", "--quiet").strip()
    run(server, "apps", "grant", "tool-user", "mcp.tools", "mcp.servers")
    return app_id


def execute(server: Server, app_id: str, name: str, tool: str, **arguments: Any) -> httpx.Response:
    """Execute a tool as the app."""
    return httpx.post(
        f"{server.url}/sdk/mcp/servers/{name}/tools/{tool}/execute",
        json={"arguments": arguments},
        headers={"x-app-id": app_id},
        timeout=ANSWER_TIMEOUT_S,
        trust_env=False,
    )


def add(server: Server, name: str, *options: str, stdin: str = "") -> str:
    """Add the stand-in."""
    return run(server, "mcp", "add", name, *options, "--", sys.executable, STAND_IN, stdin=stdin)


def test_a_server_is_added_tried_called_and_removed(server: Server, app_id: str) -> None:
    assert "'first' works. Its tools: die, echo" in add(server, "first", "--description", "A stand-in")
    assert execute(server, app_id, "first", "echo", text="x").json()["result"]["content"][0]["text"] == "x"
    assert run(server, "mcp", "call", "first", "echo", "text=5") == "5\n", "a text that looks like a number"
    assert json.loads(run(server, "mcp", "call", "first", "structured", '{"n": [1]}', "--json"))["structuredContent"] == {"n": [1]}
    failed = homeport(server.data_dir, "mcp", "call", "first", "fail")
    assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", "It failed\n")
    assert '"text" is a required property' in refusal(server, "mcp", "call", "first", "echo")
    assert "get_current_time" in run(server, "mcp", "tools", "first")
    assert "The stand-in has started" in run(server, "mcp", "logs", "first")
    (item,) = [each for each in listed(server, "mcp", "list") if each["name"] == "first"]
    assert (item["provider"], item["args"], item["description"]) == ("local", [STAND_IN], "A stand-in")
    run(server, "mcp", "disable", "first")
    assert execute(server, app_id, "first", "echo", text="x").status_code == 404
    run(server, "mcp", "enable", "first")
    assert execute(server, app_id, "first", "echo", text="x").status_code == 200
    assert "Removed" in run(server, "mcp", "remove", "first")
    assert execute(server, app_id, "first", "echo", text="x").json()["code"] == "MCP_SERVER_NOT_FOUND"


def test_a_program_is_kept_with_its_folder_because_the_server_may_look_in_others(server: Server) -> None:
    run(server, "mcp", "add", "shell", "--quiet", "--", "sh", "-c", "exit 0")
    (item,) = [each for each in listed(server, "mcp", "list") if each["name"] == "shell"]
    assert (item["command"], item["args"]) == (shutil.which("sh"), ["-c", "exit 0"])
    run(server, "mcp", "remove", "shell")


def test_a_server_that_does_not_work_stays_and_says_why(server: Server) -> None:
    tried = homeport(server.data_dir, "mcp", "add", "broken", "--", "no-such-program-here")
    assert tried.returncode == 0
    assert "does not work yet" in tried.stdout
    assert "not on the server's PATH" in tried.stderr
    assert "Traceback" not in tried.stderr
    assert "not on the server's PATH" in refusal(server, "mcp", "test", "broken")
    assert "broken: The command 'no-such-program-here'" in run(server, "mcp", "list")
    assert "MCP servers" in homeport(server.data_dir, "doctor").stdout
    assert "is an MCP server 'broken' already" in refusal(server, "mcp", "add", "broken", "--", "sh")
    run(server, "mcp", "remove", "broken")
    assert "homeport mcp list" in refusal(server, "tools", "allow", "everybody", "broken/*")


def test_secrets_come_from_a_file_the_shell_or_standard_input(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "variables"
    file.write_text('# mine\n\nexport ONE="from file"\nTWO=2\n', encoding="utf-8")
    tried = homeport(
        server.data_dir,
        *("mcp", "add", "secretive", "--env-file", str(file), "--env", "TWO=over", "--env", "THREE", "--env", "FOUR"),
        *("--", sys.executable, "-c", "import os, sys; print({n: os.environ.get(n) for n in sys.argv[1:]}, file=sys.stderr)"),
        *("ONE", "TWO", "THREE", "FOUR", "--quiet"),
        stdin="from input\n",
        THREE="from shell",
    )
    assert tried.stdout.startswith("Added"), "what stands behind -- belongs to the program"
    assert "it ended with status 0" in tried.stderr
    (item,) = [each for each in listed(server, "mcp", "list") if each["name"] == "secretive"]
    assert item["env"] == ["FOUR", "ONE", "THREE", "TWO"]
    assert "from" not in run(server, "mcp", "show", "secretive")
    log = run(server, "mcp", "logs", "secretive")
    assert "{'ONE': 'from file', 'TWO': 'over', 'THREE': 'from shell', 'FOUR': 'from input'" in log
    run(server, "mcp", "remove", "secretive")


def test_a_file_of_a_desktop_client_is_imported(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"imported": {"command": sys.executable, "args": [STAND_IN], "x": 1}}}), encoding="utf-8")
    done = homeport(server.data_dir, "mcp", "import", str(file))
    assert "Imported imported" in done.stdout
    assert "passed over x" in done.stderr
    assert "--replace" in homeport(server.data_dir, "mcp", "import", str(file)).stdout
    assert "'imported' works" in run(server, "mcp", "test", "imported")
    file.write_text(json.dumps({"mcpServers": {"a": {}, "b": {"command": "./x"}}}), encoding="utf-8")
    refused = refusal(server, "mcp", "import", str(file))
    assert "a: The MCP server 'a' needs" in refused
    assert "b: The command './x'" in refused
    run(server, "mcp", "remove", "imported")


def test_rules_are_set_shown_and_forgotten(server: Server, app_id: str) -> None:
    add(server, "acme/one")
    name = "acme%2Fone"
    assert execute(server, app_id, name, "structured").status_code == 200
    run(server, "tools", "only", "tool-user", "acme/one/echo", "acme/one/files/read")
    assert execute(server, app_id, name, "echo", text="x").status_code == 200
    assert execute(server, app_id, name, "files%2Fread", text="x").status_code == 200
    assert execute(server, app_id, name, "structured").json()["code"] == "PERMISSION_DENIED"
    assert [(each["server"], each["tool"], each["decision"]) for each in listed(server, "tools", "rules", "tool-user")] == [
        ("", "", "deny"),
        ("acme/one", "echo", "allow"),
        ("acme/one", "files/read", "allow"),
    ]
    run(server, "tools", "ask", "tool-user", "acme/one/echo")
    answer = execute(server, app_id, name, "echo", text="x").json()
    assert answer["code"] == "PERMISSION_REQUIRED"
    run(server, "apps", "grant", "tool-user", answer["permission"])
    assert execute(server, app_id, name, "echo", text="x").status_code == 200
    run(server, "tools", "deny", "agent:@writer", "*")
    assert "agent:@writer" in run(server, "tools", "rules")
    run(server, "tools", "forget", "agent:@writer")
    run(server, "tools", "forget", "tool-user")
    assert "There are no rules" in run(server, "tools", "rules")
    assert "no such rule" in refusal(server, "tools", "forget", "tool-user")
    assert execute(server, app_id, name, "structured").status_code == 200
    run(server, "mcp", "remove", "acme/one")


def test_what_was_done_is_listed(server: Server, app_id: str) -> None:
    add(server, "eventful")
    execute(server, app_id, "eventful", "echo", text="x")
    (event,) = listed(server, "events", "--app", "tool-user", "--kind", "tool.executed", "--since", "1h", "-n", "1")
    assert (event["app_id"], event["subject"], event["data"]["outcome"]) == (app_id, "eventful/echo", "ok")
    assert "mcp_server.added" in run(server, "events")
    assert "12h" in refusal(server, "events", "--since", "yesterday", status=2)
    run(server, "mcp", "remove", "eventful")
