"""What a model provider is: as configured, with its key, and as shown, without it."""

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from adapters.chat import Endpoint
from homeport.errors import AppError, InvalidRequest

Source = Literal["database", "environment", "ollama"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class ConfiguredProvider:
    """A provider as it was configured. ``models`` are those that somebody named; ``problem`` says why it cannot be used."""

    endpoint: Endpoint
    source: Source
    models: tuple[str, ...] = ()
    problem: AppError | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The name by which requests choose it."""
        return self.endpoint.provider


@dataclass(frozen=True, slots=True)
class Model:
    """A model of a provider."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider as it is shown. ``active`` marks the one that is used when a request names none."""

    name: str
    kind: str
    source: Source
    base_url: str | None
    models: tuple[Model, ...]
    active: bool


@dataclass(frozen=True, slots=True)
class ProviderTest:
    """Whether a provider works, and a sentence that says so or what is wrong."""

    works: bool
    message: str


def check_provider_name(name: str) -> str:
    """Return ``name`` if it can be one. Raises InvalidRequest."""
    if not _NAME.fullmatch(name):
        message = f"'{name[:80]}' cannot name a provider: use up to 63 lower-case letters, digits, dots, hyphens and underscores."
        raise InvalidRequest(message)
    return name


def check_base_url(url: str) -> str:
    """Return ``url`` without a slash at its end. Raises InvalidRequest unless it is an http(s) address without credentials."""
    try:
        parts = urlsplit(url.strip())
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_right = False
    if not is_right or not url.isprintable() or " " in url.strip():
        raise InvalidRequest("A provider's base URL must be an http or https address, such as http://127.0.0.1:8000/v1.")
    if parts.username is not None or parts.password is not None:
        raise InvalidRequest("A provider's base URL must not hold a user name or password; give the key separately.")
    if parts.query or parts.fragment:
        raise InvalidRequest("A provider's base URL must not hold a query or a fragment.")
    return url.strip().rstrip("/")
