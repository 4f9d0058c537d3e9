"""Secrets are put in wherever one can be, used, and then looked for wherever anybody can look: answers, command line, logs, files."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from adapters.chat import Endpoint
from adapters.mcp import HttpTarget, StdioTarget
from adapters.postgres.guest_url import parse_guest_url
from homeport.key_text import make_key
from homeport.secrets import KEY_BYTES, SecretBox
from homeport.settings import Settings
from homeport.tasks.signatures import Signed
from homeport.tasks.webhook import Message
from homeport.tools import ServerDraft
from tests.acceptance.servers import PROCESS_TIMEOUT_S, Admin, Server, Servers, eventually, memory_folder
from tests.security.wire import OPERATIONS, Json

ROOT = Path(__file__).resolve().parents[2]
MCP_SERVER = ROOT / "contract" / "mcp_server.py"


def canary(name: str) -> str:
    """A secret that stands nowhere else; it would do as a key, a password, a token and the value of a header."""
    return f"canary-{name}-{os.urandom(12).hex()}"


NAMES = ("model", "environment", "variable", "header", "app", "token", "database", "contract", "argument", "prompt", "query", "activity")
SECRETS = {name: canary(name) for name in NAMES}
UNKNOWN_KEY = make_key()[1]
COMMANDS = ("models list", "mcp show program", "mcp show address", "apps show keeper", "keys list", "events")


@dataclass(frozen=True)
class Used:
    """A server in which secrets were put, with everything that was answered to those who put them in."""

    server: Server
    admin: Admin
    app: Mapping[str, str]
    answers: list[str]


@pytest.fixture(scope="module")
def used() -> Iterator[Used]:
    """A server that is told to log all it can, with a secret in every place that takes one; nobody else's umask protects its files."""
    before = os.umask(0)
    try:
        with memory_folder() as folder, Servers(folder) as servers:
            server = servers.start(
                "data",
                HOMEPORT_LOG_LEVEL="debug",
                HOMEPORT_CONTRACT_SECRET=SECRETS["contract"],
                OPENAI_API_KEY=SECRETS["environment"],
                OPENAI_BASE_URL="http://127.0.0.1:9/v1",
            )
            assert server.first_key is not None
            admin = Admin(server.url, server.first_key)
            admin.http.timeout = httpx.Timeout(PROCESS_TIMEOUT_S)  # programs are started and addresses tried that do not answer
            with admin.http:
                yield use(server, admin)
    finally:
        os.umask(before)


