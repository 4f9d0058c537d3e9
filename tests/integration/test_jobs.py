"""The queue against the real database. Two of them on one database are two server processes; one test kills a real one."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import pytest
from sqlalchemy.dialects import postgresql

from adapters.postgres import Database, Notifications
from homeport.errors import InvalidRequest, NotFound, TooManyRequests, Unavailable
from homeport.jobs import Job, JobContext, Jobs, Timing
from homeport.jobs.rows import Ending, JobRows, Progress, select_due, storable
from tests.integration.parts import eventually
from tests.integration.servers import run_sql

pytestmark = pytest.mark.anyio

OWNER = uuid4()
# A lease that nothing in a test outlives unless it means to; a poll that helps nobody who is not notified.
PATIENT = Timing(poll=60.0, lease=60.0, report=0.05, backoff=0.01, stop=5.0)
QUICK = Timing(poll=0.05, lease=0.6, report=0.05, backoff=0.01, stop=5.0)
ROOT = Path(__file__).parents[2]


@dataclass
class Process:
    """One server process: its queue, its database, and its worker once it is started."""

    jobs: Jobs
    database: Database
    notifications: Notifications
    worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to carry out jobs."""
        self.worker = asyncio.create_task(self.jobs.run_worker())

    async def stop(self) -> None:
        """Stop as a server does."""
        assert self.worker is not None
        self.worker.cancel()
        await asyncio.wait([self.worker])

    async def state(self, job: Job) -> Job:
        """The job as it is now."""
        return await self.jobs.get(job.owner_id, str(job.id))

    async def ended(self, job: Job) -> Job:
        """The job when it has ended."""
        return await eventually(lambda: self.state(job), lambda found: found.state in ("completed", "failed", "cancelled"))


@dataclass
class Work:
    """A job's work that a test looks at and lets go on."""

    started: asyncio.Queue[JobContext] = field(default_factory=asyncio.Queue)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, context: JobContext) -> Any:
        self.started.put_nowait(context)
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.stopped.set()
            raise
        return {"by": context.attempt}

    async def next_start(self) -> JobContext:
        """Wait until it is started once more."""
        with anyio.fail_after(5):
            return await self.started.get()


@asynccontextmanager
async def process(url: str, timing: Timing = PATIENT, **kinds: Any) -> AsyncIterator[Process]:
    """A process whose queue knows these kinds of jobs."""
    database = Database(url, 5)
    await database.open()
    notifications = Notifications(url)
    one = Process(Jobs(database, notifications, timing=timing), database, notifications)
    for kind, run in kinds.items():
        one.jobs.register(kind, run)
    try:
        async with notifications:
            yield one
            if one.worker is not None:
                await one.stop()
    finally:
        await database.close()


async def double(context: JobContext) -> Any:
    return {"twice": context.payload["number"] * 2}


async def test_a_job_is_done_in_another_process_and_its_payload_is_dropped(database_url: str) -> None:
    async with process(database_url, double=double) as server, process(database_url, double=double) as caller:
        server.start()
        job = await caller.jobs.enqueue("double", OWNER, {"number": 21})
        assert (job.state, job.attempts, job.started_at, job.result) == ("queued", 0, None, None)
        done = await caller.ended(job)
        assert (done.state, done.result, done.error, done.attempts) == ("completed", {"twice": 42}, None, 1)
        assert done.started_at is not None
        assert done.finished_at is not None
        assert done.created_at <= done.started_at <= done.finished_at
    assert run_sql(database_url, "SELECT payload, worker FROM jobs") == [(None, None)]


async def test_a_job_put_in_while_nobody_listens_is_found_at_the_start_and_by_the_poll(database_url: str) -> None:
    async with process(database_url, QUICK, double=double) as one:
        before = await one.jobs.enqueue("double", OWNER, {"number": 1})
        one.start()
        assert (await one.ended(before)).state == "completed"
        later = uuid4()
        values = f"'{later}', 'double', '{OWNER}', '{{\"number\": 2}}', 1"
        run_sql(database_url, f"INSERT INTO jobs (id, kind, owner_id, payload, max_attempts) VALUES ({values})")  # notifies nobody
        found = await eventually(lambda: one.jobs.get(OWNER, str(later)), lambda job: job.state == "completed")
        assert found.result == {"twice": 4}


