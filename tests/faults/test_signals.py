"""SIGTERM and SIGKILL while everything is going on at once: streams, a chat, a tool, questions to people, a job, a launched app."""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from contract.upstream import RunningUpstream
from tests.acceptance.servers import PROCESS_TIMEOUT_S, Admin, Json, Server, Servers, eventually
from tests.acceptance.test_ingest import begin, ended, long_documents, look
from tests.acceptance.test_killed import WORKING, begin_session, script
from tests.faults.parts import call, events_of
from tests.faults.table import Row

GRANTED = (
    *("agent.chat", "llm.chat", "llm.embed", "mcp.tools", "tts.generate", "vectors.read", "vectors.write", "webhook.trigger"),
    *("activities.read", "activities.write", "api.task"),
)
PROGRAM = str(Path(__file__).parents[1] / "local_app.py")
SHUTDOWN_S = 2
DOCUMENTS = 250
# Nothing ends by itself before the server does.
PATIENT = dict.fromkeys(("HOMEPORT_PERMISSION_WAIT_S", "HOMEPORT_CHAT_TIMEOUT_S", "HOMEPORT_STREAM_IDLE_S"), "600")
# Beyond what requests get: for tools, apps and the database to end, on a machine that does other things as well.
STOPPED_WITHIN_S = 30.0
TAKEN_OVER_S = 60.0


