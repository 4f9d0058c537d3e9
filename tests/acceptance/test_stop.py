"""How a server ends: told to, before it has begun, by a crash; and how a call to a model ends when its client leaves."""

import asyncio
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from contract.upstream import RunningUpstream
from homeport.home import open_home
from homeport.settings import Settings
from tests.acceptance.servers import PROCESS_TIMEOUT_S, TIMEOUT_S, Admin, Json, Server, Servers, eventually

DATA_DIR = "home"
# What the server promises to a model provider whose client has left.
CANCELLED_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What was made in the data directory before any server ran on it."""

    key: str
    app_id: str


@pytest.fixture(scope="module")
def credentials(folder: Path) -> Credentials:
    """A data directory for the servers of this module, with a key and an app in it."""

    async def prepare(data_dir: Path) -> Credentials:
        async with open_home(Settings(data_dir=data_dir)) as home:
            _, key = await home.keys.create("tests")
            app = await home.apps.register("Survivor")
            await home.permissions.set_grant(app.id, "activities.read", "granted", "test")
            return Credentials(key, str(app.id))

    return asyncio.run(prepare(folder / DATA_DIR))


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    """Closes what the test has opened."""
    with ExitStack() as stack:
        yield stack


def connect(connections: ExitStack, server: Server) -> HTTPConnection:
    return connections.enter_context(closing(HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)))


def post(connections: ExitStack, server: Server, path: str, key: str | None, body: dict[str, Any]) -> HTTPConnection:
    """Send a request; its answer is read later."""
    connection = connect(connections, server)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    connection.request("POST", path, json.dumps(body), headers)
    return connection


def chat(connections: ExitStack, server: Server, key: str, model: str, *, stream: bool) -> HTTPConnection:
    """Begin a chat with one of the stand-in's models."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    return post(connections, server, "/sdk/llm/chat/stream" if stream else "/sdk/llm/chat", key, body)


def next_event(response: HTTPResponse) -> tuple[str, Any]:
    """The name and the data of the next event."""
    name = "message"
    while line := response.readline().decode().rstrip("\n"):
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data = value
    return name, data if data == "[DONE]" else json.loads(data)


def events_of(response: HTTPResponse) -> Iterator[tuple[str, Any]]:
    """Events until the stream ends."""
    while response.peek(1):
        yield next_event(response)


def is_refused(server: Server) -> bool:
    """Whether nobody listens on the server's port any more, on either loopback address."""
    refused = []
    for host in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((host, server.port), TIMEOUT_S).close()
            refused.append(False)
        except OSError as error:
            refused.append(isinstance(error, ConnectionRefusedError))
    return all(refused)


def postgres_of(server: Server) -> psutil.Process:
    postgres = server.postgres()
    assert postgres is not None
    return postgres


def assert_stopped(server: Server, postgres: psutil.Process) -> None:
    """It has ended, or is about to, as it should: status 0, no embedded database left, no traceback."""
    assert server.wait() == 0
    postgres.wait(TIMEOUT_S)
    assert "Traceback" not in server.log
    assert '"exception"' not in server.log


def test_open_streams_finish_but_nobody_new_is_served(
    servers: Servers, credentials: Credentials, upstream: RunningUpstream, connections: ExitStack
) -> None:
    server = servers.start(DATA_DIR, "--workers", "2")
    postgres = postgres_of(server)
    idle = connect(connections, server)
    idle.request("GET", "/health")
    assert idle.getresponse().read()
    stream = chat(connections, server, credentials.key, "slow-1.5", stream=True)
    answer = chat(connections, server, credentials.key, "slow-1.5", stream=False)
    eventually(lambda: upstream.state.open, lambda count: count == 2)

    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: is_refused(server))
    assert upstream.state.open == 2
    assert idle.sock.recv(1) == b""

    events = list(events_of(stream.getresponse()))
    assert "".join(data["textResponse"] for _, data in events[:-1]) == "You said: Hello"
    assert events[-1] == ("message", "[DONE]")
    assert json.loads(answer.getresponse().read())["response"]["content"] == "You said: Hello"
    assert_stopped(server, postgres)


