"""Which waiting texts run together. Knows nothing of the model: a text is its word pieces, a result its vector.

Requests take turns, so one with a single text does not wait until one with a thousand is done. The run of a turn begins with the longest
waiting text of its request and is filled with the waiting texts of any request that are about as long: all are padded to the longest, and
what is padded costs as much as what is not.
"""

from asyncio import Future
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge

# A run of this size makes good use of the caches and keeps nobody else waiting for long: 0.1 s on one core. A larger one is no faster.
MAX_RUN_TEXTS = 64
MAX_RUN_PIECES = 512


@dataclass(eq=False, slots=True)
class Job:
    """The texts of one request, at least one. ``done`` gets their vectors, in the order of the texts, when the last has been made."""

    texts: Sequence[Sequence[int]]
    done: Future[list[list[float]]]
    waiting: list[int] = field(init=False)  # indices of the texts that have not been taken for a run, the longest first
    _vectors: dict[int, list[float]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.waiting = sorted(range(len(self.texts)), key=self.length, reverse=True)

    def length(self, index: int) -> int:
        """The word pieces of a text."""
        return len(self.texts[index])

    def put(self, index: int, vector: list[float]) -> None:
        """Keep the vector of a text. Of a request that is no longer there it is dropped."""
        self._vectors[index] = vector
        if len(self._vectors) == len(self.texts) and not self.done.done():
            self.done.set_result([self._vectors[each] for each in range(len(self.texts))])

    def fail(self, error: Exception) -> None:
        """End the request with an error."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(frozen=True, slots=True)
class Place:
    """A text of a run, and whose it is."""

    job: Job
    index: int

    @property
    def text(self) -> Sequence[int]:
        """Its word pieces."""
        return self.job.texts[self.index]


class Queue:
    """The requests that have texts waiting, in the order of their turns."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self.waiting_pieces = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def jobs(self) -> list[Job]:
        """The requests, the one whose turn it is first."""
        return list(self._jobs)

    def add(self, job: Job) -> None:
        """Let the texts of a request wait."""
        self._jobs.append(job)
        self.waiting_pieces += sum(map(len, job.texts))

    def remove(self, job: Job) -> None:
        """Drop what still waits of a request; nothing when nothing does."""
        if job in self._jobs:
            self._jobs.remove(job)
            self.waiting_pieces -= sum(job.length(index) for index in job.waiting)

    def take_run(self) -> list[Place]:
        """The texts that run next, the longest first; they wait no longer. Empty when nothing waits."""
        if not self._jobs:
            return []
        longest = self._jobs[0].length(self._jobs[0].waiting[0])
        limit = min(MAX_RUN_TEXTS, max(1, MAX_RUN_PIECES // longest))
        candidates = merge(*(self._near(job, longest) for job in self._jobs), key=lambda place: -len(place.text))
        run = [place for place, _ in zip(candidates, range(limit), strict=False)]
        self._take(run)
        return run

    def _near(self, job: Job, longest: int) -> Iterator[Place]:
        """The waiting texts of a request that lose little by being padded to ``longest``, the longest first."""
        shortest = longest - max(8, longest // 8)
        return (Place(job, index) for index in job.waiting if shortest <= job.length(index) <= longest)

    def _take(self, run: Sequence[Place]) -> None:
        taken: dict[Job, set[int]] = {}
        for place in run:
            taken.setdefault(place.job, set()).add(place.index)
        for job, indices in taken.items():
            job.waiting = [index for index in job.waiting if index not in indices]
        self.waiting_pieces -= sum(len(place.text) for place in run)
        self._jobs.rotate(-1)
        self._jobs = deque(job for job in self._jobs if job.waiting)
