"""PostgreSQL dies, has no connection left, or has no disk left, while Homeport serves."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from contract.upstream import RunningUpstream
from tests.acceptance.conftest import provider_settings
from tests.acceptance.servers import PROCESS_TIMEOUT_S, TIMEOUT_S, Admin, Server, Servers, eventually
from tests.acceptance.test_ingest import begin, ended, long_documents
from tests.acceptance.test_killed import begin_session, script
from tests.faults.parts import Load, call, events_of, load
from tests.faults.table import Row
from tests.integration.external_postgres import ExternalServer, external_binaries, run_external
from tests.integration.servers import run_sql

GRANTED = ("activities.read", "activities.write", "agent.chat", "agent.files", "llm.embed", "vectors.read", "vectors.write")
TOOL = "homeport/list_files"
DOWN_S = 8.0
DOCUMENTS = 100
# Somebody who waits for a connection and then for a database that is down waits for no longer.
LONGEST_S = 15.0


@pytest.fixture
def external() -> Iterator[ExternalServer]:
    """A PostgreSQL that somebody else runs, and that may be killed."""
    with run_external(external_binaries()) as running:
        yield running


def check_refusals(seen: Load) -> None:
    """Each refusal is a 503 in the surface's body that says when to try again."""
    assert set(seen.refused) <= {"503 DATABASE_UNAVAILABLE"}, seen.refused
    for answer in seen.refusals:
        body = answer.json()
        assert (body["success"], body["request_id"]) == (False, answer.headers["x-request-id"])
        assert int(answer.headers["retry-after"]) > 0


def stored_ids(url: str) -> set[str]:
    """The ids of all activities that are in the database."""
    return {str(row[0]) for row in run_sql(url, "SELECT id::text FROM activities")}


def test_postgresql_is_killed_and_started_again_under_load(
    servers: Servers, external: ExternalServer, upstream: RunningUpstream, tmp_path: Path, row: Row
) -> None:
    row.fault(
        "PostgreSQL is killed under load",
        done=f"An external PostgreSQL is killed (SIGKILL), stays away for {DOWN_S:.0f} s, is started again; meanwhile four clients store "
        "activities, an agent answers in a stream, and documents are taken in.",
        promised="Requests fail with 503 and Retry-After, then succeed by themselves; what was acknowledged is there; the stream ends "
        "with an error event; the job is done; what changed behind the cache's back is seen.",
    )
    server = servers.start("external", DATABASE_URL=external.url)
    assert server.first_key is not None
    admin = Admin(server.url, server.first_key)
    with admin.http, ThreadPoolExecutor(1) as threads:
        app_id = admin.register("Survivor", granted=GRANTED)
        admin.call("POST", "/agents", {"display_name": "Speaker", "slug": "speaker", "model": "script", "tools": [TOOL]})
        session = begin_session(server, app_id, "speaker")
        job = begin(server, app_id, long_documents(DOCUMENTS))
        held = tmp_path / "held"
        held.touch()
        said = {"message": script({"say": "I look.", "call": [{"tool": "list_files"}]}, {"hold": str(held), "say": "Heard after all."})}
        stream = threads.submit(call, server, "POST", f"/sdk/agent/session/{session}/chat/stream", app_id, said)
        eventually(lambda: (upstream.state.finished, upstream.state.open), lambda counts: counts == (1, 1), PROCESS_TIMEOUT_S)
        with load(server, app_id) as seen:
            seen.wait_for()
            external.stop(signal.SIGKILL)
            held.unlink()
            # The fault needs this time: a shorter absence is waited out by those who connect anew.
            time.sleep(DOWN_S)
            assert admin.http.get("/health").status_code == 200, "alive, whatever the database does"
            external.start()
            recovered_s = seen.wait_for()
        check_refusals(seen)
        assert seen.refused, "nobody noticed: this was no test"
        assert seen.took_s < LONGEST_S
        assert set(seen.acknowledged) <= stored_ids(external.url)
        *_, (_, told) = events_of(stream.result(PROCESS_TIMEOUT_S))
        # What was to be written may just have found the database back.
        end = told.get("code", told.get("textResponse"))
        assert end in ("DATABASE_UNAVAILABLE", "Heard after all.")
        done = ended(server, app_id, job)
        assert (done["state"], done["done"]) == ("completed", DOCUMENTS)
        _check_that_changes_are_heard(server, external, app_id)
        row.happened(seen.told(), f"Served again {recovered_s:.1f} s after the start; nothing acknowledged was lost.")
        row.happened(f"The stream ended with {end}, the job with all its documents.")
    assert server.stop() == 0
    assert '"exception"' not in server.log


def _check_that_changes_are_heard(server: Server, external: ExternalServer, app_id: str) -> None:
    deny = f"UPDATE grants SET state = 'denied' WHERE app_id = '{app_id}' AND permission = 'activities.read'"
    assert call(server, "GET", "/activities?limit=1", app_id).status_code == 200
    run_sql(external.url, deny)
    assert call(server, "GET", "/activities?limit=1", app_id).status_code == 200, "remembered: nobody has told of the change"
    external.stop(signal.SIGKILL)
    external.start()
    eventually(lambda: call(server, "GET", "/activities?limit=1", app_id).status_code, lambda status: status == 403, PROCESS_TIMEOUT_S)
    eventually(lambda: len(server.logged("database notifications are back")), lambda count: count == 2, PROCESS_TIMEOUT_S)
    run_sql(external.url, f"{deny.replace('denied', 'granted')}; SELECT pg_notify('homeport_identity', 'app:{app_id}')")
    eventually(lambda: call(server, "GET", "/activities?limit=1", app_id).status_code, lambda status: status == 200)


