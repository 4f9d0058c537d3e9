"""Builds a small server out of a contract written in the test and handlers given as functions: the real compiler, the real layers,
no database. Identity is the one part that is made here, because no request of these tests gets as far as a database."""

import sys
import types
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import yaml

from homeport.contract import load_contract
from homeport.errors import Unauthorized
from homeport.http.connexion_app import connexion_app
from homeport.http.error_bodies import ERROR_BODIES, PROBLEM_SURFACES
from homeport.http.middleware.access import Access
from homeport.http.middleware.body_limit import BodyLimit
from homeport.http.middleware.errors import Errors
from homeport.http.middleware.guard import Guard
from homeport.identity import Identity

SCHEMES = {
    "apiKey": {"type": "http", "scheme": "bearer", "x-bearerInfoFunc": "homeport.http.credentials.bearer"},
    "apiKeyHeader": {
        "type": "apiKey",
        "in": "header",
        "name": "x-api-key",
        "x-apikeyInfoFunc": "homeport.http.credentials.api_key_header",
    },
    "appId": {"type": "apiKey", "in": "header", "name": "X-App-Id", "x-apikeyInfoFunc": "homeport.http.credentials.app_id"},
}
OK = {"200": {"description": "ok", "content": {"application/json": {"schema": {"type": "object"}}}}}


def operation(name: str, **members: Any) -> dict[str, Any]:
    """A public operation ``probe.<name>``; ``members`` override or add."""
    return {
        "operationId": f"probe.things.{name}",
        "x-permission": "none",
        "x-surface": "local_apps",
        "security": [],
        "responses": OK,
        **members,
    }


def write_contract(folder: Path, paths: dict[str, Any], components: dict[str, Any] | None = None, *, version: str = "3.0.3") -> Path:
    document = {
        "openapi": version,
        "info": {"title": "probe", "version": "1"},
        "paths": paths,
        "components": {"securitySchemes": SCHEMES, **(components or {})},
    }
    (folder / "openapi.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return folder


@contextmanager
def handlers(functions: dict[str, Callable[..., Any]]) -> Any:
    """Make functions importable as ``handlers.probe.things.<name>`` while the contract is compiled."""
    package, module = types.ModuleType("handlers.probe"), types.ModuleType("handlers.probe.things")
    package.__path__ = []  # type: ignore[attr-defined]
    for name, function in functions.items():
        setattr(module, name, function)
    package.things = module  # type: ignore[attr-defined]
    added = {"handlers.probe": package, "handlers.probe.things": module}
    sys.modules.update(added)
    from homeport.contract.contract import find_function

    find_function.cache_clear()
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


class KnownCallers:
    """Identity for these tests: one principal for each credential that is listed."""

    def __init__(self, **principals: Any) -> None:
        self.principals = principals

    async def authenticate_key(self, text: str, app_id: str | None) -> Any:
        if text not in self.principals:
            raise Unauthorized("The API key is not valid (unknown, revoked or expired).", code="INVALID_API_KEY")
        return self.principals[text]

    async def authenticate_app(self, app_id: str) -> Any:
        return self.principals.get(app_id)

    async def refresh(self, principal: Any) -> Any:
        return principal

    require = Identity.require


def build(
    folder: Path,
    paths: dict[str, Any],
    functions: dict[str, Callable[..., Any]],
    components: dict[str, Any] | None = None,
    *,
    identity: Any = None,
    is_checked: bool = False,
    max_bytes: int = 100_000,
    allowed_hosts: tuple[str, ...] = (),
    allowed_origins: tuple[str, ...] = (),
) -> Any:
    """The ASGI application of a contract; ``scope["state"]["home"]`` is in place as the lifespan would put it."""
    write_contract(folder, paths, components)
    with handlers(functions):
        contract = load_contract(folder, surfaces=ERROR_BODIES, strict_surfaces=PROBLEM_SURFACES)
        edges = [
            Access,
            partial(Errors, contract=contract, is_checked=is_checked),
            partial(Guard, allowed_hosts=allowed_hosts, allowed_origins=allowed_origins),
            partial(BodyLimit, max_bytes=max_bytes),
        ]
        app = connexion_app(contract, None, edges, is_checked=is_checked)
    home = types.SimpleNamespace(identity=identity or KnownCallers(), contract=contract)

    async def with_home(scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = {"home": home}
        await app(scope, receive, send)

    return with_home


def client(app: Any, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", headers=headers)
