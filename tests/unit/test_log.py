"""What a log line may hold. Logging is set up once a process, so each case runs in one of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
import structlog
from homeport.log import configure_logging
from homeport.settings import Settings

configure_logging(Settings(log_format=sys.argv[1]))


def fail(key):
    raise ValueError("it went wrong")


try:
    fail("sk-" + "very-secret")
except ValueError:
    structlog.get_logger().exception("a request failed")
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_where_but_no_values(log_format: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, log_format], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "a request failed" in done.stderr
    assert "it went wrong" in done.stderr
    assert "fail" in done.stderr
    assert "sk-very-secret" not in done.stderr
