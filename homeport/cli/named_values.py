"""Values by name, as options and files give them. Secrets need not stand in an option, which every user of the machine could read."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer


def read_named(given: Sequence[str], option: str, environment: Mapping[str, str]) -> dict[str, str]:
    """``NAME=VALUE`` by name. The value of a bare ``NAME`` is that of ``environment``; otherwise it is asked for on a terminal, and
    elsewhere read from standard input, one line each."""
    values = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not name:
            raise typer.BadParameter(f"'{text}' has no name: write NAME=VALUE, or NAME alone.", param_hint=option)
        values[name] = value if sign else environment[name] if name in environment else _ask(name, option)
    return values


def read_env_file(file: Path) -> dict[str, str]:
    """Lines of ``NAME=VALUE``; passed over are empty ones and those that begin with ``#``. A value may stand in quotes."""
    values = {}
    for number, line in enumerate(file.expanduser().read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, sign, value = text.partition("=")
        if not sign or not name.strip():
            raise typer.BadParameter(f"{file}:{number} is not NAME=VALUE.", param_hint="--env-file")
        values[name.strip()] = _without_quotes(value.strip())
    return values


def _without_quotes(text: str) -> str:
    is_quoted = len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if is_quoted else text


def _ask(name: str, option: str) -> str:
    if sys.stdin.isatty():
        answer: str = typer.prompt(f"{name} (not shown)", hide_input=True)
        return answer
    if not (line := sys.stdin.readline()):
        raise typer.BadParameter(f"{name} has no value, and standard input holds none.", param_hint=option)
    return line.rstrip("\r\n")