async def test_a_process_runs_two_at_once_and_the_next_when_one_ends(database_url: str) -> None:
    first, rest = Work(), Work()

    async def run(context: JobContext) -> Any:
        return await (first if context.payload["first"] else rest)(context)

    async with process(database_url, work=run) as one:
        queued = [await one.jobs.enqueue("work", OWNER, {"first": number == 0}) for number in range(4)]
        one.start()
        await first.next_start()
        assert (await rest.next_start()).job_id == queued[1].id
        assert [(await one.state(job)).state for job in queued] == ["running", "running", "queued", "queued"]
        first.may_end.set()
        assert (await rest.next_start()).job_id == queued[2].id
        rest.may_end.set()
        assert [(await one.ended(job)).state for job in queued] == ["completed"] * 4


async def test_each_kind_has_room_of_its_own(database_url: str) -> None:
    long, short = Work(), Work()
    async with process(database_url, short=short) as one:
        one.jobs.register("long", long, concurrency=3)
        queued = [await one.jobs.enqueue("long", OWNER, {}) for _ in range(4)]
        one.start()
        assert {(await long.next_start()).job_id for _ in range(3)} == {job.id for job in queued[:3]}
        beside = await one.jobs.enqueue("short", OWNER, {})
        assert (await short.next_start()).job_id == beside.id
        assert [(await one.state(job)).state for job in queued] == ["running", "running", "running", "queued"]
        long.may_end.set()
        assert (await long.next_start()).job_id == queued[3].id
        assert (await one.state(beside)).state == "running"


async def test_jobs_that_end_together_are_written_together_each_as_it_ended(database_url: str) -> None:
    may_end = asyncio.Event()
    waiting: asyncio.Queue[int] = asyncio.Queue()

    async def end(context: JobContext) -> Any:
        number = context.payload["number"]
        if context.attempt > 1:
            await asyncio.Event().wait()
        await context.report(number, 9)
        waiting.put_nowait(number)
        await may_end.wait()
        if number == 1:
            raise InvalidRequest("That cannot be.")
        if number == 2:
            raise Unavailable("Not now.")
        return {"number": number}

    async with process(database_url, Timing(poll=0.05, lease=60, backoff=0.01)) as one:
        one.jobs.register("end", end, concurrency=5)
        queued = [await one.jobs.enqueue("end", OWNER, {"number": number}) for number in range(5)]
        one.start()
        with anyio.fail_after(5):
            assert {await waiting.get() for _ in queued} == set(range(5))
        may_end.set()
        ended = [await one.ended(job) for job in (queued[0], queued[1], queued[3], queued[4])]
        again = await eventually(lambda: one.state(queued[2]), lambda job: job.attempts == 2)
        written = run_sql(database_url, "SELECT count(DISTINCT xmin::text) FROM jobs WHERE finished_at IS NOT NULL")
    assert [(job.state, job.done, job.result, job.error) for job in ended] == [
        ("completed", 0, {"number": 0}, None),
        ("failed", 1, None, "That cannot be."),
        ("completed", 3, {"number": 3}, None),
        ("completed", 4, {"number": 4}, None),
    ]
    assert (again.state, again.error, again.finished_at) == ("running", "Not now.", None)
    assert written == [(1,)], "in one transaction"


