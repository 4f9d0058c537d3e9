"""How an app is started, as data: fields, placeholders, the environment, manifests."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from homeport.apps import App
from homeport.errors import InvalidRequest
from homeport.launch import Launch, change_launch, read_launch
from homeport.launcher.environment import make_environment
from homeport.launcher.manifest import Manifest, read_manifest
from homeport.settings import Settings

APP = App(UUID(int=7), "notes", "Notes", "", "local", [], False, None, datetime.now(UTC), datetime.now(UTC))


def test_placeholders_are_filled_in_where_they_may_stand() -> None:
    launch, env = change_launch(
        None,
        {
            "command": "{python}",
            "args": ["-p", "{port}", "{python}", "{x}"],
            "home_url": "http://127.0.0.1:{port}/a",
            "env": {"P": "{port}"},
        },
    )
    assert launch.command_line(8100) == [sys.executable, "-p", "8100", sys.executable, "{x}"]
    assert launch.url(8100) == launch.health_url(8100) == "http://127.0.0.1:8100/a"
    assert (launch.env, env) == (("P",), {"P": "{port}"})


@pytest.mark.parametrize(
    ("home_url", "asked"),
    [
        (None, "http://127.0.0.1:8100/health"),
        ("http://localhost:{port}/app/", "http://localhost:8100/health"),
        ("https://x", "https://x/health"),
    ],
)
def test_a_health_path_is_asked_beside_the_page(home_url: str | None, asked: str) -> None:
    assert Launch("x", home_url=home_url, health_path="/health").health_url(8100) == asked


def test_an_app_without_page_and_path_is_not_asked() -> None:
    assert Launch("x").health_url(8100) is None


def test_what_is_left_out_of_a_change_stays_and_none_takes_away() -> None:
    before, _ = change_launch(None, {"command": "x", "args": ["a"], "home_url": "http://h/", "working_dir": "/tmp", "env": {"A": "1"}})
    after, env = change_launch(before, {"home_url": None, "autostart": True})
    assert after == Launch("x", ("a",), "/tmp", None, None, True, ("A",))
    assert env is None
    assert read_launch(json.loads(json.dumps(after.as_stored()))) == after


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, "needs a command"),
        ({"command": "a/b"}, "relative path"),
        ({"command": "x\n"[:1] + "\0"}, "U\\+0000"),
        ({"command": "x", "working_dir": "here"}, "absolute path"),
        ({"command": "x", "home_url": "ftp://h/"}, "home URL"),
        ({"command": "x", "home_url": "http://h:{port"}, "home URL"),
        ({"command": "x", "home_url": "http://u:p@h/"}, "user name"),
        ({"command": "x", "health_path": "health"}, "slash"),
        ({"command": "x", "health_path": "//h/"}, "slash"),
        ({"command": "x", "env": {"RTX_API_KEY": "1"}}, "act as a developer"),
        ({"command": "x", "env": {"rtx_api_key": "1"}}, "act as a developer"),
        ({"command": "x", "env": {"RTX_PORT": "1"}}, "set by Homeport"),
        ({"command": "x", "env": {"A=B": "1"}}, "cannot name"),
        ({"command": "x", "env": {str(number): "" for number in range(201)}}, "at most 200"),
    ],
)
def test_what_cannot_be_started_is_refused_with_a_reason(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        change_launch(None, changes)


def test_an_app_gets_little_of_the_server_and_no_secret() -> None:
    inherited = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "HOMEPORT_SECRET_KEY": "s",
        "DATABASE_URL": "s",
        "OPENAI_API_KEY": "s",
        "RTX_API_KEY": "s",
        "RTX_APP_ID": "another",
        "LD_PRELOAD": "s",
    }
    environment = make_environment(
        Settings(port=3005), APP, 8100, {"OWN": "p{port}", "SERVER_URL": "http://x"}, launch_id="l", inherited=inherited
    )
    assert environment == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "PYTHONUNBUFFERED": "1",
        "SERVER_URL": "http://x",
        "REALTIMEX_BASE_URL": "http://localhost:3005",
        "OWN": "p8100",
        "RTX_APP_ID": str(APP.id),
        "RTX_APP_NAME": "Notes",
        "RTX_PORT": "8100",
        "RTX_LAUNCH_ID": "l",
    }


def test_an_app_gets_the_secret_of_contracts_when_there_is_one() -> None:
    environment = make_environment(Settings(contract_secret="shared"), APP, 8100, {}, launch_id="l", inherited={})
    assert environment["RTX_CONTRACT_CALLBACK_SECRET"] == "shared"


@pytest.mark.parametrize("ports", ["8100", "9-8", "0-10", "1-65536", "a-b", ""])
def test_a_range_of_ports_is_two_numbers(ports: str) -> None:
    with pytest.raises(ValidationError, match="8100-8999"):
        Settings(app_ports=ports)


def test_a_range_of_ports_includes_both_ends() -> None:
    assert Settings(app_ports="8100-8101").app_port_range == range(8100, 8102)


def write(folder: Path, manifest: Any) -> Path:
    file = folder / "manifest.json"
    file.write_text(manifest if isinstance(manifest, str) else json.dumps(manifest), encoding="utf-8")
    return file


def test_a_flat_manifest_and_one_with_a_config_say_the_same(tmp_path: Path) -> None:
    start = {
        "command": "./run.sh",
        "args": ["{port}"],
        "working_dir": "app",
        "env": {"A": "1", "N": 2},
        "home_url": "http://h/",
        "health_path": "/h",
    }
    who = {"id": "my-notes", "name": "Notes", "version": "1", "description": "d", "permissions": ["llm.chat"], "supabase": {"x": 1}}
    read = read_manifest(write(tmp_path, who | start))
    assert read == read_manifest(write(tmp_path, who | {"config": start}))
    assert read == Manifest(
        name="Notes",
        slug="my-notes",
        description="d",
        permissions=["llm.chat"],
        launch={
            "command": str(tmp_path / "run.sh"),
            "args": ["{port}"],
            "working_dir": str(tmp_path / "app"),
            "env": {"A": "1", "N": "2"},
            "home_url": "http://h/",
            "health_path": "/h",
        },
    )


def test_a_manifest_for_another_host_is_read_too(tmp_path: Path) -> None:
    uuid = "0190b49f-3c4d-7e5f-8a6b-7c8d9e0f1a2b"
    read = read_manifest(write(tmp_path, {"id": uuid, "name": "n", "command": "npx", "homePath": "/ui", "healthPath": "/ok"}))
    assert (read.app_id, read.slug) == (uuid, None)
    assert read.launch == {
        "command": "npx",
        "working_dir": str(tmp_path),
        "home_url": "http://127.0.0.1:{port}/ui",
        "health_path": "/ok",
    }


@pytest.mark.parametrize(
    ("manifest", "complaint"),
    [
        ("{", "not JSON"),
        ([], "one JSON object"),
        ({"name": 1}, "'name' must be a text"),
        ({"config": []}, "'config'"),
        ({"command": "x", "args": "a"}, "'args'"),
        ({"command": "x", "env": {"A": []}}, "'env'"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_named(tmp_path: Path, manifest: Any, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        read_manifest(write(tmp_path, manifest))
