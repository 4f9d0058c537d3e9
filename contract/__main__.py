"""``python -m contract``: does the running server keep what its document promises?

Starts a stand-in for a model server and a real server, and lets Schemathesis test every operation of the document that the server
publishes, over HTTP: as nobody and as an app that holds nothing, who must be refused, and as a developer who may do everything.
Schemathesis and the server wait for each other most of the time, so there are two servers, and two lines of tests at once.
``schemathesis.toml``, ``hooks.py`` and ``exclusions.py`` say how.

The short form is for every day. ``--long`` draws 500 requests an operation for each caller, from five seeds, and takes hours: each seed has
new servers, and a summary that is kept in ``build/contract/`` and shown in ``docs/contract.md``, so that it outlives a run that was ended.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import orjson
import typer

from contract.callers import ANONYMOUS, DEVELOPER, STRANGER, Callers, make_callers
from contract.exclusions import EXCLUSIONS
from contract.server import ROOT, RunningServer, StartFailed, run_server
from contract.summaries import Summary, keep, kept, print_table, write_page
from contract.upstream import BEHAVIOURS, echo, serve_in_thread

MEMORY = Path("/dev/shm")
CONFIG = ROOT / "contract" / "schemathesis.toml"
WIDTH = 120
INTERRUPTED = 130
INTERRUPT_S = 5.0
SHORT_EXAMPLES = 10
LONG_EXAMPLES = 500
LONG_SEEDS = (1, 2, 3, 4, 5)
SEQUENCES = ("--warnings=off", "--phases=stateful", "--exclude-checks=EveryOperationSucceeds")
# They are quickly sent, and few of them follow few links.
LEAST_SEQUENCES = 100
# Being refused takes few examples, each another way to ask; Schemathesis would warn that nothing is reached.
REFUSED = ("--warnings=off", "--phases=examples,coverage,fuzzing")
REFUSED_SHORTLY = {
    ANONYMOUS: ("--warnings=off", "--phases=examples,fuzzing", "--max-examples=1"),
    STRANGER: ("--warnings=off", "--phases=fuzzing", "--max-examples=3"),
}
LINKS = re.compile(r"(?P<followed>\d+) covered / (?P<selected>\d+) selected / (?P<total>\d+) total")


@dataclass(frozen=True, slots=True)
class Round:
    """One run of Schemathesis. What a quiet one prints is only shown when it finds something."""

    title: str
    caller: str
    options: tuple[str, ...]
    is_quiet: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a round ended. ``report`` is empty when it did not get far enough to write one; ``links`` are those followed, and all."""

    status: int
    report: dict[str, Any]
    links: tuple[int, int]

    @property
    def failures(self) -> int:
        """How many different ones. A round that has failed without a failure of its own has not been run to its end."""
        return self.report.get("test_cases", {}).get("unique_failures", 0) or int(self.status != 0)


class Stop:
    """Ends the processes of all lines of tests, and lets none begin."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[str]] = set()
        self._wanted = threading.Event()

    @property
    def is_wanted(self) -> bool:
        """Whether it was said."""
        return self._wanted.is_set()

    def wait(self) -> None:
        """Wait until it is said."""
        self._wanted.wait()

    def now(self) -> None:
        """Say it. After Ctrl-C, which reaches the processes, too, they end by themselves; a signal to this process alone does not."""
        self._wanted.set()
        for process in list(self._processes):
            try:
                process.wait(INTERRUPT_S)
            except subprocess.TimeoutExpired:
                process.kill()

    @contextmanager
    def running(self, process: "subprocess.Popen[str]") -> Iterator[None]:
        """A process to be ended."""
        self._processes.add(process)
        if self.is_wanted:
            process.kill()
        try:
            yield
        finally:
            self._processes.discard(process)


def rounds(seed: int, max_examples: int, operations: list[str]) -> tuple[list[Round], list[Round]]:
    """What is run: two lists at once, each in its order and against a server of its own."""
    is_long = max_examples > SHORT_EXAMPLES
    only = (f"--seed={seed}", *(f"--include-operation-id={name}" for name in operations))
    examples = f"--max-examples={max_examples}"
    refused = {caller: (*only, *((examples, *REFUSED) if is_long else shortly)) for caller, shortly in REFUSED_SHORTLY.items()}
    sequences = (*only, f"--max-examples={max(max_examples, LEAST_SEQUENCES)}", *SEQUENCES)
    return (
        [
            Round("As a developer, what the document says", DEVELOPER, (*only, "--phases=examples,coverage"), is_quiet=False),
            Round("As nobody, who must be refused", ANONYMOUS, refused[ANONYMOUS]),
            Round("As an app without grants, which must be refused", STRANGER, refused[STRANGER]),
        ],
        [
            # The examples leave something behind that what is drawn can be about.
            Round("As a developer, what is drawn", DEVELOPER, (*only, examples, "--warnings=off", "--phases=examples,fuzzing")),
            # A sequence leads from operation to operation.
            *([] if operations else [Round("As a developer, in sequences of requests", DEVELOPER, sequences)]),
        ],
    )


def main(
    seed: Annotated[int | None, typer.Option(help="Another seed draws other requests, the same seed the same.")] = None,
    max_examples: Annotated[int | None, typer.Option(min=1, help="How many requests are drawn for each operation.")] = None,
    operation: Annotated[list[str] | None, typer.Option(metavar="OPERATION_ID", help="Test only this operation; again for more.")] = None,
    long: Annotated[bool, typer.Option("--long", help="Draw 500 requests for each operation, from the seeds 1 to 5. Takes hours.")] = False,
    hold: Annotated[
        bool, typer.Option("--hold", help="After a failure keep the server until Ctrl-C, for the printed curl commands.")
    ] = False,
) -> None:
    """Test a running server against the document that it publishes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seeds = [seed] if seed is not None else list(LONG_SEEDS if long else LONG_SEEDS[:1])
    examples = max_examples or (LONG_EXAMPLES if long else SHORT_EXAMPLES)
    try:
        summaries = [
            _run_seed(each, examples, operation or [], f"Seed {each}, {n} of {len(seeds)}", hold=hold) for n, each in enumerate(seeds, 1)
        ]
    except StartFailed as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    _print_exclusions()
    print_table(summaries)
    if any(each.failures for each in summaries):
        sys.exit(1)


