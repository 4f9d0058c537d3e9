"""Several server processes on one database: whatever is done through one holds in the others, and a crash of one loses nothing."""

import base64
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import count
from typing import Self

import httpx
import psutil
import pytest

from adapters.postgres import EmbeddedPostgres
from contract.upstream import RunningUpstream
from tests.acceptance.conftest import provider_settings
from tests.acceptance.servers import PROCESS_TIMEOUT_S, TIMEOUT_S, Admin, Json, Server, Servers, eventually, memory_folder

ACKNOWLEDGED_BEFORE_CRASH = 200
WRITERS = 4


@dataclass(frozen=True, slots=True)
class Pair:
    """Two servers that were started at the same moment on an empty database."""

    first: Server
    second: Server
    key: str


@pytest.fixture(scope="module")
def common(running_upstream: RunningUpstream) -> Iterator[Servers]:
    """Servers that share a database, and each with a data directory of its own."""
    with memory_folder() as folder:
        postgres = EmbeddedPostgres(folder / "database")
        url = postgres.start()
        settings = {
            "DATABASE_URL": url,
            "HOMEPORT_SECRET_KEY": base64.b64encode(bytes(32)).decode(),
            "HOMEPORT_PERMISSION_WAIT_S": "20",
        }
        try:
            with Servers(folder, **provider_settings(running_upstream), **settings) as servers:
                yield servers
        finally:
            postgres.stop()


@pytest.fixture(scope="module")
def pair(common: Servers) -> Pair:
    first, second = common.begin("first"), common.begin("second")
    for server in (first, second):
        server.wait_until_ready()
    keys = [server.first_key for server in (first, second) if server.first_key]
    assert len(keys) == 1, "the first key is made once, by one of them"
    return Pair(first, second, keys[0])


@pytest.fixture(scope="module")
def first(pair: Pair) -> Iterator[Admin]:
    """The administrator of one of them."""
    admin = Admin(pair.first.url, pair.key)
    with admin.http:
        yield admin


@pytest.fixture(scope="module")
def second(pair: Pair) -> Iterator[Admin]:
    """The administrator of the other."""
    admin = Admin(pair.second.url, pair.key)
    with admin.http:
        yield admin


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as executor:
        yield executor


def call(server: Server, method: str, path: str, app_id: str, body: Json | None = None) -> httpx.Response:
    """Call an operation as an app, on a connection of its own."""
    return httpx.request(method, server.url + path, json=body, headers={"X-App-Id": app_id}, timeout=20, trust_env=False)


def ask(server: Server, app_id: str, *permissions: str) -> Json:
    """Register an app's permissions; the answer waits for the decisions."""
    body = {"app_id": app_id, "permissions": permissions}
    answer: Json = httpx.post(f"{server.url}/sdk/register", json=body, timeout=30, trust_env=False).json()
    return answer


# --- one state


def test_an_app_that_is_registered_through_one_is_known_to_the_other_at_once(pair: Pair, first: Admin) -> None:
    for _ in range(5):
        app_id = first.register("Seen")
        assert call(pair.second, "GET", "/sdk/ping", app_id).json()["appId"] == app_id


def test_an_app_that_is_removed_through_one_is_unknown_to_the_other(pair: Pair, first: Admin) -> None:
    app_id = first.register("Removed")
    assert call(pair.second, "GET", "/sdk/ping", app_id).status_code == 200
    first.call("DELETE", f"/apps/{app_id}")
    eventually(lambda: call(pair.second, "GET", "/sdk/ping", app_id).status_code, lambda status: status == 401)


def test_a_grant_through_one_is_in_force_in_the_other_before_it_is_answered(pair: Pair, first: Admin) -> None:
    app_id = first.register("Granted")
    assert call(pair.second, "GET", "/agents", app_id).status_code == 403
    first.grant(app_id, "api.agents")
    assert call(pair.second, "GET", "/agents", app_id).status_code == 200


def test_a_denial_through_one_ends_what_the_other_allowed(pair: Pair, first: Admin, second: Admin) -> None:
    app_id = first.register("Denied", granted=("api.agents",))
    assert call(pair.second, "GET", "/agents", app_id).status_code == 200
    first.grant(app_id, "api.agents", "denied")
    refused = eventually(lambda: call(pair.second, "GET", "/agents", app_id), lambda answer: answer.status_code == 403)
    assert refused.json()["code"] == "PERMISSION_DENIED"
    assert second.grants(app_id) == {"api.agents": "denied"}


def test_a_key_that_is_revoked_through_one_is_refused_by_the_other(pair: Pair, first: Admin) -> None:
    key = first.create_key()
    ping = httpx.Request("GET", f"{pair.second.url}/sdk/ping", headers={"x-api-key": key["key"]})
    with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as http:
        assert http.send(ping).status_code == 200
        first.call("DELETE", f"/api-keys/{key['id']}")
        eventually(lambda: http.send(ping).status_code, lambda status: status == 401)


