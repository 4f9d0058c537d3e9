"""``python -m tests.bench [--row NAME] [--quick]``: measure, print one table, exit 1 when a target is missed."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.bench.rows import ROWS
from tests.bench.table import QUICK, Effort, Line, write_table
from tests.system_packages import require_package


def main() -> int:
    """Run the rows that were asked for."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--row", choices=ROWS, help="measure this row only")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: to see that it runs, not to quote")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        require_package("wrk")
    effort = QUICK if options.quick else Effort()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="homeport-bench-") as folder:
        for name in [options.row] if options.row else ROWS:
            print(f"measuring {name} …", file=sys.stderr, flush=True)
            lines += ROWS[name](Path(folder), effort)
    print(write_table(lines))
    return 0 if all(line.is_met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
