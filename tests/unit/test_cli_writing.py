"""What the command line reads and prints, apart from any database."""

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import typer
from typer.testing import CliRunner

from homeport import __version__
from homeport.cli import app
from homeport.cli.keys import parse_expiry
from homeport.cli.running import each_item, fail
from homeport.cli.writing import print_json, print_table, printable, show_time
from homeport.contract import ContractError
from homeport.errors import Conflict
from homeport.http.serving import PortUnavailable
from homeport.paging import Page
from homeport.settings import Settings, SettingsError


@dataclass(frozen=True)
class Item:
    id: UUID
    made_at: datetime
    ended_at: datetime | None
    names: tuple[str, ...]


def command_paths() -> list[str]:
    """Every command, as it is typed."""
    paths = []

    def walk(command: object, path: str) -> None:
        below = getattr(command, "commands", None)
        if below is None:
            paths.append(path)
            return
        for name, child in below.items():
            walk(child, f"{path} {name}")

    walk(typer.main.get_command(app), "homeport")
    return paths


def test_every_command_has_a_help_text_that_says_what_it_does() -> None:
    paths = command_paths()
    assert {"homeport serve", "homeport doctor", "homeport keys create", "homeport apps requests", "homeport models test"} <= set(paths)
    for path in paths:
        result = CliRunner().invoke(app, [*path.split()[1:], "--help"])
        assert result.exit_code == 0, path
        text = result.output.partition("\n\n")[2].strip()
        assert text.partition("\n")[0].strip(), path


def test_the_version_can_be_asked_for_in_both_usual_ways() -> None:
    for arguments in (["version"], ["--version"]):
        result = CliRunner().invoke(app, arguments)
        assert (result.exit_code, result.output) == (0, f"homeport {__version__}\n")


def test_a_mistyped_command_is_answered_with_what_was_meant() -> None:
    result = CliRunner().invoke(app, ["kyes", "list"])
    assert result.exit_code == 2
    assert "'keys'" in result.output


def test_a_model_key_cannot_be_given_as_an_argument() -> None:
    result = CliRunner().invoke(app, ["models", "add", "openai", "--api-key", "sk-1"])
    assert result.exit_code == 2
    assert "--api-key-env" in result.output


@pytest.mark.parametrize(("text", "hours"), [("12h", 12), ("30d", 30 * 24), ("2w", 14 * 24), ("1y", 365 * 24), ("1D", 24)])
def test_a_span_counts_from_now(text: str, hours: int) -> None:
    before = datetime.now(UTC)
    moment = parse_expiry(text)
    assert before + timedelta(hours=hours) <= moment <= datetime.now(UTC) + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-01-31", datetime(2030, 1, 31, tzinfo=UTC)),
        ("2030-01-31T12:00Z", datetime(2030, 1, 31, 12, tzinfo=UTC)),
        ("2030-01-31T12:00+02:00", datetime(2030, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_a_date_is_its_first_moment_in_utc(text: str, moment: datetime) -> None:
    assert parse_expiry(text) == moment


@pytest.mark.parametrize("text", ["soon", "", "0d", "-1d", "30", "d", "2030-13-01", "1.5d", "9999999d"])
def test_what_is_neither_span_nor_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="30d"):
        parse_expiry(text)


def test_a_table_is_aligned_and_each_row_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "state"], [["a\nb\x1b[31m", "active"], ["日本", "revoked"]])
    assert capsys.readouterr().out.splitlines() == ["NAME      STATE", "a b [31m  active", "日本      revoked"]


def test_json_uses_the_names_and_times_of_the_admin_surface(capsys: pytest.CaptureFixture[str]) -> None:
    item = Item(UUID(int=1), datetime(2030, 1, 31, 12, 0, 0, 123456, tzinfo=UTC), None, ("ü",))
    print_json([item])
    assert json.loads(capsys.readouterr().out) == [
        {"id": "00000000-0000-0000-0000-000000000001", "made_at": "2030-01-31T12:00:00.123Z", "ended_at": None, "names": ["ü"]}
    ]


def test_times_are_shown_in_utc() -> None:
    assert show_time(datetime.fromisoformat("2030-01-31T12:00:59+02:00"), "never") == "2030-01-31 10:00 UTC"
    assert show_time(None, "never") == "never"


def test_what_could_move_the_cursor_is_not_printed() -> None:
    assert printable("a\tb\r\n\x1b[2Jc\u202ed") == "a b   [2Jc d"


@pytest.mark.anyio
async def test_a_paged_list_is_read_to_its_end() -> None:
    pages = {None: Page([1, 2], "next"), "next": Page([3])}

    async def list_page(cursor: str | None) -> Page[int]:
        return pages[cursor]

    assert [item async for item in each_item(list_page)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (Conflict("The slug 'x' is taken; choose another."), 1, "Error: The slug 'x' is taken; choose another.\n"),
        (SettingsError("A: wrong\nB: wrong"), 2, "Error: The settings are wrong:\n  A: wrong\n  B: wrong\n"),
        (PortUnavailable("Port 1 is taken.\nTry 2."), 1, "Error: Port 1 is taken.\nTry 2.\n"),
        (ContractError("a.yaml:1: no"), 1, "Error: The OpenAPI document cannot be served:\n  a.yaml:1: no\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Error: /x cannot be used: Permission denied."),
        (ZeroDivisionError("by zero\nmore"), 1, "Error: This failed unexpectedly (ZeroDivisionError: by zero)."),
    ],
)
def test_every_error_ends_as_a_sentence(error: Exception, status: int, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fail(error)
    assert ended.value.code == status
    assert capsys.readouterr().err.startswith(shown)


def test_the_traceback_of_an_error_is_shown_when_debugging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEPORT_LOG_LEVEL", "debug")
    with pytest.raises(Conflict):
        fail(Conflict())


@pytest.mark.parametrize(
    ("host", "url"),
    [("localhost", "http://localhost:1"), ("0.0.0.0", "http://localhost:1"), ("::", "http://localhost:1"), ("::1", "http://[::1]:1")],
)
def test_people_are_told_an_address_that_they_can_open(host: str, url: str) -> None:
    assert Settings(host=host, port=1).base_url == url


def test_help_does_not_wait_for_heavy_imports() -> None:
    import subprocess

    heavy = "{'pydantic_settings', 'sqlalchemy', 'psycopg', 'connexion', 'aiohttp', 'httpx', 'litellm', 'uvicorn', 'structlog'}"
    code = f"import sys, homeport.cli; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout == "[]\n"
