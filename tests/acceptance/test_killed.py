"""Kill -9 while agents work: whatever they were in the middle of ends once, and what they had said is kept.

All cases are under way in one server when it is killed. Afterwards it is started again, or another server on the same database, which runs
already, carries on. That a process is gone is seen when what it held runs out, after some 15 seconds.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from pydantic import SecretStr

from adapters.postgres import EmbeddedPostgres
from contract.upstream import RunningUpstream
from homeport.home import open_home
from homeport.settings import Settings
from tests.acceptance.conftest import provider_settings
from tests.acceptance.servers import PROCESS_TIMEOUT_S, TIMEOUT_S, Admin, Json, Server, Servers, eventually, memory_folder

WORKING = Path(__file__).parents[1] / "mcp_servers" / "working.py"
SECRET_KEY = base64.b64encode(bytes(32)).decode()
NOTICED_S = 60.0
CANCELLED_WITHIN_S = 1.0
BEGUN, DONE = "I begin.", "It is done."
CASES = ("model-task", "tool-task", "tool-chat", "approval-task", "approval-chat")
ENDS = ("completed", "failed", "cancelled", "canceled")


def script(*steps: Json) -> str:
    """A message that tells the stand-in what its model does."""
    return f"script: {json.dumps(steps)}"


class Scene:
    """Five agents in the middle of something: one for each case, named after it.

    Three work on tasks, on a server that starts them at once; two answer somebody who waits. The model of the first is asked and does not
    answer, two use a tool that does not end, and two wait for a person because their app may not use tools.
    """

    def __init__(self, server: Server, admin: Admin, folder: Path) -> None:
        self.server = server
        self.admin = admin
        self.folder = folder
        granted = ("agent.chat", "webhook.trigger", "api.task")
        self.free = admin.register("Free", granted=(*granted, "mcp.tools"))
        self.bound = admin.register("Bound", granted=granted)
        admin.call("POST", "/mcp-servers", {"name": "working", "command": sys.executable, "args": [str(WORKING)]})
        for case in CASES:
            admin.call("POST", "/agents", {"display_name": case, "slug": case, "model": "script", "tools": ["working/*"]})
        self.runs: dict[str, str] = {}
        self.tasks: dict[str, str] = {}
        self.sessions: dict[str, str] = {}
        self.answers: dict[str, Future[httpx.Response]] = {}

    def file(self, case: str) -> Path:
        """What the case leaves traces in."""
        return self.folder / case

    def begin(self, threads: ThreadPoolExecutor) -> None:
        """Have all of them begin, and return when each is where it is to be killed."""
        self.file("model-task").touch()
        last = {"say": DONE}
        for case, app_id, tool, steps in (
            ("model-task", self.free, "append", [last | {"hold": str(self.file("model-task"))}]),
            ("tool-task", self.free, "hold", [last]),
            ("tool-chat", self.free, "hold", [last]),
            ("approval-task", self.bound, "append", [last]),
            ("approval-chat", self.bound, "append", [last]),
        ):
            traces = self.file(f"{case}-lines") if tool == "append" else self.file(case)
            arguments = {"file": str(traces), **({"line": case} if tool == "append" else {})}
            message = script({"say": BEGUN, "call": [{"tool": tool, "arguments": arguments}]}, *steps)
            if case.endswith("task"):
                self.tasks[case] = self._trigger(case, app_id, message)
            else:
                self.sessions[case] = begin_session(self.server, app_id, case)
                self.answers[case] = threads.submit(say, self.server, app_id, self.sessions[case], message)
        for case in CASES:
            eventually(lambda case=case: self._find_run(case), timeout_s=NOTICED_S)
        eventually(lambda: "agent.tool.finished" in self.kinds("model-task"), timeout_s=NOTICED_S)
        eventually(lambda: self.file("tool-task").exists() and self.file("tool-chat").exists(), timeout_s=NOTICED_S)
        eventually(lambda: self.states("approval-task", "approval-chat") == ["waiting", "waiting"], timeout_s=NOTICED_S)
        assert self.states("model-task", "tool-task", "tool-chat") == ["running"] * 3

    def release(self) -> None:
        """Let go what was held: from now on, nothing takes long."""
        for case in ("model-task", "tool-task", "tool-chat"):
            self.file(case).unlink()

    def states(self, *cases: str) -> list[str]:
        """The states of runs."""
        found = {run["id"]: run["state"] for run in self.admin.call("GET", "/agent-runs?limit=200")["items"]}
        return [found[self.runs[case]] for case in cases]

    def run(self, case: str) -> Json:
        """A run, and what was said in it."""
        return self.admin.call("GET", f"/agent-runs/{self.runs[case]}")

    def kinds(self, case: str) -> list[str]:
        """What has happened in a run, in order."""
        return [event["kind"] for event in reversed(self.admin.call("GET", f"/events?subject={self.runs[case]}&limit=200")["items"])]

    def approvals(self) -> dict[str, Json]:
        """What people were asked, by the case."""
        return {each["agent"]: each for each in self.admin.call("GET", "/approvals?limit=200")["items"]}

    def check(self, url: str) -> None:
        """Wait until all have ended, and see how."""
        eventually(lambda: all(state in ENDS for state in self.states(*CASES)), timeout_s=NOTICED_S)
        statuses = eventually(
            lambda: [self.admin.call("GET", f"/tasks/{task_id}")["status"] for task_id in self.tasks.values()],
            lambda found: all(status in ENDS for status in found),
            NOTICED_S,
        )
        assert statuses == ["completed"] * 3
        assert dict(zip(CASES, self.states(*CASES), strict=True)) == {
            case: "completed" if case.endswith("task") else "failed" for case in CASES
        }
        self._check_what_was_said()
        self._check_approvals()
        self._check_rows(url)

    def _check_what_was_said(self) -> None:
        for case in CASES:
            found = self.run(case)
            said = [message["text"] for message in found["messages"] if message["role"] == "assistant"]
            assert said == ([BEGUN, DONE] if case.endswith("task") else [BEGUN]), case
            ends = [kind for kind in self.kinds(case) if kind.removeprefix("agent.run.") in ENDS]
            assert ends == [f"agent.run.{found['run']['state']}"], case
        for case in ("tool-chat", "approval-chat"):
            assert self.run(case)["run"]["error_code"] == "INTERRUPTED"
            app_id = self.free if case == "tool-chat" else self.bound
            answer = say(self.server, app_id, self.sessions[case], "Hello again")
            assert answer.status_code == 200, answer.text
            assert "Hello again" in answer.json()["response"]["text"]
        (result,) = [message["text"] for message in self.run("tool-task")["messages"] if message["role"] == "tool"]
        assert result != "released"
        assert not self.file("tool-task").exists(), "what may have taken effect is not done again"
        assert self.file("model-task-lines").read_text(encoding="utf-8") == "model-task\n"

    def _check_approvals(self) -> None:
        approvals = self.approvals()
        assert {case: approval["state"] for case, approval in approvals.items()} == {
            "approval-task": "granted",
            "approval-chat": "expired",
        }
        assert self.file("approval-task-lines").read_text(encoding="utf-8") == "approval-task\n", "once"
        assert not self.file("approval-chat-lines").exists()
        answer = self.admin.http.post(f"/admin/v1/approvals/{approvals['approval-chat']['id']}/decision", json={"decision": "granted"})
        assert answer.status_code == 409

    def _check_rows(self, url: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:

            def read(statement: str) -> list[tuple[Any, ...]]:
                return connection.execute(statement.encode()).fetchall()

            jobs = eventually(
                lambda: read("SELECT state, attempts FROM jobs WHERE kind = 'task.run'"),
                lambda rows: all(state in ENDS for state, _ in rows),
            )
            assert jobs == [("completed", 2)] * 3
            attempts = read("SELECT array_agg(status ORDER BY number) FROM task_runs GROUP BY task_id")
            assert attempts == [(["failed", "completed"],)] * 3
            told = read("SELECT count(*) FROM events WHERE kind IN ('task.completed', 'task.failed', 'task.canceled') GROUP BY subject")
            assert told == [(1,)] * 3
            assert read("SELECT count(*) FROM agent_runs WHERE state IN ('running', 'waiting')") == [(0,)]
            assert read("SELECT count(*) FROM agent_runs WHERE task_id IS NOT NULL") == [(3,)], "gone on with, not begun anew"

    def _find_run(self, case: str) -> bool:
        runs = self.admin.call("GET", f"/agent-runs?agent={case}")["items"]
        assert len(runs) <= 1
        if runs:
            self.runs[case] = runs[0]["id"]
        return bool(runs)

    def _trigger(self, agent: str, app_id: str, prompt: str) -> str:
        payload = {"raw_data": {}, "auto_run": True, "agent_name": agent, "workspace_slug": "default", "prompt": prompt}
        body = {"event": "task.trigger", "app_id": app_id, "payload": payload}
        answer = call(self.server, "POST", "/webhooks/realtimex", app_id, body)
        assert answer.is_success, answer.text
        return str(answer.json()["task_uuid"])


def call(server: Server, method: str, path: str, app_id: str, body: Json | None = None) -> httpx.Response:
    """Call an operation as an app, on a connection of its own."""
    return httpx.request(method, server.url + path, json=body, headers={"X-App-Id": app_id}, timeout=NOTICED_S, trust_env=False)


def begin_session(server: Server, app_id: str, agent: str) -> str:
    """Begin a conversation with an agent; returns its id."""
    answer = call(server, "POST", "/sdk/agent/session", app_id, {"agent_name": agent})
    assert answer.is_success, answer.text
    return str(answer.json()["session"]["session_id"])


def say(server: Server, app_id: str, session_id: str, message: str) -> httpx.Response:
    """Say something to an agent, and wait for the answer."""
    return call(server, "POST", f"/sdk/agent/session/{session_id}/chat", app_id, {"message": message})


def kill(scene: Scene) -> None:
    """Kill the server, and see that what it has started ends with it."""
    children = psutil.Process(scene.server.process.pid).children(recursive=True)
    tools = [child for child in children if str(WORKING) in child.cmdline()]
    assert tools
    scene.server.kill()
    for answer in scene.answers.values():
        assert isinstance(answer.exception(TIMEOUT_S), httpx.TransportError)
    _, left = psutil.wait_procs(tools, PROCESS_TIMEOUT_S)
    for process in left:
        process.kill()
    assert not left, "an MCP server outlives the server that started it"


@contextmanager
def opened(server: Server, key: str) -> Iterator[Admin]:
    admin = Admin(server.url, key)
    with closing(admin.http):
        yield admin


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A database that outlives the servers."""
    with memory_folder() as folder:
        postgres = EmbeddedPostgres(folder)
        try:
            yield postgres.start()
        finally:
            postgres.stop()


