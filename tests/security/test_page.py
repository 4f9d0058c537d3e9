"""The threat page names tests; each of them exists. And each test of this folder stands on the page."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.findall(r"(tests/[\w/]+\.py)::(test_\w+)", PAGE)
# What looks after the page, the source and the checks themselves, where the page speaks of them as a whole.
OF_THE_CHECKS = {"test_page.py", "test_source.py", "test_checks.py"}


def names_of(file: str) -> set[str]:
    """The names of the tests in a file."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")}


def test_every_test_that_the_page_names_exists() -> None:
    assert len(NAMED) > 80
    known = {file: names_of(file) for file in {file for file, _ in NAMED}}
    assert [f"{file}::{name}" for file, name in NAMED if name not in known[file]] == []


def test_every_line_of_a_table_of_tests_names_one_or_says_why_it_does_not_apply() -> None:
    lines = [line for line in PAGE.partition("## Line by line")[2].splitlines() if line.startswith("| ") and not line.startswith("| line")]
    assert len(lines) > 40
    assert [line for line in lines if "::" not in line and not re.search(r"does not apply.*\| \u2013 \|", line)] == []


def test_every_file_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`((?:homeport|adapters|handlers|tests|docs)/[\w/.]*)`", PAGE))
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_test_of_this_folder_stands_on_the_page() -> None:
    files = [file for file in (ROOT / "tests" / "security").glob("test_*.py") if file.name not in OF_THE_CHECKS]
    named = {name for file, name in NAMED if file.startswith("tests/security/")}
    missing = {name for file in files for name in names_of(f"tests/security/{file.name}")} - named
    # They look after the tests beside them.
    assert missing <= {
        "test_a_request_without_any_name_is_turned_away",
        "test_the_server_s_own_page_is_let_through",
        "test_the_walk_over_answers_leaves_out_no_administrative_operation",
    }