def test_what_does_not_finish_in_time_ends_with_an_error_that_says_why(
    servers: Servers, credentials: Credentials, upstream: RunningUpstream, connections: ExitStack
) -> None:
    server = servers.start(DATA_DIR, HOMEPORT_SHUTDOWN_S="1")
    postgres = postgres_of(server)
    endless = chat(connections, server, credentials.key, "endless", stream=True).getresponse()
    silent = chat(connections, server, credentials.key, "stall", stream=True).getresponse()
    stalled = chat(connections, server, credentials.key, "stall", stream=False)
    registering = post(connections, server, "/sdk/register", None, {"app_id": credentials.app_id, "permissions": ["llm.chat"]})
    assert next_event(endless)[1]["textResponse"]
    assert next_event(silent)[1]["textResponse"] == "Once"
    eventually(lambda: upstream.state.open, lambda count: count == 3)
    eventually(lambda: server.logged("permission requested"))

    server.process.send_signal(signal.SIGINT)
    eventually(lambda: is_refused(server))
    # A second signal, sent by somebody who cannot wait, changes nothing.
    server.process.send_signal(signal.SIGTERM)
    for stream in (endless, silent):
        *pieces, (name, error) = events_of(stream)
        assert {name for name, _ in pieces} <= {"message"}
        assert name == "error"
        assert (error["success"], error["code"]) == (False, "SERVER_STOPPING")
        assert "stop" in error["error"]
    for connection in (stalled, registering):
        response = connection.getresponse()
        assert (response.status, response.headers["content-type"]) == (503, "application/json")
        body = json.loads(response.read())
        assert (body["success"], body["code"], body["request_id"]) == (False, "SERVER_STOPPING", response.headers["x-request-id"])
    assert_stopped(server, postgres)
    eventually(lambda: upstream.state.open, lambda count: count == 0)
    assert upstream.state.cancelled == 3


def test_a_signal_right_after_the_announcement_is_not_lost(servers: Servers, credentials: Credentials) -> None:
    assert credentials
    server = servers.begin(DATA_DIR)
    server.wait_until_announced()
    postgres = postgres_of(server)
    server.process.send_signal(signal.SIGTERM)
    assert_stopped(server, postgres)


def test_a_server_that_is_stopped_while_it_starts_leaves_no_database(servers: Servers, credentials: Credentials) -> None:
    assert credentials
    server = servers.begin(DATA_DIR)
    eventually(lambda: server.logged("embedded database ready"), timeout_s=PROCESS_TIMEOUT_S)
    postgres = postgres_of(server)
    server.process.send_signal(signal.SIGTERM)
    assert_stopped(server, postgres)


@pytest.mark.long
def test_what_was_written_before_a_crash_is_there_after_it(servers: Servers, credentials: Credentials) -> None:
    as_app = {"X-App-Id": credentials.app_id}

    def write(server: Server, count: int) -> list[Json]:
        with Admin(server.url, credentials.key).http as http:
            return [http.post("/activities", json={"raw_data": {"n": n}}, headers=as_app).json()["data"] for n in range(count)]

    first = servers.start(DATA_DIR)
    postgres = postgres_of(first)
    written = write(first, 10)
    first.kill()

    second = servers.start(DATA_DIR)
    assert postgres_of(second) == postgres  # which the first has left behind
    written += write(second, 10)
    second.kill()
    postgres.kill()
    postgres.wait(TIMEOUT_S)

    third = servers.start(DATA_DIR)
    # The app by its own id, with what it was granted before any of this.
    listed = httpx.get(f"{third.url}/activities", headers=as_app, timeout=TIMEOUT_S, trust_env=False).json()["data"]
    assert listed == written[::-1]
    postgres = postgres_of(third)
    third.process.send_signal(signal.SIGTERM)
    assert_stopped(third, postgres)


@pytest.mark.parametrize("model", ["slow-60", "stall", "endless"])
@pytest.mark.parametrize("stream", [False, True], ids=["chat", "stream"])
def test_a_client_that_leaves_cancels_the_call_to_the_model(
    server: Server, admin: Admin, upstream: RunningUpstream, connections: ExitStack, model: str, stream: bool
) -> None:
    connection = chat(connections, server, admin.key, model, stream=stream)
    eventually(lambda: upstream.state.open, lambda count: count == 1)
    if stream and not model.startswith("slow"):
        next_event(connection.getresponse())
    # The socket itself: the answer's file would keep it open.
    connection.sock and connection.sock.close()
    connection.close()
    eventually(lambda: upstream.state.cancelled, lambda count: count == 1, CANCELLED_WITHIN_S)
    assert upstream.state.open == 0