async def test_an_end_that_cannot_be_stored_fails_its_job_and_no_other_that_ends_with_it(database_url: str) -> None:
    may_end = asyncio.Event()
    waiting: asyncio.Queue[int] = asyncio.Queue()

    async def end(context: JobContext) -> Any:
        number = context.payload["number"]
        await context.report(0, 1)
        waiting.put_nowait(number)
        await may_end.wait()
        # Not written yet: a report was a moment ago.
        await context.report(2**40 if number == 1 else 1, 1)
        return object() if number == 2 else number

    async with process(database_url, Timing(poll=60, lease=60, report=60)) as one:
        one.jobs.register("end", end, concurrency=4, max_attempts=1)
        queued = [await one.jobs.enqueue("end", OWNER, {"number": number}) for number in range(4)]
        one.start()
        with anyio.fail_after(5):
            assert {await waiting.get() for _ in queued} == set(range(4))
        may_end.set()
        ended = [await one.ended(job) for job in queued]
    assert [(job.state, job.result, job.error_code) for job in ended] == [
        ("completed", 0, None),
        ("failed", None, "VALIDATION_ERROR"),
        ("failed", None, "INTERNAL_ERROR"),
        ("completed", 3, None),
    ]


async def test_a_worker_that_lost_one_lease_of_several_ends_the_others(database_url: str) -> None:
    async with process(database_url) as one:
        one.jobs.register("work", Work())
        rows = JobRows(one.database)
        queued = [await one.jobs.enqueue("work", OWNER, {}) for _ in range(3)]
        claims = await rows.claim("mine", "work", 3, 60.0, [])
        await one.jobs.cancel(OWNER, str(queued[1].id))
        ended = await rows.end([Ending(claim, Progress(1, 1), "completed", "[]") for claim in claims])
        assert ended == {queued[0].id, queued[2].id}
        assert [(await one.state(job)).state for job in queued] == ["completed", "cancelled", "completed"]


async def test_a_stop_while_ends_are_written_writes_them(database_url: str) -> None:
    work = Work()
    async with process(database_url, work=work) as one, process(database_url) as other:
        one.start()
        job = await one.jobs.enqueue("work", OWNER, {})
        await work.next_start()
        async with other.database.transaction() as connection:
            await connection.exec_driver_sql("LOCK TABLE jobs IN SHARE MODE")
            work.may_end.set()
            is_waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'jobs'::regclass"
            await eventually(lambda: asyncio.to_thread(run_sql, database_url, is_waiting), lambda rows: rows[0][0] > 0)
            stopping = asyncio.create_task(one.stop())
            await asyncio.sleep(0)
        await stopping
        found = await one.jobs.get(OWNER, str(job.id))
    assert (found.state, found.result, found.attempts) == ("completed", {"by": 1}, 1)


async def test_a_job_put_in_within_a_transaction_is_there_when_that_commits_and_not_before(database_url: str) -> None:
    async with process(database_url, double=double) as one:
        one.start()
        first = await one.ended(await one.jobs.enqueue("double", OWNER, {"number": 1}))
        async with one.database.transaction() as connection:
            job = await one.jobs.enqueue("double", OWNER, {"number": 2}, connection=connection)
            with pytest.raises(NotFound):
                await one.state(job)
        assert (await one.ended(job)).result == {"twice": 4}
        async with one.database.transaction() as connection:
            undone = await one.jobs.enqueue("double", OWNER, {"number": 3}, connection=connection)
            await connection.rollback()
        with pytest.raises(NotFound):
            await one.state(undone)
        assert (await one.state(first)).state == "completed"


async def test_a_cancellation_within_a_transaction_holds_when_that_commits_and_not_before(database_url: str) -> None:
    work = Work()
    async with process(database_url, work=work) as one:
        one.start()
        job = await one.jobs.enqueue("work", OWNER, {})
        await work.next_start()
        async with one.database.transaction() as connection:
            assert (await one.jobs.cancel(OWNER, str(job.id), connection=connection)).state == "cancelled"
            assert (await one.state(job)).state == "running"
            assert not work.stopped.is_set()
        with anyio.fail_after(5):
            await work.stopped.wait()
        assert (await one.state(job)).state == "cancelled"