def use(server: Server, admin: Admin) -> Used:
    """Put every secret in, and have each of them used, rightly and wrongly."""
    answers: list[str] = []

    def call(method: str, path: str, body: Json | None = None, headers: Mapping[str, str] | None = None, **options: Any) -> httpx.Response:
        answer = admin.http.request(method, path, json=body, headers=headers, **options)
        answers.append(f"{answer.headers}{answer.text}")
        return answer

    def must(answer: httpx.Response) -> Any:
        assert answer.is_success, answer.text
        return answer.json()

    provider = {"name": "mine", "base_url": "http://127.0.0.1:9/v1", "api_key": SECRETS["model"], "models": ["m"]}
    must(call("POST", "/admin/v1/model-providers", provider))
    variables = [{"name": "TOKEN", "value": SECRETS["variable"]}]
    program = {"name": "program", "command": sys.executable, "args": [str(MCP_SERVER)], "env": variables}
    must(call("POST", "/admin/v1/mcp-servers", program))
    header = [{"name": "Authorization", "value": f"Bearer {SECRETS['header']}"}]
    must(call("POST", "/admin/v1/mcp-servers", {"name": "address", "url": "http://127.0.0.1:9/mcp", "headers": header}))
    launch = {"command": sys.executable, "args": ["-c", "raise SystemExit(3)"], "env": [{"name": "PASSWORD", "value": SECRETS["app"]}]}
    app_id = must(call("POST", "/admin/v1/apps", {"name": "Keeper", "slug": "keeper", "launch": launch}))["id"]
    for permission in ("activities.write", "vectors.write", "vectors.read", "mcp.tools", "llm.chat", "webhook.trigger"):
        admin.grant(app_id, permission)
    app = {"x-app-id": app_id, "authorization": ""}

    # Rightly …
    must(call("POST", "/sdk/auth/sync-supabase-token", {"token": SECRETS["token"]}, app))
    must(call("POST", "/activities", {"raw_data": {"note": SECRETS["activity"]}}, app))
    arguments = {"arguments": {"text": SECRETS["argument"]}}
    assert SECRETS["argument"] in must(admin.http.post("/sdk/mcp/servers/program/tools/echo/execute", json=arguments)).__repr__()
    must(call("POST", "/admin/v1/mcp-servers/program/test"))
    # … and wrongly: nobody listens, nothing fits, nothing is allowed.
    for provider_name in ("mine", "openai"):
        must(call("POST", f"/admin/v1/model-providers/{provider_name}/test"))
        chat = {"provider": provider_name, "model": "m", "messages": [{"role": "user", "content": SECRETS["prompt"]}]}
        assert call("POST", "/sdk/llm/chat", chat, app).status_code >= 500
        call("POST", "/sdk/llm/chat/stream", chat, app)
    must(call("POST", "/admin/v1/mcp-servers/address/test"))
    assert call("POST", "/sdk/mcp/servers/address/tools/x/execute", arguments, app).status_code >= 400
    assert (
        call("POST", "/sdk/mcp/servers/program/tools/echo/execute", {"arguments": {"wrong": SECRETS["argument"]}}, app).status_code == 400
    )
    call("POST", f"/admin/v1/apps/{app_id}/start")
    url = f"postgresql://user:{SECRETS['database']}@127.0.0.1:9/db"
    for config in ({"databaseUrl": url}, {"databaseUrl": f"{url}?sslmode=wrong"}, {"databaseUrl": f"{url}%zz"}, {"databaseUrl": f"x{url}"}):
        assert call("POST", "/sdk/llm/vectors/register", {"provider": "pgvector", "config": config}, app).status_code == 400
    call("GET", f"/activities?limit=many&api_key={SECRETS['query']}&token={SECRETS['query']}", headers=app)
    report = {"event": "task.completed", "payload": {"task_uuid": app_id}, "signature": SECRETS["contract"]}
    assert call("POST", "/webhooks/realtimex", report, {"authorization": ""}).status_code >= 400
    for headers in ({"authorization": f"Bearer {UNKNOWN_KEY}"}, {"x-api-key": UNKNOWN_KEY, "authorization": ""}):
        assert call("GET", "/sdk/ping", headers=headers).status_code == 401
    return Used(server, admin, app, answers)


def found_in(text: str, *expected: str) -> list[str]:
    """The names of the secrets that stand in a text, apart from those that are expected there."""
    return [name for name, secret in SECRETS.items() if name not in expected and secret in text]


def test_nobody_is_answered_with_a_secret(used: Used) -> None:
    # But for the app, which is answered with the activity that it has just made.
    assert found_in("\n".join(used.answers), "activity") == []
    assert UNKNOWN_KEY not in "\n".join(used.answers)


def test_nothing_that_can_be_read_over_http_holds_a_secret(used: Used) -> None:
    ids = {
        "{server}": ("program", "address"),
        "{name}": ("mine", "openai"),
        "{app_id}": (used.app["x-app-id"],),
        "{role}": ("chat", "embedding", "speech"),
        "{agent}": ("default",),
    }
    read: dict[str, str] = {}
    for method, path, operation in OPERATIONS.values():
        if method == "GET" and operation["x-surface"] == "admin":
            places = re.findall(r"\{\w+\}", path)
            for value in ids.get(places[0], ()) if places else ("",):
                address = path.replace(places[0], value) if places else path
                read[address] = used.admin.http.get(address).text
    assert len(read) > 25
    assert {address: found for address, text in read.items() if (found := found_in(text))} == {}
    assert not [address for address, text in read.items() if used.admin.key in text or UNKNOWN_KEY in text]


