"""The README names everything that can be set and everything that can be typed."""

import re
from pathlib import Path

import pytest

from homeport.settings import SECRET_FILES, Settings
from tests.unit.test_cli_writing import command_paths

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["DATABASE_URL", *SECRET_FILES, *(f"HOMEPORT_{field.upper()}" for field in Settings.model_fields)])
def test_every_setting_is_in_the_readme(readme: str, name: str) -> None:
    assert f"`{name}`" in readme


@pytest.mark.parametrize("command", command_paths())
def test_every_command_is_in_the_readme(readme: str, command: str) -> None:
    *before, verb = command.split()
    # Commands of one noun may share a line: homeport threads create|list|remove
    written = r"\s+".join(before) + rf"\s+(\w+\|)*{verb}\b"
    assert re.search(written, readme), command
