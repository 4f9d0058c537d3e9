"""Every server and app that a test starts holds its answers against the contract, so that each test is also one of the contract."""

import ast
from pathlib import Path

import pytest

from homeport.settings import load_settings

TESTS = Path(__file__).resolve().parents[1]
# These name the setting to switch it on, or to see that it is.
NAMED = {TESTS / "conftest.py", TESTS / "acceptance" / "test_documents.py", Path(__file__).resolve()}
# These measure the server as people run it: its speed, and what bodies of a gigabyte cost it.
MEASURED = {*(TESTS / "bench").rglob("*.py"), TESTS / "faults" / "conftest.py"}
FILES = [file for file in sorted(TESTS.rglob("*.py")) if file not in NAMED | MEASURED]


def test_answers_are_checked_in_the_environment_of_the_tests() -> None:
    assert load_settings().validate_responses


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(TESTS).as_posix())
def test_no_test_switches_it_off(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    assert "VALIDATE_RESPONSES" not in source
    assert "validate_responses" not in source
    texts = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    starts_a_server = "serve" in texts and any(isinstance(node, ast.keyword) and node.arg == "env" for node in ast.walk(ast.parse(source)))
    # What is not inherited from the tests' environment would be a server that checks nothing.
    assert not starts_a_server or "os.environ" in source or "from tests.acceptance.commands import environment" in source