def _run_seed(seed: int, max_examples: int, operations: list[str], title: str, *, hold: bool) -> Summary:
    """Run the rounds of one seed, each list of them against a new server."""
    BEHAVIOURS["gpt-4o"] = echo  # the model that the document's examples ask for
    began = time.monotonic()
    print(f"{title}: starting servers, each with a stand-in for its model provider …", flush=True)
    stop = Stop()
    with ThreadPoolExecutor() as threads:
        lines = [threads.submit(_run_line, line, title, stop, hold=hold) for line in rounds(seed, max_examples, operations)]
        try:
            outcomes = [outcome for line in lines for outcome in line.result()]
        except BaseException:
            stop.now()
            raise
    summary = _summarize(seed, max_examples, outcomes, time.monotonic() - began)
    if not operations:
        keep(summary)
    if not operations and max_examples == LONG_EXAMPLES:
        write_page(kept(LONG_SEEDS, LONG_EXAMPLES), LONG_EXAMPLES)
    return summary


def _run_line(line: list[Round], title: str, stop: Stop, *, hold: bool) -> list[Outcome]:
    """Run rounds one after the other against a new server. Its log is left behind when there are failures."""
    log = Path(tempfile.mkstemp(prefix="homeport-contract-", suffix=".log")[1])
    is_log_kept = True
    outcomes: list[Outcome] = []
    try:
        with _folder() as folder, serve_in_thread() as upstream, run_server(folder, log, upstream) as server:
            callers = make_callers(server, folder, upstream.base_url)
            for each in line:
                if stop.is_wanted:
                    break
                began = time.monotonic()
                outcome = _test(each, server, callers, folder, upstream.base_url, stop)
                outcomes.append(outcome)
                verdict = f"FAILED. The server's log: {log}" if outcome.failures else "no failures."
                print(f"\n{title}: {each.title[0].lower()}{each.title[1:]}, {time.monotonic() - began:.0f} s: {verdict}", flush=True)
            is_log_kept = not stop.is_wanted and any(each.failures for each in outcomes)
            if hold and is_log_kept:
                print(f"The server runs at {server.url} until Ctrl-C.", flush=True)
                stop.wait()
    finally:
        if not is_log_kept:
            log.unlink(missing_ok=True)
    return outcomes


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for data that is thrown away, in memory where that is possible."""
    folder = Path(tempfile.mkdtemp(prefix="homeport-contract-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _test(planned: Round, server: RunningServer, callers: Callers, folder: Path, upstream_url: str, stop: Stop) -> Outcome:
    """Run Schemathesis in a process of its own."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    environment = os.environ | {
        "CONTRACT_CALLERS": str(callers.file),
        "CONTRACT_CALLER": planned.caller,
        "CONTRACT_KEPT_IDS": " ".join(callers.ids),
        "CONTRACT_AGENTS": callers.agents,
        "CONTRACT_TASKS": callers.tasks,
        "CONTRACT_APPROVALS": callers.approvals,
        "CONTRACT_UPSTREAM": upstream_url,
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
        "NO_PROXY": "*",
    }
    command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={CONFIG}", "run", str(callers.document), f"--url={server.url}"]
    command += ["--report=json", f"--report-json-path={report}", *planned.options]
    with (
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, encoding="utf-8", errors="replace") as process,
        stop.running(process),
    ):
        said = _read(process, is_shown=not planned.is_quiet)
    if planned.is_quiet and process.returncode != 0:
        print(said, flush=True)
    links = [(int(found["followed"]), int(found["selected"])) for found in LINKS.finditer(said)]
    return Outcome(process.returncode, orjson.loads(report.read_bytes()) if report.exists() else {}, max(links, default=(0, 0)))


def _read(process: "subprocess.Popen[str]", *, is_shown: bool) -> str:
    """What the process says until it ends."""
    said: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if is_shown:
            print(line, end="", flush=True)
    return "".join(said)


def _summarize(seed: int, max_examples: int, outcomes: list[Outcome], took_s: float) -> Summary:
    reports = [outcome.report for outcome in outcomes if outcome.report.get("operations")]
    followed, links = max((outcome.links for outcome in outcomes), default=(0, 0))
    return Summary(
        seed=seed,
        max_examples=max_examples,
        exercised=max((report["operations"]["tested"] for report in reports), default=0),
        operations=max((report["operations"]["total"] for report in reports), default=0),
        requests=sum(report["test_cases"]["generated"] for report in reports),
        links_followed=followed,
        links=links,
        failures=sum(each.failures for each in outcomes),
        took_s=round(took_s, 1),
        day=f"{datetime.now(UTC):%Y-%m-%d}",
    )


def _print_exclusions() -> None:
    print("\nExcluded are these answers of these operations, and nothing else:\n")
    for each in EXCLUSIONS:
        print(fill(f"{each.check} of {', '.join(each.operations)}", WIDTH, initial_indent="  ", subsequent_indent="    "))
        print(fill(f"where the answer says {each.text!r}, because {each.reason}", WIDTH, initial_indent="    ", subsequent_indent="    "))


if __name__ == "__main__":
    typer.run(main)
