"""``python -m tests.faults [--long]``: do all faults to running servers and write docs/faults.md; exit 1 when a promise did not hold."""

import argparse
import sys
from pathlib import Path

import pytest

from tests.faults.table import TARGET, Table


def main() -> int:
    """Run the tests, one after the other, so that what is measured is not what the others do."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--long", action="store_true", help="the forms that take minutes, too")
    options = parser.parse_args()
    table = Table()
    which = "long or not long" if options.long else "not long"
    status = int(pytest.main([str(Path(__file__).parent), "-m", which, "-p", "no:cacheprovider"], plugins=[table]))
    if table.rows:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(table.write(is_long=options.long), encoding="utf-8")
        print(f"written: {TARGET}")
    return status


if __name__ == "__main__":
    sys.exit(main())
