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
INTERRUPTED = 130
INTERRUPT_S = 5.0
# Being refused takes few examples, each another way to ask; Schemathesis would warn that nothing is reached.
STRANGER_OPTIONS = ("--phases=fuzzing", "--max-examples=3", "--warnings=off")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run of Schemathesis ended. ``report`` is empty when it did not get far enough to write one."""

    status: int
    report: dict[str, Any]


def main(
    seed: Annotated[int, typer.Option(help="Another seed draws other requests, the same seed the same.")] = 1,
    max_examples: Annotated[int, typer.Option(min=1, help="How many requests are drawn for each operation.")] = 60,
    operation: Annotated[list[str] | None, typer.Option(metavar="OPERATION_ID", help="Test only this operation; again for more.")] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="After a failure keep the server until Ctrl-C, for the printed curl commands.")
    ] = False,
) -> None:
    """Test a running server against the document that it publishes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = [f"--seed={seed}", *(f"--include-operation-id={name}" for name in operation or ())]
    log = Path(tempfile.mkstemp(prefix="homeport-contract-", suffix=".log")[1])
    try:
        is_good = _run(log, options, max_examples, hold=hold)
    except StartFailed as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if not is_good:
        sys.exit(1)
    log.unlink()


def _run(log: Path, options: list[str], max_examples: int, *, hold: bool) -> bool:
    BEHAVIOURS["gpt-4o"] = echo  # the model that the document's examples ask for
    with _folder() as folder, serve_in_thread() as upstream:
        print("Starting the server, and a stand-in for its model provider …", flush=True)
        with run_server(folder, log, upstream) as server:
            callers = make_callers(server, folder)
            print("\nAs an app without grants, which must be refused:\n", flush=True)
            refused = _test(server, callers, STRANGER, folder, [*options, *STRANGER_OPTIONS])
            print("\nAs a developer:\n", flush=True)
            tested = _test(server, callers, DEVELOPER, folder, [*options, f"--max-examples={max_examples}"])
            _print_outcome(tested, refused)
            is_good = refused.status == tested.status == 0
            if not is_good:
                print(f"\nFAILED. The server's log: {log}", flush=True)
                if hold:
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


def _test(server: RunningServer, callers: Callers, caller: str, folder: Path, options: list[str]) -> Outcome:
    """Run Schemathesis in a process of its own; it tells its progress itself."""
    report = folder / f"{caller}.json"
    environment = os.environ | {
        "CONTRACT_CALLERS": str(callers.file),
        "CONTRACT_CALLER": caller,
        "CONTRACT_KEY_ID": callers.key_id,
        "HYPOTHESIS_STORAGE_DIRECTORY": str(folder / "hypothesis"),
        "NO_PROXY": "*",
    }
    command = [sys.executable, "-m", "schemathesis.cli", f"--config-file={CONFIG}", "run", f"{server.url}/openapi.json"]
    process = subprocess.Popen([*command, "--report=json", f"--report-json-path={report}", *options], cwd=ROOT, env=environment)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        # Ctrl-C reached it, too, and it ends by itself; a signal to this process alone did not.
        try:
            process.wait(INTERRUPT_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    return Outcome(status, orjson.loads(report.read_bytes()) if report.exists() else {})


def _print_outcome(tested: Outcome, refused: Outcome) -> None:
    if not tested.report.get("operations"):
        return
    operations, cases = tested.report["operations"], tested.report["test_cases"]
    print(f"Operations exercised: {operations['tested']} of {operations['total']}")
    print(f"Requests: {cases['generated']} as a developer in {tested.report['running_time']:.0f} s,", end=" ")
    print(f"{refused.report['test_cases']['generated']} as an app without grants; seed {tested.report['seed']}.")
    print("\nExcluded are these answers, of these operations only:")
    for each in EXCLUSIONS:
        print(f"\n  {each.check}: {', '.join(each.operations)}")
        print(fill(f"{each.text}: {each.reason}.", 120, initial_indent="    ", subsequent_indent="    "))


if __name__ == "__main__":
    typer.run(main)