@pytest.mark.long
def test_the_embedded_postgresql_is_killed_under_load(servers: Servers, row: Row) -> None:
    row.fault(
        "The embedded PostgreSQL is killed",
        done="Two server processes share it; it is killed (SIGKILL) while four clients store activities, and once more.",
        promised="It is started again by one of the processes; requests wait or fail with 503; nothing acknowledged is lost; a stop "
        "leaves nothing behind.",
    )
    server = servers.start("embedded", "--workers", "2")
    assert server.first_key is not None
    admin = Admin(server.url, server.first_key)
    with admin.http:
        app_id = admin.register("Survivor", granted=GRANTED)
    recovered = []
    with load(server, app_id) as seen:
        for _ in range(2):
            seen.wait_for()
            postgres = server.postgres()
            assert postgres is not None
            postgres.kill()
            killed_at = time.monotonic()
            eventually(server.postgres, lambda found, dead=postgres: found not in (None, dead), PROCESS_TIMEOUT_S)
            seen.wait_for(1)
            recovered.append(time.monotonic() - killed_at)
    check_refusals(seen)
    listed = call(server, "GET", "/activities?limit=1", app_id)
    assert listed.status_code == 200
    data = server.data_dir / "postgres" / "data"
    ids = stored_ids(f"postgresql://homeport@/homeport?host={data}&port=5432")
    assert set(seen.acknowledged) <= ids
    row.happened(seen.told(), f"Served again after {' and '.join(f'{each:.1f}' for each in recovered)} s; nothing acknowledged was lost.")
    last = server.postgres()
    assert last is not None
    assert server.stop() == 0
    assert not last.is_running() or last.status() == psutil.STATUS_ZOMBIE
    assert '"exception"' not in server.log


@pytest.mark.long
def test_all_connections_of_the_pool_are_in_use(servers: Servers, external: ExternalServer, row: Row) -> None:
    row.fault(
        "The connection pool is exhausted",
        done="Somebody else locks a table that requests need; 20 requests wait for it with a pool of 4 connections, then others come.",
        promised="Who finds no connection within 5 s gets 503; who waits for the lock gives up after 10 s; /health and /sdk/ping are "
        "answered at once; all is well when the lock is gone.",
    )
    server = servers.start("pool", DATABASE_URL=external.url, HOMEPORT_DATABASE_POOL_SIZE="4")
    assert server.first_key is not None
    admin = Admin(server.url, server.first_key)
    with admin.http, ThreadPoolExecutor(20) as threads, psycopg.connect(external.url) as other:
        app_id = admin.register("Waiter", granted=GRANTED)
        assert call(server, "GET", "/activities", app_id).status_code == 200
        other.execute("LOCK TABLE activities IN ACCESS EXCLUSIVE MODE")
        began_at = time.monotonic()
        waiting = [threads.submit(call, server, "POST", "/activities", app_id, {"raw_data": {}}) for _ in range(20)]
        eventually(lambda: server.logged("no database connection became free"), timeout_s=TIMEOUT_S + 5)
        first_s = time.monotonic() - began_at
        for path in ("/health", "/sdk/ping"):
            answer = httpx.get(server.url + path, headers={"X-App-Id": app_id}, timeout=1.0, trust_env=False)
            assert answer.status_code == 200, "needs no connection"
        answers = [each.result(PROCESS_TIMEOUT_S) for each in waiting]
        longest_s = time.monotonic() - began_at
        assert {answer.status_code for answer in answers} == {503}
        told = {answer.json()["error"] for answer in answers}
        assert told == {
            "All database connections are in use. Try again later.",
            "The database was too busy with conflicting changes. Try again.",
        }
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
        assert longest_s < LONGEST_S + 5
        other.rollback()
        assert call(server, "POST", "/activities", app_id, {"raw_data": {}}).is_success
    row.happened(f"The first 503 after {first_s:.1f} s, the last after {longest_s:.1f} s; /health and /sdk/ping were answered meanwhile.")
    row.happened("The first request after the lock was gone was served.")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little space, which only root can make."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m,mode=0755", "tmpfs", disk], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a small file system: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_the_disk_of_the_data_directory_is_full(small_disk: Path, running_upstream: RunningUpstream, row: Row) -> None:
    row.fault(
        "The disk is full",
        done="The data directory is on a file system of 160 MB, which is filled up by somebody else while clients store activities.",
        promised="Writing fails with 503, the server stays up; once there is space again all works without a restart, and nothing "
        "acknowledged is lost.",
    )
    with Servers(small_disk.parent, **provider_settings(running_upstream)) as servers:
        server = servers.start("disk")
        assert server.first_key is not None
        admin = Admin(server.url, server.first_key)
        with admin.http:
            app_id = admin.register("Writer", granted=GRANTED)
        filler = small_disk / "filler"
        with load(server, app_id) as seen:
            seen.wait_for()
            _fill(filler)
            eventually(lambda: sum(seen.refused.values()), lambda count: count >= 5, PROCESS_TIMEOUT_S)
            reading = call(server, "GET", "/activities?limit=1", app_id)
            assert httpx.get(f"{server.url}/health", timeout=TIMEOUT_S, trust_env=False).status_code == 200
            filler.unlink()
            recovered_s = seen.wait_for()
        check_refusals(seen)
        assert set(seen.acknowledged) <= stored_ids(f"postgresql://homeport@/homeport?host={server.data_dir}/postgres/data&port=5432")
        row.happened(seen.told(), f"Reading meanwhile: {reading.status_code}. Served again {recovered_s:.1f} s after there was space.")
        assert server.stop() == 0
        assert '"exception"' not in server.log


def _fill(filler: Path) -> None:
    """Write until there is no space left."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            file.flush()
