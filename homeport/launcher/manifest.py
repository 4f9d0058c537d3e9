"""The manifest of an app, a JSON file: who it is, what it asks for, and how it is started."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from homeport.errors import InvalidRequest
from homeport.ids import parse_uuid
from homeport.launch import PORT

MAX_BYTES = 256 * 1024

# How the fields are written in manifests that are made for other hosts.
_ALIASES = {"healthPath": "health_path", "homeUrl": "home_url", "homePath": "home_path", "workingDir": "working_dir", "cwd": "working_dir"}
_TEXTS = ("command", "working_dir", "home_url", "health_path", "home_path")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says. ``launch`` are fields of Launch, and ``env`` with its values; empty when nothing is started."""

    name: str | None = None
    app_id: str | None = None
    slug: str | None = None
    description: str | None = None
    permissions: list[str] | None = None
    launch: Mapping[str, Any] = field(default_factory=dict)


def read_manifest(file: Path) -> Manifest:
    """The manifest in a file. How the app is started stands in ``config``, or beside the name; fields that are not known are passed over.

    A relative ``working_dir``, or path of a command, starts from the folder of the file, which is the default of ``working_dir``, too. An
    ``id`` that is no UUID becomes the slug. Raises InvalidRequest that names the field, and OSError.
    """
    content = file.read_bytes()
    try:
        stored = orjson.loads(content) if len(content) <= MAX_BYTES else None
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{file} is not JSON: {error}.") from error
    if not isinstance(stored, dict):
        raise InvalidRequest(f"{file} must hold one JSON object of at most {MAX_BYTES // 1024} KB.")
    config = stored.get("config", {})
    if not isinstance(config, dict):
        raise InvalidRequest(f"{file}: 'config' must be an object.")
    fields: dict[str, Any] = {_ALIASES.get(name, name): value for name, value in {**stored, **config}.items() if value is not None}
    given_id = _text(stored, "id", file)
    return Manifest(
        name=_text(stored, "display_name", file) or _text(stored, "name", file),
        app_id=given_id if given_id and parse_uuid(given_id) else None,
        slug=_text(stored, "slug", file) or (given_id if given_id and not parse_uuid(given_id) else None),
        description=_text(stored, "description", file),
        permissions=_texts(stored, "permissions", file),
        launch=_launch(fields, file) if fields.get("command") else {},
    )


def _launch(fields: Mapping[str, Any], file: Path) -> dict[str, Any]:
    texts = {name: _text(fields, name, file) for name in _TEXTS}
    folder = file.absolute().parent
    launch: dict[str, Any] = {name: text for name, text in texts.items() if text is not None and name != "home_path"}
    launch["working_dir"] = os.path.normpath(folder / os.path.expanduser(texts["working_dir"] or ""))
    if os.path.dirname(launch["command"]):
        launch["command"] = os.path.normpath(folder / os.path.expanduser(launch["command"]))
    if texts["home_path"] is not None:
        launch.setdefault("home_url", f"http://127.0.0.1:{PORT}/{texts['home_path'].lstrip('/')}")
    if (args := _texts(fields, "args", file)) is not None:
        launch["args"] = args
    if "autostart" in fields:
        launch["autostart"] = fields["autostart"] is True
    if "env" in fields:
        launch["env"] = _env(fields["env"], file)
    return launch


def _env(value: Any, file: Path) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str | int | float) for each in value.values()):
        raise InvalidRequest(f"{file}: 'env' must be an object of texts.")
    return {name: each if isinstance(each, str) else orjson.dumps(each).decode() for name, each in value.items()}


def _text(fields: Mapping[str, Any], name: str, file: Path) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{file}: '{name}' must be a text.")
    return value or None


def _texts(fields: Mapping[str, Any], name: str, file: Path) -> list[str] | None:
    value = fields.get(name)
    if value is not None and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise InvalidRequest(f"{file}: '{name}' must be a list of texts.")
    return value
