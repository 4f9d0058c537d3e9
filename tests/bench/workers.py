"""Processes that do what the bench asks for on a core of their own: it writes a line of JSON, they answer with one."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from tests.bench.cores import pin

END_S = 20
ANSWERS = "BENCH_ANSWERS"  # the number of the pipe for answers: standard output is for whatever a library prints


class Worker:
    """Such a process, seen from the bench."""

    def __init__(self, questions: IO[str], answers: IO[str]) -> None:
        self._questions = questions
        self._answers = answers

    def ask(self, question: Any) -> Any:
        """The answer to a question. Raises RuntimeError when the process has ended; why is on our standard error."""
        print(json.dumps(question), file=self._questions, flush=True)
        answer = self._answers.readline()
        if not answer:
            raise RuntimeError("a process of the bench has ended instead of answering")
        return json.loads(answer)


@contextmanager
def running_worker(
    module: str, *arguments: str, core: int | None, python: str = sys.executable, environment: Mapping[str, str] | None = None
) -> Iterator[Worker]:
    """Run a module as such a process, for as long as the block runs."""
    ours, theirs = os.pipe()
    with open(ours, encoding="utf-8") as answers:
        try:
            process = subprocess.Popen(
                [python, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=sys.stderr,
                text=True,
                pass_fds=[theirs],
                env={**os.environ, **(environment or {}), ANSWERS: str(theirs)},
                preexec_fn=lambda: pin(core),  # noqa: PLW1509 the bench has one thread
            )
        finally:
            os.close(theirs)
        assert process.stdin is not None
        try:
            yield Worker(process.stdin, answers)
        finally:
            process.stdin.close()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answer_with(subject: Any, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """Be such a process, whose questions name a method of ``subject`` and its arguments; coroutines run in one event loop."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:

        def answer(question: dict[str, Any]) -> Any:
            result = getattr(subject, question.pop("ask"))(**question)
            return runner.run(result) if asyncio.iscoroutine(result) else result

        answer_questions(answer)


def answer_questions(answer: Callable[[Any], Any]) -> None:
    """Be such a process: answer what is asked until nobody asks any more."""
    with open(int(os.environ[ANSWERS]), "w", encoding="utf-8") as answers:
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