async def test_two_processes_share_the_jobs_and_none_is_done_twice(database_url: str) -> None:
    ran: list[int] = []

    async def note(context: JobContext) -> None:
        ran.append(context.payload["number"])
        await asyncio.sleep(0)

    async with process(database_url, note=note) as first, process(database_url, note=note) as second:
        queued = [await first.jobs.enqueue("note", OWNER, {"number": number}) for number in range(60)]
        first.start()
        second.start()
        for job in queued:
            assert (await second.ended(job)).attempts == 1
    assert sorted(ran) == list(range(60))


async def test_jobs_in_one_lane_are_done_one_after_the_other_in_order_and_others_beside_them(database_url: str) -> None:
    first, second, beside = Work(), Work(), Work()

    async def run(context: JobContext) -> Any:
        return await {"first": first, "second": second, "beside": beside}[context.payload["work"]](context)

    async with process(database_url, work=run) as one, process(database_url, work=run) as other:
        jobs = [await one.jobs.enqueue("work", OWNER, {"work": name}, lane="notes") for name in ("first", "second")]
        jobs.append(await one.jobs.enqueue("work", OWNER, {"work": "beside"}, lane="letters"))
        jobs.append(await one.jobs.enqueue("work", uuid4(), {"work": "beside"}, lane="notes"))
        one.start()
        other.start()
        for each in (first, beside, beside):
            await each.next_start()
        assert [(await one.state(job)).state for job in jobs] == ["running", "queued", "running", "running"]
        first.may_end.set()
        await second.next_start()
        second.may_end.set()
        beside.may_end.set()
        assert [(await one.ended(job)).state for job in jobs] == ["completed"] * 4


async def test_cancelling_a_job_lets_the_next_in_its_lane_begin(database_url: str) -> None:
    work = Work()
    async with process(database_url, work=work) as one, process(database_url, work=work) as other:
        ahead = await other.jobs.enqueue("work", OWNER, {}, lane="notes")
        await JobRows(one.database).claim("somebody else", "work", 1, 60.0, [])
        behind = await other.jobs.enqueue("work", OWNER, {}, lane="notes")
        one.start()
        await other.jobs.cancel(OWNER, str(ahead.id))
        assert (await work.next_start()).job_id == behind.id


async def test_a_kind_that_a_process_does_not_know_is_left_to_others(database_url: str) -> None:
    async with process(database_url, old=double) as older, process(database_url, new=double) as newer:
        older.start()
        job = await newer.jobs.enqueue("new", OWNER, {"number": 1})
        assert (await older.ended(await older.jobs.enqueue("old", OWNER, {"number": 1}))).state == "completed"
        assert (await newer.state(job)).state == "queued"
        newer.start()
        assert (await newer.ended(job)).state == "completed"


async def test_progress_is_written_now_and_then_and_always_at_the_end(database_url: str) -> None:
    work = Work()

    async def count(context: JobContext) -> Any:
        for number in range(1, 1001):
            await context.report(number, 1000)
        return await work(context)

    async with process(database_url, Timing(poll=60, lease=60, report=30), count=count) as one:
        one.start()
        job = await one.jobs.enqueue("count", OWNER, {})
        await work.next_start()
        halfway = await one.state(job)
        assert (halfway.done, halfway.total) == (1, 1000), "only the first of many reports at once is written"
        work.may_end.set()
        ended = await one.ended(job)
        assert (ended.done, ended.total) == (1000, 1000)


async def test_the_requests_own_fault_fails_at_once_and_says_so(database_url: str) -> None:
    async def refuse(context: JobContext) -> None:
        raise InvalidRequest("The vector has \0 5 numbers\ud800.", code="WRONG_DIMENSION")

    async with process(database_url, refuse=refuse) as one:
        one.start()
        job = await one.ended(await one.jobs.enqueue("refuse", OWNER, {}))
    assert (job.state, job.error, job.error_code, job.attempts) == (
        "failed",
        "The vector has \N{REPLACEMENT CHARACTER} 5 numbers?.",
        "WRONG_DIMENSION",
        1,
    )
    assert job.result is None


