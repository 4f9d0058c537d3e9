"""``python -m tests.bench [--row NAME] [--quick]``: measure, print one table, exit 1 when a target is missed.

A whole run writes the table to bench.md. One that was interrupted goes on where it was when it is started again.
"""

import argparse
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.bench.report import Run, machine, missing_targets, select_rows
from tests.bench.rows import ALL_ROWS, DESIGNED, ROWS
from tests.bench.table import QUICK, Effort, Line, write_table
from tests.system_packages import require_package


def main() -> int:
    """Run the rows that were asked for."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--row", metavar="NAME", help=f"only this row, or those whose names begin with it: {', '.join(ALL_ROWS)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: to see that it runs, not to quote")
    options = parser.parse_args()
    names = select_rows(ALL_ROWS if options.row else ROWS, options.row)
    if not names:
        parser.error(f"there is no row '{options.row}': {', '.join(ALL_ROWS)}")
    if shutil.which("wrk") is None:
        require_package("wrk")
    effort = QUICK if options.quick else Effort()
    is_published = options.row is None and not options.quick
    run = Run.resume(effort) if is_published else Run("", effort)
    failures: list[Line] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as folder:
        for number, name in enumerate(names, 1):
            place = f"row {number} of {len(names)}, {name}"
            if name in run.lines:
                _tell(f"{place}: measured by a run that was interrupted")
                continue
            _tell(f"{place} (after {(time.monotonic() - started) / 60:.0f} min) …")
            began = time.monotonic()
            try:
                lines = measure_row(name, Path(folder), effort)
            except Exception as error:  # noqa: BLE001 - whatever it is, the table says so and the exit code, too
                # The others are worth having all the same; this one is measured when the bench is started again.
                traceback.print_exc()
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                failures.append(Line(name, "could not be measured", reason, "a figure", False))
                continue
            minutes = (time.monotonic() - began) / 60
            if is_published:
                run.add(name, lines, minutes)
            else:
                run.lines[name], run.minutes[name] = lines, minutes
    if is_published and not failures:
        print(run.publish())
    else:
        print(f"{machine()}\n\n{write_table([*(line for lines in run.lines.values() for line in lines), *failures])}")
    return 0 if all(line.is_met for lines in [*run.lines.values(), failures] for line in lines) else 1


def measure_row(name: str, folder: Path, effort: Effort) -> list[Line]:
    """The lines of a row. Raises RuntimeError when it is not judged by what the design asks of it."""
    lines = ALL_ROWS[name](folder, effort)
    if missing := missing_targets(lines, DESIGNED.get(name, ())):
        raise RuntimeError(f"the row {name} has no line with the target {' or '.join(missing)}")
    return lines


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
