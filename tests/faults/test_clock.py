"""The clock of the machine jumps by an hour and by a day, forwards and backwards, while Homeport and PostgreSQL run.

libfaketime stands between both and the system's clock; what they read is changed by a file. The monotonic clock goes on, as it does when
an administrator or NTP sets the time.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from contract.upstream import RunningUpstream
from tests.acceptance.conftest import provider_settings
from tests.acceptance.servers import PROCESS_TIMEOUT_S, Admin, Server, Servers, eventually, memory_folder
from tests.acceptance.test_ingest import begin, long_documents, look
from tests.acceptance.test_killed import begin_session, script
from tests.faults.parts import call
from tests.faults.table import Row
from tests.integration.external_postgres import ExternalServer, external_binaries, run_external
from tests.integration.servers import run_sql
from tests.system_packages import require_package

pytestmark = pytest.mark.long

HOUR_S = 3600
DAY_S = 24 * HOUR_S
WAIT_S = 6.0
# Each process looks at the file once more than a second has passed, and counts whole ones: then all agree again.
AGREED_S = 2.2
DOCUMENTS = 150
# On a machine that does other things as well.
LATE_S = 20.0
GRANTED = ("activities.read", "agent.chat", "agent.files", "llm.chat", "llm.embed", "vectors.read", "vectors.write")


class Clock:
    """What the processes take for the time: the system's, so many seconds off."""

    def __init__(self, folder: Path) -> None:
        require_package("faketime")
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
        self._file = folder / "offset"
        self.jump(0)
        self._file.chmod(0o644)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            # Seconds for which each process remembers what the file says; reading it each time is much too slow.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, offset_s: int) -> None:
        """Set the clock."""
        partial = self._file.with_suffix(".partial")
        partial.write_text(f"{offset_s:+d}\n", encoding="utf-8")
        partial.chmod(0o644)
        partial.replace(self._file)
        self.offset_s = offset_s

    def now(self) -> datetime:
        """What they take it to be."""
        return datetime.now(UTC) + timedelta(seconds=self.offset_s)


@pytest.fixture(scope="module")
def clock() -> Iterator[Clock]:
    """Set right for each test by ``jumping``. PostgreSQL's user must be able to read it."""
    with memory_folder() as folder:
        folder.chmod(0o755)
        yield Clock(folder)


@pytest.fixture(scope="module")
def external(clock: Clock) -> Iterator[ExternalServer]:
    """A PostgreSQL on that clock."""
    with run_external(external_binaries(), **clock.environment) as running:
        yield running


@pytest.fixture(scope="module")
def jumping(folder: Path, running_upstream: RunningUpstream, external: ExternalServer, clock: Clock) -> Iterator[Server]:
    """A server on that clock and that database."""
    settings = {"DATABASE_URL": external.url, "HOMEPORT_PERMISSION_WAIT_S": f"{WAIT_S}"}
    with Servers(folder, **provider_settings(running_upstream), **settings, **clock.environment) as servers:
        server = servers.start("jumping")
        yield server
        assert server.stop() == 0
        assert '"exception"' not in server.log


@pytest.fixture
def admin(jumping: Server, clock: Clock) -> Iterator[Admin]:
    """Its administrator. The clock is right at the beginning and at the end."""
    clock.jump(0)
    time.sleep(AGREED_S)
    assert jumping.first_key is not None
    admin = Admin(jumping.url, jumping.first_key)
    with admin.http:
        yield admin
    clock.jump(0)


def check_that_it_jumps(admin: Admin, external: ExternalServer, clock: Clock) -> None:
    """Both see what the test says: otherwise it would test nothing."""

    def read_both() -> list[datetime]:
        (stored,) = run_sql(external.url, "SELECT now()")[0]
        assert isinstance(stored, datetime)
        return [stored, datetime.fromisoformat(admin.http.get("/sdk/ping").json()["timestamp"])]

    eventually(read_both, lambda times: all(abs((each - clock.now()).total_seconds()) < 60 for each in times), LATE_S)


