"""The container files name only what exists: files of the checkout, and settings of the program."""

import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from homeport.settings import PREFIX, SECRET_FILES, Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SETTINGS = {f"{PREFIX}{field.upper()}" for field in Settings.model_fields} | SECRET_FILES.keys()


def own_names(names: Iterable[str]) -> set[str]:
    """Those that the program takes for its settings, and refuses when they are none."""
    return {name for name in names if name.startswith(PREFIX)}


def test_the_image_sets_only_settings_that_exist() -> None:
    named = own_names(re.findall(r"[A-Z][A-Z_]+", DOCKERFILE))
    assert {"HOMEPORT_HOST", "HOMEPORT_BEHIND_PROXY", "HOMEPORT_DATA_DIR"} <= named <= SETTINGS


def test_compose_sets_only_settings_that_exist() -> None:
    named = own_names(COMPOSE["services"]["homeport"]["environment"])
    assert "HOMEPORT_ALLOWED_HOSTS" in named
    assert named <= SETTINGS


def test_the_image_copies_files_that_exist_and_are_not_ignored() -> None:
    copied = [source for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]]
    admitted = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")]
    assert "openapi" in copied
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert [source for source in copied if not any(fnmatch(source, pattern) for pattern in admitted)] == []


def test_compose_publishes_on_loopback_only() -> None:
    ports = {name: service.get("ports", []) for name, service in COMPOSE["services"].items()}
    assert ports["homeport"]
    assert [port for each in ports.values() for port in each if not port.startswith("127.0.0.1:")] == []


def test_compose_waits_for_a_healthy_database_and_demands_its_password() -> None:
    services = COMPOSE["services"]
    assert services["homeport"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert services["db"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    assert services["db"]["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    assert "${POSTGRES_PASSWORD:?" in services["homeport"]["environment"]["DATABASE_URL"]


def test_what_compose_keeps_lies_in_named_volumes() -> None:
    kept = {volume.split(":")[0] for service in COMPOSE["services"].values() for volume in service.get("volumes", [])}
    assert kept == COMPOSE["volumes"].keys()
