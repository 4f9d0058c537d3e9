"""Apps that are started from here, with real servers: the example, a terminal, and servers that stop and die."""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.acceptance import commands
from tests.acceptance.servers import PROCESS_TIMEOUT_S, Admin, Json, Server, Servers, eventually

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(ROOT / "tests" / "local_app.py")
MANIFEST = ROOT / "examples" / "notes" / "manifest.json"
ASKED = ("activities.read", "activities.write", "llm.chat", "webhook.trigger")
# A server that was killed is believed to be gone after ten seconds.
TAKE_OVER_S = 40.0


def homeport(data_dir: Path, *arguments: str, **settings: str) -> str:
    """Run a command that must succeed; returns what it prints."""
    done = commands.homeport(data_dir, *arguments, **({"HOMEPORT_OLLAMA_URL": "off"} | settings))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def register(data_dir: Path, slug: str, *moods: str, **launch: str) -> None:
    """Register the tests' own app under a slug."""
    args = [part for mood in ("-S", PROGRAM, *moods) for part in ("--arg", mood)]
    options = [f"--{name.replace('_', '-')}={value}" for name, value in launch.items()]
    page = "--home-url=http://127.0.0.1:{port}/"
    homeport(data_dir, "apps", "register", slug, "--slug", slug, "--command", sys.executable, *args, page, *options)


def processes_of(*words: str) -> list[psutil.Process]:
    """The processes that run with all these words on their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if set(words) <= set(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def runs(process: psutil.Process) -> bool:
    """Whether a process runs, dead ones that nobody has buried not counted."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def running_one(*words: str, apart_from: int = 0) -> psutil.Process:
    """The one process that runs so, once there is one that is not ``apart_from``, and no other."""
    (process,) = eventually(lambda: processes_of(*words), lambda found: len(found) == 1 and found[0].pid != apart_from, TAKE_OVER_S)
    return process


def process_of(admin: Admin, app_id: str, state: str, timeout_s: float = TAKE_OVER_S) -> Json:
    """The process of an app, once it is in a state."""
    return eventually(lambda: admin.call("GET", f"/apps/{app_id}/process"), lambda found: found["state"] == state, timeout_s)


def test_the_example_keeps_a_note_asks_a_model_and_hands_over_a_task(server: Server, admin: Admin) -> None:
    app_id = homeport(server.data_dir, "apps", "register", "--manifest", str(MANIFEST), "--quiet").strip()
    assert admin.call("POST", f"/apps/{app_id}/start")["state"] == "starting"
    process = process_of(admin, app_id, "running")
    program = psutil.Process(process["pid"])
    with httpx.Client(base_url=process["url"], timeout=60, trust_env=False) as page:
        # It asks for what it has not been granted, and a person decides meanwhile.
        with ThreadPoolExecutor(1) as threads:
            asking = threads.submit(page.get, "/")
            admin.decide(app_id, dict.fromkeys(ASKED, "granted"))
            assert asking.result().status_code == 200
        assert "<li>milk &amp; honey</li>" in page.post("/notes", data={"text": "milk & honey"}).text
        asked = page.post("/ask", data={"question": "What is to be bought?"})
        assert asked.status_code == 200
        assert "What is to be bought?" in asked.text
        task_id = re.search(r"task ([0-9a-f-]{36})", page.post("/file").text)
        assert task_id is not None
    assert any("Notes are at" in line for line in admin.call("GET", f"/apps/{app_id}/logs?lines=50")["lines"])
    assert "POST /notes" in homeport(server.data_dir, "apps", "logs", "notes")
    assert str(process["url"]) in homeport(server.data_dir, "apps", "list")
    assert "is stopped" in homeport(server.data_dir, "apps", "stop", "notes")
    assert not runs(program)
    assert "error" not in admin.call("GET", f"/apps/{app_id}/process")


def test_how_an_app_is_started_is_shown_without_its_secrets(admin: Admin) -> None:
    launch: dict[str, Any] = {"command": "sleep", "args": ["600"], "env": [{"name": "TOKEN", "value": "s3cret"}]}
    app = admin.call("POST", "/apps", {"name": "Sleeper", "launch": launch})
    assert app["launch"] == {"command": "sleep", "args": ["600"], "autostart": False, "env": ["TOKEN"]}
    changed = admin.call("PATCH", f"/apps/{app['id']}", {"launch": {"autostart": True, "args": ["601"]}})
    assert changed["launch"] == {"command": "sleep", "args": ["601"], "autostart": True, "env": ["TOKEN"]}
    refused = admin.http.post(
        "/admin/v1/apps", json={"name": "x", "launch": {"command": "x", "env": [{"name": "RTX_API_KEY", "value": "k"}]}}
    )
    assert (refused.status_code, "act as a developer" in refused.json()["detail"]) == (400, True)
    bare = admin.register("Bare")
    refused = admin.http.post(f"/admin/v1/apps/{bare}/start")
    assert (refused.status_code, refused.json()["code"]) == (409, "app-not-launchable")
    assert admin.call("GET", f"/apps/{bare}/process")["state"] == "stopped"