def test_what_is_under_way_goes_on_over_jumps_of_the_clock(
    jumping: Server, external: ExternalServer, admin: Admin, clock: Clock, tmp_path: Path, row: Row
) -> None:
    row.fault(
        "The clock jumps",
        done="By +1 hour, -1 day, +1 day and back, while documents are taken in, an agent waits for its model, a chat is streamed, and an "
        "app waits for a permission.",
        promised="Nothing is done twice, nothing is stuck, nothing ends early: waits go by the monotonic clock.",
    )
    app_id = admin.register("Traveller", granted=GRANTED)
    waiting_id = admin.register("Waiter")
    admin.call("POST", "/agents", {"display_name": "Slow", "slug": "slow", "model": "script"})
    held = tmp_path / "held"
    held.touch()
    with ThreadPoolExecutor(4) as threads:
        job = begin(jumping, app_id, long_documents(DOCUMENTS))
        session = begin_session(jumping, app_id, "slow")
        said = {"message": script({"hold": str(held), "say": "At last."})}
        agent = threads.submit(call, jumping, "POST", f"/sdk/agent/session/{session}/chat", app_id, said)
        chat = {"messages": [{"role": "user", "content": "Hello"}], "model": "pause-6"}
        stream = threads.submit(call, jumping, "POST", "/sdk/llm/chat/stream", app_id, chat)
        before = eventually(lambda: look(jumping, app_id, job), lambda found: found["done"] > 0, PROCESS_TIMEOUT_S)
        began_at = time.monotonic()
        asking = threads.submit(call, jumping, "POST", "/sdk/register", waiting_id, {"app_id": waiting_id, "permissions": ["llm.chat"]})
        for offset_s in (HOUR_S, -DAY_S, DAY_S, 0):
            clock.jump(offset_s)
            check_that_it_jumps(admin, external, clock)
            assert not asking.done() or time.monotonic() > began_at + WAIT_S - 1
            time.sleep(1.0)  # long enough for leases and waits to be looked at
        assert asking.result(PROCESS_TIMEOUT_S).status_code == 200
        waited_s = time.monotonic() - began_at
        assert WAIT_S - 1 < waited_s < WAIT_S + LATE_S
        held.unlink()
        said_at_last = agent.result(PROCESS_TIMEOUT_S)
        assert said_at_last.status_code == 200, said_at_last.text
        assert said_at_last.json()["response"]["text"] == "At last."
        assert stream.result(PROCESS_TIMEOUT_S).text.endswith("data: [DONE]\n\n")
        done = eventually(lambda: look(jumping, app_id, job), lambda found: found["state"] not in ("queued", "running"), PROCESS_TIMEOUT_S)
    assert (done["state"], done["done"], done["attempts"]) == ("completed", DOCUMENTS, before["attempts"]), "not begun anew"
    runs = admin.call("GET", "/agent-runs?agent=slow")["items"]
    assert [run["state"] for run in runs] == ["completed"]
    row.happened(
        f"The job went on without being begun anew, the run and the stream to their ends; the permission was waited for {waited_s:.0f} s."
    )


def test_a_job_that_waits_is_not_stuck_when_the_clock_is_turned_back(jumping: Server, admin: Admin, clock: Clock, row: Row) -> None:
    row.fault(
        "The clock is turned back by a day while a job waits",
        done="An ingest whose model answers 503 waits 5 s for its second attempt; the clock goes back a day.",
        promised="It is tried again within half a minute, not tomorrow.",
    )
    app_id = admin.register("Repeater", granted=GRANTED)
    job = begin(jumping, app_id, [{"id": "1", "text": "Hello"}], provider="openai", model="503")
    first = eventually(
        lambda: look(jumping, app_id, job), lambda found: found["attempts"] == 1 and found["state"] == "queued", PROCESS_TIMEOUT_S
    )
    assert first["state"] == "queued"
    clock.jump(-DAY_S)
    began_at = time.monotonic()
    eventually(lambda: look(jumping, app_id, job)["attempts"], lambda attempts: attempts >= 2, 30 + LATE_S)
    row.happened(f"Tried again after {time.monotonic() - began_at:.0f} s.")
    assert call(jumping, "DELETE", f"/sdk/llm/vectors/ingest/{job['id']}", app_id).status_code == 200


def test_a_question_is_not_waited_for_until_tomorrow(jumping: Server, admin: Admin, clock: Clock, row: Row) -> None:
    row.fault(
        "The clock is turned back by a day while an agent waits for a person",
        done="An agent that waits 6 s for an answer has asked; the clock goes back a day.",
        promised="The question expires after its 6 s all the same, and the run goes on.",
    )
    app_id = admin.register("Asker", granted=("agent.chat",))
    limits = {"approval_s": WAIT_S}
    tools = ["homeport/list_files"]
    admin.call("POST", "/agents", {"display_name": "Asks", "slug": "asks", "model": "script", "tools": tools, "limits": limits})
    session = begin_session(jumping, app_id, "asks")
    said = {"message": script({"say": "", "call": [{"tool": "list_files"}]}, {"say": "Nobody answered."})}
    with ThreadPoolExecutor(1) as threads:
        began_at = time.monotonic()
        asking = threads.submit(call, jumping, "POST", f"/sdk/agent/session/{session}/chat", app_id, said)
        eventually(lambda: admin.call("GET", "/approvals?state=pending")["items"], timeout_s=PROCESS_TIMEOUT_S)
        clock.jump(-DAY_S)
        answer = asking.result(PROCESS_TIMEOUT_S)
    assert time.monotonic() - began_at < WAIT_S + LATE_S
    assert answer.json()["response"]["text"] == "Nobody answered."
    row.happened(f"Expired after {time.monotonic() - began_at:.0f} s; the run went on.")


def test_what_expires_goes_by_the_clock_on_the_wall(jumping: Server, admin: Admin, clock: Clock, row: Row) -> None:
    row.fault(
        "The clock jumps past the end of a key",
        done="A key that is good for half an hour is used; the clock goes forwards by an hour, and back.",
        promised="It is refused while its time is over, in whatever cache it may be.",
    )
    expires_at = (clock.now() + timedelta(minutes=30)).isoformat().replace("+00:00", "Z")
    key = admin.call("POST", "/api-keys", {"name": "short", "scopes": ["*"], "expires_at": expires_at})["key"]

    def use() -> int:
        answer = httpx.get(
            f"{jumping.url}/activities", headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=PROCESS_TIMEOUT_S
        )
        return answer.status_code

    # libfaketime looks at its file once a second.
    for offset_s, status in ((0, 200), (HOUR_S, 401), (0, 200)):
        clock.jump(offset_s)
        eventually(use, lambda found, wanted=status: found == wanted, LATE_S)
    row.happened("200, an hour later 401, back again 200.")
