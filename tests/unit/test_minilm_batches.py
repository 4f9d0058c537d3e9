"""Which texts run together: about as long as each other, by turns, and each exactly once."""

import asyncio
import random

import pytest

from adapters.minilm.batches import MAX_RUN_PIECES, MAX_RUN_TEXTS, Job, Place, Queue

pytestmark = pytest.mark.anyio


def job(*lengths: int) -> Job:
    """A request with texts of these lengths."""
    return Job([[1] * length for length in lengths], asyncio.get_running_loop().create_future())


def queue_of(*jobs: Job) -> Queue:
    queue = Queue()
    for each in jobs:
        queue.add(each)
    return queue


def take_all(queue: Queue) -> list[list[Place]]:
    """All runs until nothing waits."""
    return list(iter(queue.take_run, []))


def lengths(run: list[Place]) -> list[int]:
    return [len(place.text) for place in run]


async def test_nothing_waits_in_an_empty_queue() -> None:
    assert Queue().take_run() == []


async def test_every_text_runs_once_and_the_sizes_are_kept() -> None:
    numbers = random.Random(7)
    jobs = [job(*(numbers.randint(3, 256) for _ in range(numbers.randint(1, 90)))) for _ in range(20)]
    queue = queue_of(*jobs)
    runs = take_all(queue)
    places = [(place.job, place.index) for run in runs for place in run]
    assert len(places) == len(set(places)) == sum(len(each.texts) for each in jobs)
    assert all(len(run) <= MAX_RUN_TEXTS and len(run) * max(lengths(run)) <= MAX_RUN_PIECES for run in runs)
    assert (len(queue), queue.waiting_pieces) == (0, 0)


async def test_texts_of_several_requests_run_together_the_longest_first() -> None:
    runs = take_all(queue_of(job(10, 12), job(11), job(9)))
    assert [lengths(run) for run in runs] == [[12, 11, 10, 9]]


async def test_a_short_text_is_not_padded_to_a_long_one() -> None:
    runs = take_all(queue_of(job(200, 190, 20, 12), job(5)))
    assert [lengths(run) for run in runs] == [[200, 190], [5], [20, 12]]


async def test_a_single_text_does_not_wait_for_all_of_a_long_request() -> None:
    many, single = job(*[256] * 100), job(5)
    queue = queue_of(many, single)
    assert {place.job for place in queue.take_run()} == {many}
    assert {place.job for place in queue.take_run()} == {single}
    assert {place.job for place in queue.take_run()} == {many}


async def test_what_waits_of_a_removed_request_never_runs() -> None:
    gone, kept = job(*[256] * 10), job(256, 256)
    queue = queue_of(gone, kept)
    assert len(queue.take_run()) == 2
    queue.remove(gone)
    assert queue.waiting_pieces == 512
    assert {place.job for run in take_all(queue) for place in run} == {kept}
    queue.remove(gone)
    assert (len(queue), queue.waiting_pieces) == (0, 0)


async def test_vectors_are_given_in_the_order_of_the_texts() -> None:
    request = job(5, 30, 7)
    for run in take_all(queue_of(request)):
        for place in run:
            assert not request.done.done()
            place.job.put(place.index, [float(len(place.text))])
    assert request.done.result() == [[5.0], [30.0], [7.0]]


async def test_a_request_that_is_gone_takes_no_vectors_and_no_error() -> None:
    request = job(5)
    request.done.cancel()
    request.put(0, [1.0])
    request.fail(RuntimeError())
    assert request.done.cancelled()