@pytest.fixture(scope="module")
def key(database: str, folder: Path) -> str:
    """A key that may do everything, made before any server ran on it."""

    async def make() -> str:
        settings = Settings(data_dir=folder / "key", database_url=SecretStr(database), secret_key=SecretStr(SECRET_KEY))
        async with open_home(settings) as home:
            return (await home.keys.create("tests"))[1]

    return asyncio.run(make())


@pytest.fixture
def common(database: str, folder: Path, running_upstream: RunningUpstream) -> Iterator[Servers]:
    """Servers that share it, each with a data directory of its own."""
    settings = {"DATABASE_URL": database, "HOMEPORT_SECRET_KEY": SECRET_KEY}
    with Servers(folder, **provider_settings(running_upstream), **settings) as servers:
        yield servers


@pytest.mark.long
def test_after_a_restart_all_that_was_under_way_ends_once(servers: Servers, threads: ThreadPoolExecutor, tmp_path: Path) -> None:
    server = servers.start("restarted")
    key = server.first_key
    assert key is not None
    with opened(server, key) as admin:
        scene = Scene(server, admin, tmp_path)
        scene.begin(threads)
    kill(scene)
    scene.release()
    scene.server = servers.start("restarted")
    with opened(scene.server, key) as scene.admin:
        # Nobody waits for it at this moment: the next attempt finds it granted.
        approval = scene.approvals()["approval-task"]
        scene.admin.call("POST", f"/approvals/{approval['id']}/decision", {"decision": "granted"})
        postgres = EmbeddedPostgres(scene.server.data_dir)
        try:
            scene.check(postgres.start())
        finally:
            postgres.stop()