@pytest.mark.parametrize("error", [Unavailable("No provider."), TooManyRequests("Later.")])
async def test_what_may_pass_is_tried_again_until_it_does(database_url: str, error: Exception) -> None:
    async def stutter(context: JobContext) -> Any:
        if context.attempt < 3:
            raise error
        return context.attempt

    async with process(database_url, QUICK, stutter=stutter) as one:
        one.start()
        job = await one.ended(await one.jobs.enqueue("stutter", OWNER, {}))
    assert (job.state, job.result, job.attempts, job.error, job.error_code) == ("completed", 3, 3, None, None)


async def test_what_does_not_pass_fails_after_the_last_attempt_and_tells_no_secret(database_url: str) -> None:
    async def crash(context: JobContext) -> None:
        raise RuntimeError("SELECT password FROM users")

    async with process(database_url, QUICK) as one:
        one.jobs.register("crash", crash, max_attempts=3)
        one.start()
        job = await one.ended(await one.jobs.enqueue("crash", OWNER, {}))
    assert (job.state, job.attempts, job.error_code) == ("failed", 3, "INTERNAL_ERROR")
    assert job.error == "Something went wrong inside the server; the log has the details under the job's id."


async def test_a_job_that_waits_to_be_tried_again_says_why(database_url: str) -> None:
    async def fail(context: JobContext) -> None:
        raise Unavailable("No provider.", code="PROVIDER_UNAVAILABLE")

    async with process(database_url, Timing(backoff=60), fail=fail) as one:
        one.start()
        job = await one.jobs.enqueue("fail", OWNER, {})
        waiting = await eventually(lambda: one.state(job), lambda found: found.state == "queued" and found.error is not None)
    assert (waiting.error, waiting.error_code, waiting.attempts) == ("No provider.", "PROVIDER_UNAVAILABLE", 1)
    assert run_sql(database_url, "SELECT visible_at - now() BETWEEN '40 s' AND '72 s', payload FROM jobs") == [(True, {})]


async def test_a_result_that_cannot_be_stored_fails_the_job(database_url: str) -> None:
    async def nest(context: JobContext) -> Any:
        value: Any = None
        for _ in range(300):
            value = [value]
        return value

    async with process(database_url, nest=nest) as one:
        one.start()
        job = await one.ended(await one.jobs.enqueue("nest", OWNER, {}))
    assert (job.state, job.error_code) == ("failed", "VALIDATION_ERROR")


async def test_cancelling_a_waiting_job_keeps_it_from_ever_running(database_url: str) -> None:
    ran = Work()
    async with process(database_url, work=ran) as one:
        job = await one.jobs.enqueue("work", OWNER, {"big": "x" * 10_000})
        cancelled = await one.jobs.cancel(OWNER, str(job.id))
        assert cancelled.state == "cancelled"
        assert cancelled.finished_at is not None
        assert await one.jobs.cancel(OWNER, str(job.id)) == cancelled
        one.start()
        later = await one.jobs.enqueue("work", OWNER, {})
        assert (await ran.next_start()).job_id == later.id
        assert ran.started.empty()
    assert run_sql(database_url, f"SELECT payload FROM jobs WHERE id = '{job.id}'") == [(None,)]


async def test_cancelling_stops_the_job_in_another_process_at_once(database_url: str) -> None:
    work = Work()
    async with process(database_url, work=work) as server, process(database_url, work=work) as caller:
        server.start()
        job = await caller.jobs.enqueue("work", OWNER, {})
        await work.next_start()
        assert (await caller.jobs.cancel(OWNER, str(job.id))).state == "cancelled"
        with anyio.fail_after(5):
            await work.stopped.wait()
        again = await caller.jobs.enqueue("work", OWNER, {})
        assert (await work.next_start()).job_id == again.id
        assert (await caller.state(job)).state == "cancelled"