def test_nothing_that_the_command_line_prints_holds_a_secret(used: Used) -> None:
    environment = os.environ | {"HOMEPORT_DATA_DIR": str(used.server.data_dir), "HOMEPORT_OLLAMA_URL": "off"}
    # One process for all of them: each start would take longer than all the commands.
    program = """
import sys
from typer.testing import CliRunner
from homeport.cli import app

for line in sys.stdin:
    result = CliRunner().invoke(app, [*line.split(), "--json"])
    print(result.output, result.exception)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(COMMANDS),
        env=environment,
        capture_output=True,
        text=True,
        timeout=PROCESS_TIMEOUT_S,
        check=True,
    )
    assert done.stdout.count("None\n") == len(COMMANDS), done.stdout
    assert {"keeper", "address", "Authorization", "PASSWORD"} <= set(re.findall(r"\w+", done.stdout))
    assert found_in(done.stdout + done.stderr) == []


def test_the_logs_hold_no_secret_though_everything_is_logged(used: Used) -> None:
    eventually(lambda: used.server.logged("request"), lambda lines: len(lines) > 30)
    assert found_in(used.server.log) == []
    assert used.admin.key not in used.server.log
    assert UNKNOWN_KEY not in used.server.log
    logs = [file.read_text(errors="replace") for file in (used.server.data_dir).rglob("*.log*")]
    assert len(logs) >= 3
    assert found_in("\n".join(logs)) == []


def test_no_process_shows_a_secret_in_its_command_line(used: Used) -> None:
    processes = [psutil.Process(used.server.process.pid), *psutil.Process(used.server.process.pid).children(recursive=True)]
    lines = [" ".join(process.cmdline()) for process in processes if process.is_running()]
    assert found_in("\n".join(lines)) == []
    assert used.admin.key not in "\n".join(lines)


def test_a_stolen_data_folder_without_its_key_gives_no_secret_away(used: Used) -> None:
    with used.admin.http.stream("GET", "/health"):  # it is still running
        whole = b"\n".join(file.read_bytes() for file in used.server.data_dir.rglob("*") if file.is_file())
    stored = [name for name, secret in SECRETS.items() if secret.encode() in whole]
    assert stored == ["activity"]
    assert used.admin.key.encode() not in whole


def test_no_file_of_the_data_folder_is_open_to_other_users_whatever_the_umask(used: Used) -> None:
    places = [used.server.data_dir, *used.server.data_dir.rglob("*")]
    # PostgreSQL sees to its own, and its folder is closed.
    database = used.server.data_dir / "postgres" / "data"
    ours = [place for place in places if database not in place.parents and not place.is_symlink()]
    assert len(ours) > 10
    assert {str(place): oct(mode) for place in ours if (mode := stat.S_IMODE(place.stat().st_mode)) & 0o077} == {}
    assert stat.S_IMODE((used.server.data_dir / "secret.key").stat().st_mode) == 0o600
    [socket] = [place for place in database.iterdir() if stat.S_ISSOCK(place.stat().st_mode)]
    assert stat.S_IMODE(socket.stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize(
    "shown",
    [
        Endpoint("openai", "openai", "https://api.example/v1", SECRETS["model"]),
        StdioTarget("program", env={"TOKEN": SECRETS["variable"]}),
        HttpTarget("https://mcp.example/mcp", {"Authorization": SECRETS["header"]}),
        ServerDraft("x", command="program", env={"TOKEN": SECRETS["variable"]}, headers={"Authorization": SECRETS["header"]}),
        parse_guest_url(f"postgresql://user:{SECRETS['database']}@db.example/x"),
        SecretBox(SECRETS["token"].encode().ljust(KEY_BYTES)[:KEY_BYTES]),
        Settings(secret_key=SECRETS["app"], contract_secret=SECRETS["contract"], database_url=f"postgresql://u:{SECRETS['database']}@h/d"),
        Signed("e", "task.completed", "t", "a", "", {"note": SECRETS["prompt"]}),
        Message("task.completed", None, data={"note": SECRETS["prompt"]}, signature=SECRETS["contract"]),  # type: ignore[arg-type]
    ],
    ids=lambda shown: type(shown).__name__,
)
def test_what_holds_a_secret_does_not_show_it(shown: object) -> None:
    assert found_in(f"{shown!r} {shown}") == []
    assert found_in(repr({"nested": [shown]})) == []


def test_the_walk_over_answers_leaves_out_no_administrative_operation(used: Used) -> None:
    assert used.admin.http.get("/admin/v1/apps").status_code == 200
    templates = {path for method, path, operation in OPERATIONS.values() if method == "GET" and operation["x-surface"] == "admin"}
    # Those of what was not made here: keys, questions, runs and tasks show what the lists of them show.
    assert {found for path in templates for found in re.findall(r"\{\w+\}", path)} == {
        "{agent}",
        "{app_id}",
        "{approval_id}",
        "{key_id}",
        "{name}",
        "{request_id}",
        "{role}",
        "{run_id}",
        "{server}",
        "{task_id}",
    }