class Scene:
    """A server in the middle of everything."""

    def __init__(self, server: Server, key: str, folder: Path, threads: ThreadPoolExecutor, upstream: RunningUpstream) -> None:
        self.server, self.key, self.folder = server, key, folder
        self.answers: dict[str, Future[httpx.Response]] = {}
        admin = Admin(server.url, key)
        with admin.http:
            self.free = admin.register("Free", granted=GRANTED)
            self.bound = admin.register("Bound", granted=("agent.chat",))
            admin.call("POST", "/mcp-servers", {"name": "working", "command": sys.executable, "args": [str(WORKING)], "timeout_s": 600})
            for slug in ("uses-a-tool", "waits-for-a-person", "works-on-a-task"):
                agent = {"display_name": slug, "slug": slug, "model": "script", "tools": ["working/*"], "limits": {"tool_time_s": 600}}
                admin.call("POST", "/agents", agent)
            launch = {
                "command": sys.executable,
                "args": ["-S", PROGRAM, "child"],
                "home_url": "http://127.0.0.1:{port}/",
                "autostart": True,
            }
            self.launched: str = admin.call("POST", "/apps", {"name": "Launched", "launch": launch})["id"]
            admin.call("POST", f"/apps/{self.launched}/start")
            self.job = begin(server, self.free, long_documents(DOCUMENTS))
            self.begin_requests(threads)
            self.task = self.trigger()
            self.wait_until_all_runs(admin, upstream)
        self.activities = [self.store(number) for number in range(20)]

    def begin_requests(self, threads: ThreadPoolExecutor) -> None:
        """Send what stays open."""
        hold, append = self.folder / "held", self.folder / "appended"
        tool = script({"say": "I use it.", "call": [{"tool": "hold", "arguments": {"file": str(hold)}}]}, {"say": "Done."})
        asks = script({"say": "I ask.", "call": [{"tool": "append", "arguments": {"file": str(append), "line": "x"}}]}, {"say": "Done."})
        chat = {"messages": [{"role": "user", "content": "Hello"}]}
        speech = {"text": "A sentence of some words. " * 20, "provider": "openai", "model": "slow-600"}
        for name, app_id, path, body in (
            ("chat", self.free, "/sdk/llm/chat", chat | {"model": "stall"}),
            ("chat stream", self.free, "/sdk/llm/chat/stream", chat | {"model": "endless"}),
            ("speech stream", self.free, "/sdk/tts/stream", speech),
            ("permission wait", self.bound, "/sdk/register", {"app_id": self.bound, "permissions": ["llm.chat"]}),
            ("agent with a tool", self.free, f"/sdk/agent/session/{self.session(self.free, 'uses-a-tool')}/chat/stream", {"message": tool}),
            (
                "approval wait",
                self.bound,
                f"/sdk/agent/session/{self.session(self.bound, 'waits-for-a-person')}/chat/stream",
                {"message": asks},
            ),
        ):
            self.answers[name] = threads.submit(call, self.server, "POST", path, app_id, body)

    def session(self, app_id: str, agent: str) -> str:
        """Begin a conversation."""
        return begin_session(self.server, app_id, agent)

    def trigger(self) -> str:
        """Hand a task to an agent whose model does not answer as long as a file is there."""
        (self.folder / "task").touch()
        prompt = script({"say": "The task is done.", "hold": str(self.folder / "task")})
        payload = {"raw_data": {}, "auto_run": True, "agent_name": "works-on-a-task", "workspace_slug": "default", "prompt": prompt}
        answer = call(
            self.server, "POST", "/webhooks/realtimex", self.free, {"event": "task.trigger", "app_id": self.free, "payload": payload}
        )
        assert answer.is_success, answer.text
        return str(answer.json()["task_uuid"])

    def store(self, number: int) -> str:
        """Store an activity; returns its id."""
        answer = call(self.server, "POST", "/activities", self.free, {"raw_data": {"n": number}})
        assert answer.status_code == 201
        return str(answer.json()["data"]["id"])

    def wait_until_all_runs(self, admin: Admin, upstream: RunningUpstream) -> None:
        """Return when each is in the middle of it."""
        eventually((self.folder / "held").exists, timeout_s=PROCESS_TIMEOUT_S)
        eventually(lambda: admin.call("GET", "/approvals?state=pending")["items"], timeout_s=PROCESS_TIMEOUT_S)
        eventually(lambda: admin.pending(self.bound), timeout_s=PROCESS_TIMEOUT_S)
        running = ("running", PROCESS_TIMEOUT_S)
        eventually(lambda: admin.call("GET", f"/apps/{self.launched}/process")["state"], lambda state: state == running[0], running[1])
        eventually(lambda: look(self.server, self.free, self.job)["done"], timeout_s=PROCESS_TIMEOUT_S)
        # Chat, stream, speech and the task's agent.
        eventually(lambda: upstream.state.open, lambda count: count >= 4, PROCESS_TIMEOUT_S)

    def started(self) -> list[psutil.Process]:
        """What the server has started and what that has, apart from its database and its own workers."""
        children = psutil.Process(self.server.process.pid).children(recursive=True)
        return [each for each in children if each.name() != "postgres"]


