"""Settings: one frozen object, built once.

Order: the command line over the environment (``HOMEPORT_*``, plus ``DATABASE_URL``) over ``homeport.toml`` in the data directory over
the defaults below. A name under our prefix that is not a setting is an error, and all errors are reported together. A secret may
also be given as a file: ``HOMEPORT_SECRET_KEY_FILE=/run/secrets/key``.
"""

import difflib
import os
import tomllib
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

PREFIX = "HOMEPORT_"
EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 recognised, not bound
SECRET_FILES = {
    f"{PREFIX}{name}_FILE": name.lower() for name in ("SECRET_KEY", "DATABASE_URL", "CONTRACT_SECRET", "PREVIOUS_CONTRACT_SECRET")
}

PermissionPolicy = Literal["prompt", "manifest", "allow"]


class SettingsError(Exception):
    """The settings are wrong; the message lists every problem, one a line."""


def default_data_dir() -> Path:
    """Where everything is kept when nobody says otherwise."""
    return Path.home() / ".homeport"


class Settings(BaseSettings):
    """Everything that can be set. Each field is documented in the README (a test compares the two)."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Folder for the embedded database, the apps' own files and keys. Made with mode 0700.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="A PostgreSQL (14 or newer, with pgvector 0.8 or newer) to use instead of the embedded one. "
        "Also read from `DATABASE_URL`.",
    )
    database_pool_size: int = Field(default=10, ge=1, le=200, description="Open database connections per server process.")
    host: str = Field(
        default="localhost",
        description="Address to listen on. `localhost` means both loopback families, 127.0.0.1 and ::1.",
    )
    behind_proxy: bool = Field(
        default=False,
        description="Says that something in front of this server encrypts, or that nobody else's machine can reach it (a proxy with TLS, a "
        "container whose port is published on loopback). Needed to listen anywhere but on loopback.",
    )
    port: int = Field(default=3001, ge=0, le=65535, description="Port to listen on. The official clients expect 3001. 0 takes a free one.")
    workers: int = Field(default=1, ge=1, le=64, description="Server processes that share the port.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Further names that the Host header may carry, comma-separated. The loopback names are always allowed.",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Web origins that may call this server from a browser, comma-separated (`https://app.example`). None by default.",
    )
    private_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Hosts in private networks, this machine included, that apps may have the server connect to, comma-separated: names, "
        "addresses or networks (`localhost,10.0.0.0/8`), or `*` for all. None by default.",
    )
    permission_policy: PermissionPolicy = Field(
        default="prompt",
        description="How an app gets a permission: `prompt` waits for a person, `manifest` grants what its manifest declares, "
        "`allow` grants all (development).",
    )
    permission_wait_s: float = Field(
        default=50.0,
        ge=0,
        le=600,
        description="Seconds that an app's request for permission waits for a person. The official clients give up after 60.",
    )
    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1024, description="Largest request body, in bytes.")
    chat_timeout_s: float = Field(default=110.0, gt=0, le=3600, description="Seconds that a model may take for a whole answer.")
    stream_idle_s: float = Field(
        default=60.0, gt=0, le=3600, description="Seconds that a streaming model may stay silent before the stream ends with an error."
    )
    shutdown_s: float = Field(
        default=10.0, ge=0, le=600, description="Seconds that open requests and streams get to finish when the server stops."
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description="Key (32 bytes, base64) that encrypts stored secrets. Made once in the data directory when not set; "
        "set it when several machines share a database.",
    )
    contract_secret: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="Secret that apps sign their reports on tasks with, and that this server signs with what it posts to callback "
        "addresses. Without it signatures are not looked at.",
    )
    previous_contract_secret: SecretStr | None = Field(
        default=None,
        min_length=1,
        description="The secret before that one: reports that are signed with it are still taken, until every app has the new one.",
    )
    app_ports: str = Field(
        default="8100-8999", description="Ports that apps which are started from here are given, the first and the last."
    )
    ollama_url: str = Field(default="http://127.0.0.1:11434", description="Where to look for a running Ollama. `off`: do not look.")
    validate_responses: bool = Field(
        default=False, description="Check every JSON answer and event against the contract (tests, development)."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="How much is logged.")
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`json`, `console`, or `auto`: console on a terminal, JSON otherwise."
    )

    @field_validator("allowed_hosts", "allowed_origins", "private_hosts", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip().rstrip("/") for part in value.split(",") if part.strip())
        return value

    @field_validator("private_hosts")
    @classmethod
    def _networks_are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if "/" in host:
                ip_network(host, strict=False)
        return value

    @field_validator("app_ports")
    @classmethod
    def _ports_are_a_range(cls, value: str) -> str:
        first, sign, last = value.partition("-")
        if not (sign and first.strip().isdecimal() and last.strip().isdecimal() and 1 <= int(first) <= int(last) <= 65535):
            raise ValueError("two port numbers, such as 8100-8999")
        return value

    @field_validator("ollama_url")
    @classmethod
    def _off_is_nowhere(cls, value: str) -> str:
        # An empty variable counts as not set, as everywhere; so switching off needs a word.
        return "" if value.lower() == "off" else value

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        data_dir = init_settings().get("data_dir") or env_settings().get("data_dir") or default_data_dir()
        toml = TomlConfigSettingsSource(settings_cls, Path(data_dir).expanduser() / "homeport.toml")
        return init_settings, env_settings, toml

    @cached_property
    def app_port_range(self) -> range:
        """The ports that apps are given."""
        first, _, last = self.app_ports.partition("-")
        return range(int(first), int(last) + 1)

    @cached_property
    def base_url(self) -> str:
        """Where a client on this machine reaches the server: what people and clients are told."""
        host = "localhost" if self.host in EVERYWHERE else f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def load_settings(**overrides: Any) -> Settings:
    """Build the settings; ``overrides`` come from the command line, None means not given.

    Raises SettingsError naming everything that is wrong at once.
    """
    problems = [
        f"{name}: no such setting{_did_you_mean(name)}"
        for name in os.environ
        if name.startswith(PREFIX) and name not in SECRET_FILES and name.removeprefix(PREFIX).lower() not in Settings.model_fields
    ]
    values = {name: value for name, value in overrides.items() if value is not None}
    if url := os.environ.get("DATABASE_URL"):
        values.setdefault("database_url", url)
    for name, field in SECRET_FILES.items():
        if path := os.environ.get(name):
            try:
                values.setdefault(field, Path(path).read_text(encoding="utf-8").strip())
            except OSError as error:
                problems.append(f"{name}: cannot read {path}: {error.strerror}")
    try:
        settings = Settings(**values)
    except ValidationError as error:
        problems += [f"{_source_name(e['loc'])}: {e['msg']}" for e in error.errors(include_input=False)]
    except (tomllib.TOMLDecodeError, OSError) as error:
        problems.append(f"homeport.toml: {error}")
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _source_name(location: tuple[int | str, ...]) -> str:
    name = ".".join(map(str, location))
    return f"{PREFIX}{name.upper()}" if location[0] in Settings.model_fields else f"homeport.toml: {name}{_did_you_mean(name)}"


def _did_you_mean(name: str) -> str:
    close = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), Settings.model_fields, n=1)
    if not close:
        return ""
    return f" (did you mean {PREFIX + close[0].upper() if name.startswith(PREFIX) else close[0]}?)"
