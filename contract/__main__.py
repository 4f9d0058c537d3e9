"""``python -m contract``: does the running server keep what its document promises?

Starts a stand-in for a model server and a real server, and lets Schemathesis test every operation of the document that the server
publishes, over HTTP: first as an app that holds nothing and must be refused, then as a developer who may do everything.
``schemathesis.toml``, ``hooks.py`` and ``exclusions.py`` say how.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Annotated, Any

import orjson
import typer

from contract.callers import DEVELOPER, STRANGER, Callers, make_callers
from contract.exclusions import EXCLUSIONS
from contract.server import ROOT, RunningServer, StartFailed, run_server
from contract.upstream import BEHAVIOURS, echo, serve_in_thread

MEMORY = Path("/dev/shm")
CONFIG = ROOT / "contract" / "schemathesis.toml"
WIDTH = 120
INTERRUPTED = 130
INTERRUPT_S = 5.0
# Being refused takes few examples, each another way to ask; Schemathesis would warn that nothing is reached.
STRANGER_OPTIONS = ("--phases=fuzzing", "--max-examples=3", "--warnings=off")
# Sequences end as soon as a repeated one goes another way, because the server has changed in between; so there are several rounds of them.
SEQUENCE_OPTIONS = ("--phases=stateful", "--exclude-checks=EveryOperationSucceeds", "--warnings=off")
SEQUENCE_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Round:
    """One run of Schemathesis. What a quiet one prints is only shown when it finds something."""

    title: str
    caller: str
    options: tuple[str, ...]
    is_quiet: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a round ended. ``report`` is empty when it did not get far enough to write one."""

    status: int
    report: dict[str, Any]


def rounds(seed: int, max_examples: int, operations: list[str]) -> list[Round]:
    """What is run, in this order."""
    only = (*(f"--include-operation-id={name}" for name in operations), *(["--phases=examples,coverage,fuzzing"] if operations else []))
    examples = f"--max-examples={max_examples}"
    seeds = range(seed + 1, seed + 1 + SEQUENCE_ROUNDS) if not operations else ()
    return [
        Round("As an app without grants, which must be refused", STRANGER, (*only, f"--seed={seed}", *STRANGER_OPTIONS)),
        Round("As a developer", DEVELOPER, (*only, f"--seed={seed}", examples), is_quiet=False),
        *(Round("More sequences of requests", DEVELOPER, (f"--seed={each}", examples, *SEQUENCE_OPTIONS)) for each in seeds),
    ]


def main(
    seed: Annotated[int, typer.Option(help="Another seed draws other requests, the same seed the same.")] = 1,
    max_examples: Annotated[int, typer.Option(min=1, help="How many requests are drawn for each operation.")] = 25,
    operation: Annotated[list[str] | None, typer.Option(metavar="OPERATION_ID", help="Test only this operation; again for more.")] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="After a failure keep the server until Ctrl-C, for the printed curl commands.")
    ] = False,
) -> None:
    """Test a running server against the document that it publishes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    log = Path(tempfile.mkstemp(prefix="homeport-contract-", suffix=".log")[1])
    try:
        is_good = _run(rounds(seed, max_examples, operation or []), log, hold=hold)
    except StartFailed as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        log.unlink(missing_ok=True)
        sys.exit(INTERRUPTED)
    if not is_good:
        sys.exit(1)
    log.unlink(missing_ok=True)


def _run(planned: list[Round], log: Path, *, hold: bool) -> bool:
    BEHAVIOURS["gpt-4o"] = echo  # the model that the document's examples ask for
    with _folder() as folder, serve_in_thread() as upstream:
        print("Starting the server, and a stand-in for its model provider …", flush=True)
        with run_server(folder, log, upstream) as server:
            callers = make_callers(server, folder, upstream.base_url)
            outcomes = [_test(each, server, callers, folder, upstream.base_url) for each in planned]
            is_good = all(outcome.status == 0 for outcome in outcomes)
            _print_outcomes(outcomes)
            print("No failures." if is_good else f"FAILED. The server's log: {log}", flush=True)
            if hold and not is_good:
                print(f"The server runs at {server.url} until Ctrl-C.", flush=True)
                signal.pause()
            return is_good


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for data that is thrown away, in memory where that is possible."""
    folder = Path(tempfile.mkdtemp(prefix="homeport-contract-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _test(planned: Round, server: RunningServer, callers: Callers, folder: Path, upstream_url: str) -> Outcome:
    """Run Schemathesis in a process of its own."""
    print(f"\n{planned.title} …", flush=True)
    report, output = folder / "report.json", folder / "output"
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
    with output.open("wb") as file:
        status = _wait(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file if planned.is_quiet else None))
    if planned.is_quiet and status != 0:
        print(output.read_text(encoding="utf-8"), flush=True)
    return Outcome(status, orjson.loads(report.read_bytes()) if report.exists() else {})


def _wait(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait()
    except KeyboardInterrupt:
        # Ctrl-C reached it, too, and it ends by itself; a signal to this process alone did not.
        try:
            process.wait(INTERRUPT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def _print_outcomes(outcomes: list[Outcome]) -> None:
    print("\nExcluded are these answers of these operations, and nothing else:\n")
    for each in EXCLUSIONS:
        print(fill(f"{each.check} of {', '.join(each.operations)}", WIDTH, initial_indent="  ", subsequent_indent="    "))
        print(fill(f"where the answer says {each.text!r}, because {each.reason}", WIDTH, initial_indent="    ", subsequent_indent="    "))
    reports = [outcome.report for outcome in outcomes if outcome.report.get("operations")]
    if reports:
        exercised = max(report["operations"]["tested"] for report in reports)
        cases = sum(report["test_cases"]["generated"] for report in reports)
        took_s = sum(report["running_time"] for report in reports)
        print(f"\nOperations exercised: {exercised} of {reports[0]['operations']['total']}. Requests: {cases}, in {took_s:.0f} s.", end=" ")


if __name__ == "__main__":
    typer.run(main)