def test_activities_are_the_same_through_both(pair: Pair, first: Admin) -> None:
    app_id = first.register("Writer", granted=("activities.read", "activities.write"))
    written = call(pair.first, "POST", "/activities", app_id, {"raw_data": {"n": 1}}).json()["data"]
    path = f"/activities/{written['id']}"
    assert call(pair.second, "GET", path, app_id).json()["data"] == written
    changed = call(pair.second, "PATCH", path, app_id, {"status": "completed", "result": {"by": "second"}}).json()["data"]
    assert call(pair.first, "GET", "/activities?status=completed", app_id).json()["data"] == [changed]
    assert call(pair.first, "DELETE", path, app_id).status_code == 200
    assert call(pair.second, "GET", path, app_id).status_code == 404


def test_a_users_token_that_one_was_given_is_handed_out_by_the_other(pair: Pair, first: Admin) -> None:
    app_id = first.register("Signed", granted=("activities.read",), requires_user=True)
    assert call(pair.second, "GET", "/activities", app_id).status_code == 403
    assert call(pair.first, "POST", "/sdk/auth/sync-supabase-token", app_id, {"token": "a.user.token"}).status_code == 200
    assert call(pair.second, "GET", "/sdk/auth/token", app_id).json()["token"] == "a.user.token"
    assert call(pair.second, "GET", "/activities", app_id).status_code == 200


# --- waiting


def test_a_decision_through_one_ends_the_waits_on_both(pair: Pair, first: Admin, threads: ThreadPoolExecutor) -> None:
    for _ in range(5):
        app_id = first.register("Waiting")
        asking = [threads.submit(ask, server, app_id, "api.agents", "llm.chat") for server in (pair.first, pair.second)]
        first.decide(app_id, {"api.agents": "granted", "llm.chat": "denied"})
        for answer in asking:
            assert answer.result(TIMEOUT_S)["permissions"] == {"granted": ["api.agents"], "denied": ["llm.chat"]}
        # Also when the one was still recording what it asks for while the other was being answered.
        assert not first.pending(app_id)
        assert call(pair.second, "GET", "/agents", app_id).status_code == 200


def test_a_grant_that_nobody_asked_about_ends_the_wait_on_the_other_too(
    pair: Pair, first: Admin, second: Admin, threads: ThreadPoolExecutor
) -> None:
    app_id = first.register("Waiting")
    asking = threads.submit(ask, pair.second, app_id, "api.agents")
    eventually(lambda: second.pending(app_id))
    first.grant(app_id, "api.agents")
    assert asking.result(TIMEOUT_S)["permissions"]["granted"] == ["api.agents"]


# --- races


def test_a_claim_that_is_raced_for_through_both_has_one_winner(pair: Pair, first: Admin, threads: ThreadPoolExecutor) -> None:
    app_id = first.register("Racer", granted=("activities.read", "activities.write"))
    paths = [f"/activities/{call(pair.first, 'POST', '/activities', app_id, {'raw_data': {}}).json()['data']['id']}" for _ in range(8)]

    def claim(path: str, number: int) -> httpx.Response:
        server = (pair.first, pair.second)[number % 2]
        return call(server, "PATCH", path, app_id, {"status": "claimed", "locked_by": f"machine-{number}"})

    claims = [(path, threads.submit(claim, path, number)) for path in paths for number in range(8)]
    for path in paths:
        answers = [claimed.result(20) for each, claimed in claims if each == path]
        winners = [answer.json()["data"]["locked_by"] for answer in answers if answer.status_code == 200]
        assert len(winners) == 1
        assert {answer.json()["code"] for answer in answers if answer.status_code != 200} == {"ACTIVITY_CONFLICT"}
        assert call(pair.second, "GET", path, app_id).json()["data"]["locked_by"] == winners[0]


def test_a_request_that_is_decided_both_ways_at_once_is_decided_one_way(
    pair: Pair, first: Admin, second: Admin, threads: ThreadPoolExecutor
) -> None:
    app_id = first.register("Contested")
    asking = threads.submit(ask, pair.first, app_id, "llm.chat")
    request = eventually(lambda: first.pending(app_id))["llm.chat"]

    def decide(admin: Admin, decision: str) -> tuple[str, int]:
        path = f"/admin/v1/permission-requests/{request['id']}/decision"
        return decision, admin.http.post(path, json={"decision": decision}).status_code

    decisions = [threads.submit(decide, first, "granted"), threads.submit(decide, second, "denied")]
    statuses = dict(decided.result(TIMEOUT_S) for decided in decisions)
    assert sorted(statuses.values()) == [200, 409]
    (decision,) = (each for each, status in statuses.items() if status == 200)
    assert asking.result(TIMEOUT_S)["permissions"][decision] == ["llm.chat"]
    assert second.grants(app_id) == {"llm.chat": decision}


# --- crashes