async def test_a_cancellation_that_nobody_heard_of_is_seen_when_the_lease_is_renewed(database_url: str) -> None:
    work = Work()
    async with process(database_url, QUICK, work=work) as one:
        one.start()
        job = await one.jobs.enqueue("work", OWNER, {})
        await work.next_start()
        run_sql(database_url, "UPDATE jobs SET state = 'cancelled', finished_at = now()")
        with anyio.fail_after(5):
            await work.stopped.wait()
        assert (await one.state(job)).state == "cancelled"


async def test_a_cancelled_job_that_ends_all_the_same_stays_cancelled(database_url: str) -> None:
    holding = asyncio.Event()

    async def stubborn(context: JobContext) -> Any:
        holding.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done all the same"

    async with process(database_url, stubborn=stubborn) as one:
        one.start()
        job = await one.jobs.enqueue("stubborn", OWNER, {})
        with anyio.fail_after(5):
            await holding.wait()
        await one.jobs.cancel(OWNER, str(job.id))
        await one.stop()
        found = await one.state(job)
    assert (found.state, found.result) == ("cancelled", None)


async def test_a_report_after_the_lease_was_lost_ends_the_job(database_url: str) -> None:
    work = Work()
    ended = asyncio.Event()

    async def shielded(context: JobContext) -> None:
        try:
            await work(context)
        except asyncio.CancelledError:
            try:
                await context.report(1, 1)
            finally:
                ended.set()

    async with process(database_url, shielded=shielded) as one:
        one.start()
        job = await one.jobs.enqueue("shielded", OWNER, {})
        await work.next_start()
        await one.jobs.cancel(OWNER, str(job.id))
        with anyio.fail_after(5):
            await ended.wait()
        await one.stop()
        assert (await one.state(job)).done == 0


async def test_a_running_job_keeps_its_lease_for_longer_than_the_lease_is(database_url: str) -> None:
    work = Work()
    async with process(database_url, QUICK, work=work) as one, process(database_url, QUICK, work=work) as other:
        one.start()
        job = await one.jobs.enqueue("work", OWNER, {})
        await work.next_start()
        other.start()
        first_end = run_sql(database_url, "SELECT visible_at FROM jobs")[0][0]
        await eventually(lambda: asyncio.to_thread(run_sql, database_url, "SELECT now() FROM jobs"), lambda rows: rows[0][0] > first_end)
        assert (await other.state(job)).attempts == 1
        work.may_end.set()
        assert (await other.ended(job)).result == {"by": 1}
    assert work.started.empty()


async def test_the_job_of_a_worker_that_vanished_is_taken_by_another_once_the_lease_ends(database_url: str) -> None:
    async with process(database_url, QUICK, double=double) as one:
        job = await one.jobs.enqueue("double", OWNER, {"number": 4})
        (lost,) = await JobRows(one.database).claim("vanished", "double", 5, 0.4, [])
        one.start()
        done = await one.ended(job)
        assert (done.state, done.attempts, done.result) == ("completed", 2, {"twice": 8})
        # What the one that vanished says when it comes back does not count.
        rows = JobRows(one.database)
        assert not await rows.renew(lost, Progress(9, 9), 60)
        for state in ("completed", "failed", "queued"):
            assert not await rows.end([Ending(lost, Progress(9, 9), state, '"mine"', "mine", "MINE")])  # type: ignore[arg-type]
        assert await one.state(job) == done


async def test_a_worker_that_comes_back_late_cannot_speak_for_the_one_that_works_now(database_url: str) -> None:
    async with process(database_url, work=Work()) as one:
        rows = JobRows(one.database)
        job = await one.jobs.enqueue("work", OWNER, {})
        (late,) = await rows.claim("late", "work", 1, 0.0, [])
        (current,) = await rows.claim("current", "work", 1, 60.0, [])
        assert (late.id, late.attempt, current.attempt) == (job.id, 1, 2)
        assert not await rows.renew(late, Progress(1, 2), 60)
        assert not await rows.end([Ending(late, Progress(), "completed", '"late"')])
        assert await rows.give_back("late", "work", []) == 0
        assert await rows.renew(current, Progress(3, 4), 60)
        found = await one.state(job)
        assert (found.state, found.done, found.total) == ("running", 3, 4)


