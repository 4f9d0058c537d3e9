"""Homeport itself, all of it, with bench operations added to its contract: a chat and an upsert that end at the handler, and more."""

import shutil
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import yaml

from homeport.contract import CONTRACT_ROOT, Contract, load_contract
from homeport.http.app import create_app
from homeport.http.error_bodies import ERROR_BODIES, PROBLEM_SURFACES
from homeport.settings import load_settings
from tests.bench.peers.shapes import GENERATED

MODULE = "handlers.bench"
SECURITY = [{"apiKey": []}, {"apiKeyHeader": []}, {"appId": []}]
VECTOR = {
    "type": "object",
    "required": ["id", "vector"],
    "properties": {
        "id": {"type": "string", "maxLength": 512},
        "vector": {"type": "array", "minItems": 1, "maxItems": 16_000, "items": {"type": "number"}},
        "metadata": {"type": "object", "nullable": True},
    },
}
UPSERT = {
    "type": "object",
    "required": ["vectors"],
    "properties": {
        "vectors": {"type": "array", "minItems": 1, "maxItems": 1000, "items": VECTOR},
        "workspaceId": {"type": "string", "maxLength": 200, "nullable": True},
    },
}


async def chat(body: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "messages": len(body["messages"])}


async def upsert(body: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "upserted": len(body["vectors"])}


async def show(number: str) -> dict[str, Any]:
    return {"success": True, "number": number}


def create() -> Any:
    """The application, for ``uvicorn --factory``."""
    return create_app(load_settings(), _bench_contract())


def _bench_contract() -> Contract:
    module = types.ModuleType(MODULE)
    shows = {f"show_{i:03}": show for i in range(GENERATED)}
    vars(module).update(chat=chat, upsert=upsert, **shows)
    sys.modules[MODULE] = module
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "openapi"
        shutil.copytree(CONTRACT_ROOT, root)
        index = yaml.safe_load((root / "openapi.yaml").read_text(encoding="utf-8"))
        items = _bench_items()
        index["paths"] |= {path: {"$ref": f"paths/local_apps/bench.yaml#/{name}"} for path, (name, _) in items.items()}
        (root / "openapi.yaml").write_text(yaml.safe_dump(index), encoding="utf-8")
        (root / "paths/local_apps/bench.yaml").write_text(yaml.safe_dump(dict(items.values())), encoding="utf-8")
        return load_contract(root, surfaces=ERROR_BODIES, strict_surfaces=PROBLEM_SURFACES)


def _bench_items() -> dict[str, tuple[str, dict[str, Any]]]:
    chat_schema = {"$ref": "../../openapi.yaml#/components/schemas/ChatRequest"}
    items = {
        "/bench/chat": ("chat", {"post": _operation("chat", "llm.chat", body=chat_schema)}),
        "/bench/upsert": ("upsert", {"post": _operation("upsert", "vectors.write", body=UPSERT)}),
    }
    number = {"name": "number", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 64}}
    for i in range(GENERATED):
        item = {"get": _operation(f"show_{i:03}", "none", parameters=[number])}
        items[f"/bench/group{i // 10:02}/item{i:03}/{{number}}"] = (f"show_{i:03}", item)
    return items


def _operation(name: str, permission: str, body: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    request = {"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}} if body else {}
    ok = {"200": {"description": "ok", "content": {"application/json": {"schema": {"type": "object"}}}}}
    return {"operationId": f"bench.{name}", "x-permission": permission, "security": SECURITY, "responses": ok, **request, **members}