def test_an_app_runs_in_a_terminal_until_ctrl_c_and_leaves_nothing(servers: Servers) -> None:
    data_dir = servers.folder / "terminal"
    register(data_dir, "in-terminal", "deaf", "child")
    environment = commands.environment(data_dir, HOMEPORT_OLLAMA_URL="off")
    command = [sys.executable, "-m", "homeport", "apps", "run", "in-terminal"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "hello\n"
        children = [psutil.Process(int(running.stdout.readline().split()[1])) for _ in range(2)]
        os.killpg(running.pid, signal.SIGINT)
        # Impatience does no harm.
        os.killpg(running.pid, signal.SIGINT)
        said, _ = running.communicate(timeout=PROCESS_TIMEOUT_S)
        assert running.returncode == 0
        assert said.endswith("'in-terminal' is stopped.\n")
    assert processes_of(PROGRAM, "deaf") == []
    eventually(
        lambda: [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE], lambda left: not left
    )


def test_without_a_server_the_command_says_how_and_the_next_server_starts_it(servers: Servers) -> None:
    data_dir = servers.folder / "later"
    register(data_dir, "later", "later")
    assert "homeport serve" in homeport(data_dir, "apps", "start", "later")
    server = servers.start("later")
    program = running_one(PROGRAM, "later")
    command = [sys.executable, "-m", "homeport", "apps", "run", "later"]
    environment = os.environ | {"HOMEPORT_DATA_DIR": str(data_dir)}
    refused = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=PROCESS_TIMEOUT_S)
    assert (refused.returncode, "homeport apps stop later" in refused.stderr) == (1, True)
    assert server.stop() == 0
    assert not runs(program)


def test_a_server_that_is_told_to_stop_leaves_no_app_and_the_next_one_starts_it_again(servers: Servers) -> None:
    server = servers.start("stopping", "--workers", "2")
    register(server.data_dir, "deaf", "deaf", "child", "stopping")
    homeport(server.data_dir, "apps", "start", "deaf", HOMEPORT_PORT=str(server.port))
    first = running_one(PROGRAM, "stopping")
    children = first.children()
    assert server.stop() == 0
    assert processes_of(PROGRAM, "stopping") == []
    assert not any(runs(child) for child in children)
    servers.start("stopping")
    running_one(PROGRAM, "stopping")


@pytest.mark.long
@pytest.mark.parametrize("is_second_there", [False, True], ids=["after a restart", "by a second server"])
def test_after_a_kill_of_the_server_exactly_one_is_started_again(servers: Servers, is_second_there: bool) -> None:
    name = f"killed-{is_second_there}"
    server = servers.start(name)
    register(server.data_dir, "survivor", name)
    homeport(server.data_dir, "apps", "start", "survivor")
    first = running_one(PROGRAM, name)
    if is_second_there:
        servers.start(name)
    server.kill()
    if not is_second_there:
        servers.start(name)
    again = running_one(PROGRAM, name, apart_from=first.pid)
    assert not runs(first)
    assert "runs at" in homeport(server.data_dir, "apps", "start", "survivor")
    assert [process.pid for process in processes_of(PROGRAM, name)] == [again.pid]


@pytest.mark.long
def test_what_is_to_start_with_the_server_does_until_that_is_switched_off(servers: Servers) -> None:
    server = servers.start("auto")
    register(server.data_dir, "auto", "auto")
    assert "starts with the server" in homeport(server.data_dir, "apps", "autostart", "auto", "on")
    assert processes_of(PROGRAM, "auto") == []
    assert server.stop() == 0
    again = servers.start("auto")
    running_one(PROGRAM, "auto")
    homeport(again.data_dir, "apps", "stop", "auto")
    assert processes_of(PROGRAM, "auto") == []
    homeport(again.data_dir, "apps", "autostart", "auto", "off")
    assert again.stop() == 0
    last = servers.start("auto")
    admin = Admin(last.url, server.first_key or "")
    with admin.http:
        (app,) = admin.call("GET", "/apps")["items"]
        process = admin.call("GET", f"/apps/{app['id']}/process")
    assert (process["state"], process["wanted"]) == ("stopped", False)
    assert processes_of(PROGRAM, "auto") == []