def test_another_process_ends_all_that_was_under_way_once(
    common: Servers, database: str, key: str, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    victim = common.start("victim")
    with opened(victim, key) as admin:
        scene = Scene(victim, admin, tmp_path)
        scene.begin(threads)
    survivor = common.start("survivor")
    kill(scene)
    scene.release()
    scene.server = survivor
    with opened(survivor, key) as scene.admin:
        session = begin_session(survivor, scene.free, "tool-chat")
        assert say(survivor, scene.free, session, script({"say": "Here."})).json()["response"]["text"] == "Here.", "at once"
        # The job has gone to the other process, and waits there.
        eventually(lambda: read_job_attempts(database, scene.tasks["approval-task"]), lambda attempts: attempts == 2, NOTICED_S)
        eventually(lambda: scene.states("approval-task") == ["waiting"], timeout_s=NOTICED_S)
        approval = scene.approvals()["approval-task"]
        scene.admin.call("POST", f"/approvals/{approval['id']}/decision", {"decision": "granted"})
        scene.check(database)


def read_job_attempts(url: str, task_id: str) -> int:
    """How often a task was begun."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT attempts FROM jobs JOIN tasks ON tasks.job_id = jobs.id WHERE tasks.id = %s", [task_id]).fetchone()
    assert row is not None
    return int(row[0])


def test_through_two_processes_a_session_takes_one_message_at_a_time_and_sees_its_reader_leave(
    common: Servers, key: str, threads: ThreadPoolExecutor
) -> None:
    first, second = common.begin("one"), common.begin("two")
    for server in (first, second):
        server.wait_until_ready()
    with opened(first, key) as admin, opened(second, key) as other:
        app_id = admin.register("Talker", granted=("agent.chat",))
        admin.call("POST", "/agents", {"display_name": "Talker", "slug": "talker", "model": "script"})
        session = begin_session(first, app_id, "talker")
        message = script({"wait": 0.5, "say": "One of two."})
        asked = [threads.submit(say, server, app_id, session, message) for server in (first, second)]
        answers = [each.result(NOTICED_S) for each in asked]
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        assert [answer.json()["code"] for answer in answers if answer.status_code == 409] == ["SESSION_BUSY"]
        (run,) = other.call("GET", f"/agent-runs?session_id={session}")["items"]
        assert [said["role"] for said in other.call("GET", f"/agent-runs/{run['id']}")["messages"]] == ["user", "assistant"]

        def states() -> list[str]:
            return [run["state"] for run in other.call("GET", f"/agent-runs?session_id={session}")["items"]]

        with closing(HTTPConnection("127.0.0.1", first.port, timeout=TIMEOUT_S)) as leaving:
            body = json.dumps({"message": script({"wait": 60, "say": "Never."})})
            headers = {"X-App-Id": app_id, "Content-Type": "application/json"}
            leaving.request("POST", f"/sdk/agent/session/{session}/chat/stream", body, headers)
            eventually(states, lambda found: found == ["running", "completed"])
            assert say(second, app_id, session, "Meanwhile").status_code == 409
        eventually(states, lambda found: found == ["cancelled", "completed"], CANCELLED_WITHIN_S)
        assert say(second, app_id, session, "And now").status_code == 200
