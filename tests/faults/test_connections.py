"""Clients that connect and say nothing, speak slowly, stop in the middle, or do not listen."""

import json
import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import psutil
import pytest

from contract.upstream import RunningUpstream
from homeport.http.protocol import BODY_BYTES_PER_S, HEAD_S, LOOK_S, OWN_DESCRIPTORS, UNREAD_S
from tests.acceptance.conftest import provider_settings
from tests.acceptance.servers import PROCESS_TIMEOUT_S, Admin, Server, Servers, eventually, memory_folder
from tests.faults.parts import Connection, Peak, memory_mb
from tests.faults.table import Row

CHAT = {"messages": [{"role": "user", "content": "Hello"}]}
# A machine that does other things as well is late sometimes.
LATE_S = 20.0


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    """Closes what a test has opened."""
    with ExitStack() as stack:
        yield stack


STOPS = {
    "stops in the head": b"GET /health HTTP/1.1\r\nHost: local",
    "says a byte of the head a second": b"GET /health HTTP/1.1\r\nX-Long: ",
    "sends empty lines": b"\r\n",
    "stops in the body": b"POST /sdk/llm/chat HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
    b'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"messages": ',
}
EACH_SECOND = {"says a byte of the head a second": b"x", "sends empty lines": b"\r\n"}
STEADY_BYTES = 4 * BODY_BYTES_PER_S


def post(client: Connection, key: str, path: str, content: bytes, length: int) -> None:
    """Send the head of a request, and what is given of its body."""
    lines = (f"Authorization: Bearer {key}", "Content-Type: application/json", f"Content-Length: {length}")
    client.send("POST", path, *lines, body=content)


@pytest.mark.parametrize("number", [pytest.param(2_000, id="2000"), pytest.param(10_000, id="10000", marks=pytest.mark.long)])
def test_clients_that_do_not_get_on_are_shown_out(server: Server, admin: Admin, opened: ExitStack, row: Row, number: int) -> None:
    row.fault(
        f"{number} clients that say nothing, and some that stop in the middle",
        done=f"{number} connect and say nothing; others send half a head, a byte of a head a second, empty lines, half a body.",
        promised=f"All are shown out after {HEAD_S:.0f} to {HEAD_S + LOOK_S:.0f} s, told 408; others are served; memory is bounded. "
        f"Who sends a body steadily, at more than {BODY_BYTES_PER_S} bytes a second, or waits for a long answer, is left alone.",
    )
    allow_files(number + 1000, opened)
    process = psutil.Process(server.process.pid)
    before = memory_mb(process)
    began_at = time.monotonic()
    silent = [opened.enter_context(Connection(server)) for _ in range(number)]
    clients = {name: opened.enter_context(Connection(server)) for name in STOPS}
    for name, said in STOPS.items():
        clients[name].socket.sendall(said.replace(b"%b", admin.key.encode()))
    steady, waiting = (opened.enter_context(Connection(server)) for _ in range(2))
    body = json.dumps(CHAT | {"model": "echo", "padding": "x" * 120_000}).encode()
    post(steady, admin.key, "/sdk/llm/chat", b"", len(body))
    question = json.dumps(CHAT | {"model": f"slow-{HEAD_S + LOOK_S + 1:.0f}"}).encode()
    post(waiting, admin.key, "/sdk/llm/chat", question, len(question))
    eventually(process.num_fds, lambda count: count >= number, PROCESS_TIMEOUT_S)
    each_kb = (memory_mb(process) - before) * 1000 / number
    connected_at, waits = time.monotonic(), []
    ended: dict[str, tuple[float, bytes]] = {}
    while len(ended) < len(clients):
        assert time.monotonic() < connected_at + HEAD_S + LOOK_S + LATE_S, f"still connected: {clients.keys() - ended.keys()}"
        for name in clients.keys() - ended.keys():
            if (answer := _look_at(clients[name], EACH_SECOND.get(name, b""))) is not None:
                ended[name] = (time.monotonic() - began_at, answer)
        steady.socket.sendall(body[:STEADY_BYTES])
        body = body[STEADY_BYTES:]
        asked_at = time.monotonic()
        assert admin.http.get("/sdk/ping").status_code == 200
        waits.append(time.monotonic() - asked_at)
        time.sleep(1.0)
    for name, (seconds, answer) in ended.items():
        assert seconds >= HEAD_S - 1, name
        head, _, told = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 "), name
        assert json.loads(told)["code"] == "REQUEST_TIMEOUT"
        assert json.loads(told)["request_id"].encode() in head
    assert {client.status() for client in silent} == {408}
    steady.socket.sendall(body)
    assert steady.status() == waiting.status() == 200
    assert each_kb < 50
    row.happened(
        f"All were shown out, the first after {min(s for s, _ in ended.values()):.0f} s; {each_kb:.0f} KB each; /sdk/ping meanwhile:"
    )
    row.happened(f"median {sorted(waits)[len(waits) // 2] * 1000:.0f} ms, longest {max(waits) * 1000:.0f} ms. The two others were served.")