class Writers:
    """Threads that write activities through a server, until the block ends or the server is gone."""

    def __init__(self, threads: ThreadPoolExecutor, server: Server, app_id: str) -> None:
        self.acknowledged: list[str] = []
        self._is_done = False
        self._server = server
        self._app_id = app_id
        self._futures: list[Future[None]] = [threads.submit(self._write) for _ in range(WRITERS)]

    def wait_for(self, number: int) -> None:
        """Return when so many more rows are acknowledged."""
        target = len(self.acknowledged) + number
        eventually(lambda: len(self.acknowledged), lambda acknowledged: acknowledged >= target, PROCESS_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done = True
        for future in as_completed(self._futures, PROCESS_TIMEOUT_S):
            future.result()

    def _write(self) -> None:
        with httpx.Client(base_url=self._server.url, headers={"X-App-Id": self._app_id}, timeout=20, trust_env=False) as http:
            for number in count():
                if self._is_done:
                    return
                try:
                    answer = http.post("/activities", json={"raw_data": {"number": number}})
                except httpx.ConnectError:
                    if self._server.process.poll() is not None:
                        return
                except httpx.TransportError:
                    continue  # cut off: whether the row was written is not known
                else:
                    assert answer.status_code == 201, answer.text
                    self.acknowledged.append(answer.json()["data"]["id"])


def found_through(server: Server, app_id: str) -> list[str]:
    """The ids of all of an app's activities."""
    found: list[str] = []
    while page := call(server, "GET", f"/activities?limit=1000&offset={len(found)}", app_id).json()["data"]:
        found += [activity["id"] for activity in page]
    return found


def test_a_server_that_is_killed_while_it_writes_loses_no_acknowledged_row(
    common: Servers, pair: Pair, first: Admin, threads: ThreadPoolExecutor
) -> None:
    victim = common.start("victim")
    app_id = first.register("Tireless", granted=("activities.read", "activities.write"))
    with Writers(threads, victim, app_id) as writers:
        writers.wait_for(ACKNOWLEDGED_BEFORE_CRASH)
        victim.kill()

    found = found_through(pair.second, app_id)
    assert len(found) == len(set(found))
    assert set(writers.acknowledged) <= set(found)
    assert len(found) <= len(writers.acknowledged) + WRITERS, "rows that nobody wrote"
    assert call(pair.second, "POST", "/activities", app_id, {"raw_data": {}}).status_code == 201
    assert call(pair.first, "GET", "/sdk/ping", app_id).status_code == 200


@pytest.fixture(scope="module")
def several(common: Servers, pair: Pair) -> Server:
    """A server of two processes, on the database of the others."""
    server = common.start("several", "--workers", "2")
    eventually(lambda: len(server.logged("Application startup complete")), lambda number: number == 2, PROCESS_TIMEOUT_S)
    return server


def answering(server: Server, ask_one: Callable[[], httpx.Response], threads: ThreadPoolExecutor) -> dict[str, int]:
    """Ask on many connections at once until both processes have answered; the statuses by process."""

    def ask_all() -> dict[str, int]:
        answers = [future.result(20) for future in [threads.submit(ask_one) for _ in range(16)]]
        # The first half of an id that the server gives names the process.
        return {answer.headers["x-request-id"][:16]: answer.status_code for answer in answers}

    return eventually(ask_all, lambda statuses: len(statuses) >= 2, PROCESS_TIMEOUT_S)


def test_both_processes_of_one_server_know_the_same_at_once(several: Server, first: Admin, threads: ThreadPoolExecutor) -> None:
    app_id = first.register("Everywhere", granted=("api.agents",))
    statuses = answering(several, lambda: call(several, "GET", "/agents", app_id), threads)
    assert set(statuses.values()) == {200}
    first.grant(app_id, "api.agents", "denied")
    eventually(
        lambda: set(answering(several, lambda: call(several, "GET", "/agents", app_id), threads).values()), lambda found: found == {403}
    )


def test_a_process_that_is_killed_while_it_writes_is_replaced_and_loses_nothing(
    several: Server, pair: Pair, first: Admin, threads: ThreadPoolExecutor
) -> None:
    app_id = first.register("Tireless", granted=("activities.read", "activities.write"))
    before = {process.pid for process in several.workers()}
    assert len(before) == 2
    with Writers(threads, several, app_id) as writers:
        writers.wait_for(50)
        psutil.Process(min(before)).kill()
        writers.wait_for(50)
    eventually(lambda: len(several.logged("Application startup complete")), lambda number: number == 3, PROCESS_TIMEOUT_S)
    assert len({process.pid for process in several.workers()} - before) == 1
    assert set(writers.acknowledged) <= set(found_through(pair.second, app_id))


def test_the_processes_of_a_server_end_when_the_one_that_started_them_is_killed(several: Server, pair: Pair) -> None:
    workers = several.workers()
    assert len(workers) == 2
    several.kill()
    _, left = psutil.wait_procs(workers, PROCESS_TIMEOUT_S)
    for process in left:
        process.kill()
    assert not left
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{several.url}/health", timeout=TIMEOUT_S, trust_env=False)
    assert httpx.get(f"{pair.first.url}/health", timeout=TIMEOUT_S, trust_env=False).status_code == 200


def test_one_that_is_stopped_leaves_the_others_running(pair: Pair, second: Admin) -> None:
    assert pair.first.stop(signal.SIGTERM) == 0
    assert second.http.get("/sdk/ping").status_code == 200
