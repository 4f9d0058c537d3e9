"""``python -m tests.security``: the audit of dependencies and the search for secrets, as ``make check`` runs them. Exit status 1: look."""

import sys
from pathlib import Path

from tests.security.audit import LOCK_FILES, check_installed, check_licences, check_lock_files, find_known_faults, installed_releases
from tests.security.secret_scan import scan

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Print what was looked at and what was found; returns the exit status."""
    installed = installed_releases()
    problems = check_lock_files(ROOT) + check_licences(installed) + check_installed(ROOT, installed)
    faults, was_asked = find_known_faults(ROOT)
    secrets = [str(found) for found in scan(ROOT)]
    for problem in (*problems, *faults, *secrets):
        print(problem)
    print(f"dependencies: {len(LOCK_FILES)} lock files and {len(installed)} installed releases; {len(problems)} problems")
    print(f"known faults: {len(faults)} lines of a report" if was_asked else "known faults: not asked, the service cannot be reached")
    print(f"secrets: {len(secrets)} in the files under version control")
    return 1 if problems or faults or secrets else 0


if __name__ == "__main__":
    sys.exit(main())