def allow_files(number: int, opened: ExitStack) -> None:
    """Let this process have so many files open for a while; skips the test where the system does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < number:
        pytest.skip(f"needs a limit of {number} open files, and it is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number), hard))
    opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))


def _look_at(client: Connection, said: bytes) -> bytes | None:
    """What a client was told before its connection was ended; None when it has not been, and says something more."""
    client.socket.setblocking(False)
    try:
        return client.socket.recv(65536)
    except BlockingIOError:
        client.socket.send(said)
        return None
    except ConnectionError:
        return b""


@pytest.mark.long
def test_more_connections_than_there_is_room_for_are_refused(running_upstream: RunningUpstream, opened: ExitStack, row: Row) -> None:
    row.fault(
        "Out of file descriptors",
        done="A server that the system lets have 300 files open gets 250 connections.",
        promised=f"It keeps half of them, at most {OWN_DESCRIPTORS}, for its own work; connections beyond get 503 at once, "
        "those within are served.",
    )
    folder = opened.enter_context(memory_folder())
    servers = opened.enter_context(Servers(folder, **provider_settings(running_upstream)))
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    server = servers.begin("few")
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (300, 300))
    server.wait_until_ready()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before
    assert server.first_key is not None
    kept = opened.enter_context(httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {server.first_key}"}, trust_env=False))
    assert kept.get("/sdk/ping").status_code == 200
    clients = [opened.enter_context(Connection(server)) for _ in range(250)]
    # Once the last one is answered all are: they are taken in their order.
    statuses = [clients.pop().status()]
    for client in clients[::-1]:
        client.socket.settimeout(0.5)
        try:
            statuses.append(client.status())
        except TimeoutError:
            break
    assert set(statuses) == {503}
    assert 250 - len(statuses) == pytest.approx(150, abs=5)
    activity = kept.post("/activities", json={"raw_data": {}}, timeout=PROCESS_TIMEOUT_S)
    assert activity.status_code == 201, "it has files left for its database"
    row.happened(f"{250 - len(statuses)} were taken, {len(statuses)} got 503 at once; a request that needs the database was served.")
    assert "Too many open files" not in server.log


STREAMS: dict[str, dict[str, object]] = {
    "/sdk/llm/chat/stream": CHAT | {"model": "long-400000"},
    "/sdk/tts/stream": {"text": "A sentence of some words. " * 150, "provider": "openai", "model": "tts"},
}


@pytest.mark.long
def test_readers_that_stop_reading(server: Server, admin: Admin, upstream: RunningUpstream, opened: ExitStack, row: Row) -> None:
    row.fault(
        "Slow readers of streams",
        done="Clients ask for a chat and for speech, each larger than all buffers, and do not read.",
        promised=f"The server keeps a bounded part; after {UNREAD_S:.0f} s without reading it ends them and the calls to the model.",
    )
    clients = {path: opened.enter_context(Connection(server, receive_buffer=8192)) for path in STREAMS}
    with Peak(psutil.Process(server.process.pid)) as peak:
        began_at = time.monotonic()
        for path, body in STREAMS.items():
            content = json.dumps(body).encode()
            post(clients[path], admin.key, path, content, len(content))
            assert clients[path].status() == 200
        eventually(lambda: server.log.count("did not read what was sent"), lambda count: count == 2, UNREAD_S + LATE_S)
        took_s = time.monotonic() - began_at
        # The stand-in itself takes a while to notice: it writes on into a connection that is gone.
        eventually(lambda: upstream.state.open, lambda count: count == 0, LATE_S)
    assert took_s > UNREAD_S - 1
    assert peak.grown < 64
    for client in clients.values():
        assert b"[DONE]" not in client.rest()
    row.happened(
        f"Both ended after {took_s:.0f} s; the server had grown by {peak.grown:.0f} MB at the most; no call to a model was left open."
    )