def left_of(processes: list[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Those that have not ended by then."""
    _, left = psutil.wait_procs(processes, timeout_s)
    return [each for each in left if each.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """For requests that stay open."""
    with ThreadPoolExecutor(8) as executor:
        yield executor


def check_after(servers: Servers, scene: Scene, name: str, row: Row) -> None:
    """Start it again: what was stored is there, what can go on does, what cannot has failed, and nothing was done twice."""
    (scene.folder / "held").unlink(missing_ok=True)
    (scene.folder / "task").unlink(missing_ok=True)
    server = servers.start(name)
    admin = Admin(server.url, scene.key)
    with admin.http:
        listed = call(server, "GET", "/activities?limit=100", scene.free).json()["data"]
        assert {each["id"] for each in listed} == set(scene.activities)
        job = ended(server, scene.free, scene.job)
        assert (job["state"], job["done"]) == ("completed", DOCUMENTS)
        task = eventually(
            lambda: admin.call("GET", f"/tasks/{scene.task}"), lambda found: found["status"] in ("completed", "failed"), TAKEN_OVER_S
        )
        assert task["status"] == "completed"
        runs = eventually(
            lambda: admin.call("GET", "/agent-runs")["items"],
            lambda found: {run["state"] for run in found} <= {"completed", "failed", "cancelled"},
            TAKEN_OVER_S,
        )
        states = {run["agent"]: run["state"] for run in runs}
        assert states.pop("works-on-a-task") == "completed"
        assert len(states) == 2
        assert set(states.values()) <= {"failed", "cancelled"}
        assert not (scene.folder / "appended").exists(), "nobody has allowed it"
        process = eventually(
            lambda: admin.call("GET", f"/apps/{scene.launched}/process"), lambda found: found["state"] == "running", TAKEN_OVER_S
        )
        programs = [each for each in psutil.process_iter() if PROGRAM in _words(each)]
        assert [each.pid for each in programs] == [process["pid"]], "exactly one"
        row.happened("After the next start: all 20 activities, the job with all its documents, the task completed, the two conversations")
        row.happened(f"{' and '.join(sorted(set(states.values())))}, the app started again once.")
    started = psutil.Process(server.process.pid).children(recursive=True)
    assert server.stop() == 0
    assert left_of(started, STOPPED_WITHIN_S) == []


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.long
def test_sigterm_while_everything_is_going_on(
    servers: Servers, upstream: RunningUpstream, threads: ThreadPoolExecutor, tmp_path: Path, row: Row
) -> None:
    row.fault(
        "SIGTERM in every state",
        done="A server is told to stop while a chat, a chat stream, a speech stream, an agent with a tool, an approval, a permission "
        "request, a task, a job and a launched app are under way.",
        promised=f"Status 0 within seconds after the {SHUTDOWN_S} s that requests get; each is told that the server stops; "
        "no process is left; the next start goes on.",
    )
    server = servers.start("told", **PATIENT, HOMEPORT_SHUTDOWN_S=str(SHUTDOWN_S))
    assert server.first_key is not None
    scene = Scene(server, server.first_key, tmp_path, threads, upstream)
    started = psutil.Process(server.process.pid).children(recursive=True)
    assert len(started) > 4
    began_at = time.monotonic()
    assert server.stop() == 0
    took_s = time.monotonic() - began_at
    assert took_s < SHUTDOWN_S + STOPPED_WITHIN_S
    assert left_of(started, 5) == []
    codes = {name: _code_of(answer.result(PROCESS_TIMEOUT_S)) for name, answer in scene.answers.items()}
    assert set(codes.values()) <= {"SERVER_STOPPING", "INTERRUPTED"}, codes
    assert '"exception"' not in server.log
    row.happened(f"Status 0 after {took_s:.1f} s, {len(started)} processes ended; answers: {', '.join(sorted(set(codes.values())))}.")
    check_after(servers, scene, "told", row)


@pytest.mark.long
def test_sigkill_while_everything_is_going_on(
    servers: Servers, upstream: RunningUpstream, threads: ThreadPoolExecutor, tmp_path: Path, row: Row
) -> None:
    row.fault(
        "SIGKILL in every state",
        done="The same with kill -9.",
        promised="Connections break; tools and voices end with the server; the next start ends what an app has left, and goes on.",
    )
    server = servers.start("killed", **PATIENT)
    assert server.first_key is not None
    scene = Scene(server, server.first_key, tmp_path, threads, upstream)
    started = [each for each in scene.started() if PROGRAM not in _words(each) and each.ppid() == server.process.pid]
    server.kill()
    broken = [type(answer.exception(PROCESS_TIMEOUT_S)) for answer in scene.answers.values()]
    assert all(issubclass(each, httpx.TransportError) for each in broken), broken
    assert left_of(started, STOPPED_WITHIN_S) == [], "a tool or a voice outlives the server"
    row.happened(f"{len(broken)} connections broke; {len(started)} tools and voices ended by themselves.")
    check_after(servers, scene, "killed", row)


def _code_of(answer: httpx.Response) -> str:
    """The code of an error, whole or at the end of a stream."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        last: Json = events_of(answer)[-1][1]
        return str(last["code"])
    return str(json.loads(answer.text)["code"])