async def test_a_worker_that_cannot_reach_the_database_stops_before_its_lease_ends(database_url: str) -> None:
    """It must not go on beside the one that takes the job over."""
    work = Work()
    async with process(database_url, QUICK, work=work) as one, process(database_url, QUICK, work=work) as other:
        one.start()
        job = await one.jobs.enqueue("work", OWNER, {})
        await work.next_start()
        # Its own writes now wait behind a lock until they time out; the other process does not work yet.
        async with other.database.transaction() as connection:
            await connection.exec_driver_sql("LOCK TABLE jobs IN SHARE MODE")
            with anyio.fail_after(5):
                await work.stopped.wait()
            (is_over,) = (await connection.exec_driver_sql("SELECT visible_at < clock_timestamp() FROM jobs")).one()
            assert not is_over
        other.start()
        await work.next_start()
        work.may_end.set()
        assert (await other.ended(job)).attempts >= 2


async def test_a_job_that_takes_its_process_down_each_time_is_given_up(database_url: str) -> None:
    async with process(database_url, QUICK, work=Work()) as one:
        one.jobs.register("deadly", Work(), max_attempts=2)
        rows = JobRows(one.database)
        job = await one.jobs.enqueue("deadly", OWNER, {})
        for number in (1, 2):
            assert [claim.attempt for claim in await rows.claim(f"victim {number}", "deadly", 1, 0.0, [])] == [number]
        one.start()
        given_up = await one.ended(job)
    assert (given_up.state, given_up.attempts, given_up.error_code) == ("failed", 2, "INTERRUPTED")
    assert run_sql(database_url, "SELECT payload FROM jobs") == [(None,)]


async def test_a_clean_stop_gives_running_jobs_back_at_once_and_does_not_count_the_attempt(database_url: str) -> None:
    work = Work()
    async with process(database_url, work=work) as first, process(database_url, work=work) as second:
        first.start()
        jobs = [await second.jobs.enqueue("work", OWNER, {"number": number}) for number in range(3)]
        await work.next_start()
        await work.next_start()
        await first.stop()
        assert [(found.state, found.attempts) for found in [await second.state(job) for job in jobs]] == [("queued", 0)] * 3
        second.start()
        work.may_end.set()
        assert [(await second.ended(job)).attempts for job in jobs] == [1, 1, 1]


async def test_another_owners_job_is_not_found(database_url: str) -> None:
    async with process(database_url, double=double) as one:
        job = await one.jobs.enqueue("double", OWNER, {"number": 1})
        for owner, job_id, kind in [
            (uuid4(), str(job.id), None),
            (OWNER, str(job.id), "other"),
            (OWNER, str(uuid4()), None),
            (OWNER, "x", None),
        ]:
            with pytest.raises(NotFound):
                await one.jobs.get(owner, job_id, kind=kind)
            with pytest.raises(NotFound):
                await one.jobs.cancel(owner, job_id, kind=kind)
        assert (await one.jobs.get(OWNER, str(job.id), kind="double")).state == "queued"


async def test_an_owner_cannot_fill_the_queue(database_url: str) -> None:
    async with process(database_url) as one:
        one.jobs.register("few", double, max_open=2)
        first, _ = [await one.jobs.enqueue("few", OWNER, {"number": 1}) for _ in range(2)]
        with pytest.raises(TooManyRequests, match="2 such jobs"):
            await one.jobs.enqueue("few", OWNER, {"number": 1})
        await one.jobs.enqueue("few", uuid4(), {"number": 1})
        await one.jobs.cancel(OWNER, str(first.id))
        await one.jobs.enqueue("few", OWNER, {"number": 1})


