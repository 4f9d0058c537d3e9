"""What a log line may hold. Logging is set up once a process, so each case runs in one of its own."""

import re
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


HOSTILE = """
import logging
import structlog
from homeport.log import configure_logging
from homeport.settings import Settings

configure_logging(Settings(log_format="console"))
words = "/\\x1b]0;title\\x07\\x9b2J\\r\\n2026-01-01T00:00:00Z [info     ] forged"


class Upstream(Exception):
    def __repr__(self):
        return words


structlog.get_logger().info("request", path=words, cause=Upstream())
logging.getLogger("library").warning("it said %s", words)
try:
    raise ValueError(words.partition("\\r")[0])
except ValueError:
    structlog.get_logger().exception("a request failed")
"""


def test_what_a_stranger_says_stays_on_its_line_and_steers_no_terminal() -> None:
    done = subprocess.run([sys.executable, "-c", HOSTILE], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert [line for line in done.stderr.splitlines() if line.startswith("2026-01-01")] == []
    assert done.stderr.count("forged") == 3
    assert re.findall(r"\x1b(?!\[[0-9;]*m)|[\x00-\x09\x0b-\x1a\x7f-\x9f]", done.stderr) == []