async def test_finished_jobs_are_removed_after_seven_days_and_no_others(database_url: str) -> None:
    async with process(database_url, double=double) as one:
        old, recent, waiting = [await one.jobs.enqueue("double", OWNER, {"number": number}) for number in range(3)]
        await one.jobs.cancel(OWNER, str(old.id))
        await one.jobs.cancel(OWNER, str(recent.id))
        run_sql(database_url, f"UPDATE jobs SET finished_at = now() - interval '7 days 1 minute' WHERE id = '{old.id}'")
        run_sql(database_url, f"UPDATE jobs SET finished_at = now() - interval '6 days 23 hours' WHERE id = '{recent.id}'")
        run_sql(database_url, f"UPDATE jobs SET created_at = now() - interval '1 year' WHERE id = '{waiting.id}'")
        sweeper = asyncio.create_task(one.jobs.run_sweeper())
        left = await eventually(
            lambda: asyncio.to_thread(run_sql, database_url, "SELECT id FROM jobs ORDER BY id"), lambda rows: len(rows) < 3
        )
        sweeper.cancel()
        assert left == [(recent.id,), (waiting.id,)]


async def test_the_search_for_due_and_for_old_jobs_uses_an_index_at_20_000_rows(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO jobs (id, kind, owner_id, state, max_attempts, finished_at) "
            "SELECT gen_random_uuid(), 'double', gen_random_uuid(), CASE WHEN mod(n, 4) = 0 THEN 'queued' ELSE 'completed' END, 5, "
            "CASE WHEN mod(n, 4) > 0 THEN now() END FROM generate_series(1, 20000) AS n"
        )
        await connection.exec_driver_sql("ANALYZE jobs")
        due = select_due("double", [OWNER]).limit(2).compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
        searches = {
            "jobs_due_idx": str(due),
            "jobs_open_idx": f"SELECT count(*) FROM jobs WHERE state IN ('queued', 'running') AND owner_id = '{OWNER}' AND kind = 'double'",
            "jobs_finished_idx": "DELETE FROM jobs WHERE finished_at < now() - interval '7 days'",
        }
        for index, search in searches.items():
            plan = "\n".join(line for (line,) in await connection.exec_driver_sql(f"EXPLAIN (COSTS OFF) {search}"))
            assert index in plan
            assert "Seq Scan" not in plan
            assert "Sort" not in plan


SECOND_PROCESS = """
import asyncio, sys
from uuid import UUID
from adapters.postgres import Database, Notifications
from homeport.jobs import Jobs, Timing

async def run(context):
    await context.report(3, 10)
    print("working", context.attempt, flush=True)
    await asyncio.Event().wait()

async def main(url):
    database, notifications = Database(url, 3), Notifications(url)
    await database.open()
    jobs = Jobs(database, notifications, timing=Timing(poll=0.1, lease=1.0, report=0.05))
    jobs.register("work", run)
    async with notifications:
        await jobs.run_worker()

asyncio.run(main(sys.argv[1]))
"""


async def test_the_job_of_a_process_that_is_killed_is_done_by_another(database_url: str) -> None:
    async with process(database_url, QUICK, work=double) as survivor:
        job = await survivor.jobs.enqueue("work", OWNER, {"number": 5})
        victim = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SECOND_PROCESS, database_url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        assert victim.stdout is not None
        try:
            with anyio.fail_after(60):
                assert await victim.stdout.readline() == b"working 1\n"
            assert (await survivor.state(job)).done == 3
            survivor.start()
        finally:
            victim.kill()
            await victim.wait()
        done = await survivor.ended(job)
    assert (done.state, done.attempts, done.result) == ("completed", 2, {"twice": 10})


def test_a_message_is_made_fit_to_be_stored() -> None:
    assert storable("a\0b\ud800") == "a\N{REPLACEMENT CHARACTER}b?"
    assert len(storable("x" * 5000)) == 1000
