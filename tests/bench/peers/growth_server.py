"""Homeport with a document of another size: the real one cut down, or multiplied under other paths and names.

The environment names the folder of the document (``BENCH_DOCUMENT``), which ``write_document`` has made.
"""

import importlib
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

import orjson

from homeport.contract import load_contract
from homeport.contract.loading import each_operation, load_bundle
from homeport.home import make_data_dir
from homeport.http.app import create_app
from homeport.http.error_bodies import ERROR_BODIES, PROBLEM_SURFACES
from homeport.settings import load_settings
from tests.bench.peers.homeport_peer import MODULE, SECURITY, chat, show
from tests.bench.peers.shapes import LAST

DOCUMENT = "BENCH_DOCUMENT"
FIRST, CHAT = "/sdk/ping", "/bench/chat"
NAMES = re.compile(rb'("operationId":"|"#/components/\w+/)')
REFERENCE = re.compile(rb'"#/components/(\w+)/([^"/]+)')

Document = dict[str, Any]


def write_document(root: Path, count: int) -> None:
    """Make a document of ``count`` operations, at least 4: the first is GET /sdk/ping, the last one has a path of its own."""
    real = load_bundle().document
    paths = {path: real["paths"][path] for path in (FIRST, "/health")} | {CHAT: _bench("post", "chat", _chat_members())}
    components: Document = {kind: dict(entries) for kind, entries in real["components"].items()}
    left = count - 1 - _count(paths)
    number = 0
    while left > 0:
        source = real if number == 0 else _renamed(real, number)
        for kind, entries in source["components"].items():
            components.setdefault(kind, {}).update(entries)
        for path, item in source["paths"].items():
            if path in paths or left < _count({path: item}):
                continue
            paths[path] = item
            left -= _count({path: item})
        number += 1
    paths[LAST] = _bench("get", "show", _show_members())
    document = {**real, "paths": paths}
    _cut_links(document)
    document["components"] = {**_used(document, components), "securitySchemes": real["components"]["securitySchemes"]}
    root.mkdir(parents=True, exist_ok=True)
    (root / "openapi.yaml").write_bytes(orjson.dumps(document))  # JSON is YAML


def create() -> Any:
    """The application, for ``uvicorn --factory``."""
    bench = types.ModuleType(MODULE)
    vars(bench).update(chat=chat, show=show)
    sys.modules[MODULE] = bench
    root, settings = Path(os.environ[DOCUMENT]), load_settings()
    for name in set(re.findall(r'"operationId":"(copy\d+_)(\w+)\.', (root / "openapi.yaml").read_text(encoding="utf-8"))):
        # A package of another name, so that its modules are loaded once more, as those of other operations would be.
        sys.modules[f"handlers.{''.join(name)}"] = importlib.import_module(f"handlers.{name[1]}")
    cache = make_data_dir(settings) / "cache"
    return create_app(settings, load_contract(root, surfaces=ERROR_BODIES, strict_surfaces=PROBLEM_SURFACES, cache_dir=cache))


def _renamed(real: Document, number: int) -> Document:
    """The same document with other paths, operations and components, and without tools, whose names would be taken."""
    copy: Document = orjson.loads(NAMES.sub(rb"\1copy%d_" % number, orjson.dumps(real)))
    for _, _, operation in each_operation(copy):
        operation.pop("x-mcp", None)
    copy["paths"] = {f"/copy{number}{path}": item for path, item in copy["paths"].items()}
    copy["components"] = {
        kind: {f"copy{number}_{name}": entry for name, entry in entries.items()} for kind, entries in copy["components"].items()
    }
    return copy


def _cut_links(document: Document) -> None:
    """Drop links to operations that are not in the document."""
    known = {operation["operationId"] for _, _, operation in each_operation(document)}
    for _, _, operation in each_operation(document):
        for response in operation["responses"].values():
            if "links" in response:
                response["links"] = {name: link for name, link in response["links"].items() if link["operationId"] in known}


def _used(document: Document, components: Document) -> Document:
    """The components that the paths lead to."""
    used: Document = {}
    pending = [orjson.dumps(document["paths"])]
    while pending:
        for kind, name in REFERENCE.findall(pending.pop()):
            entries = used.setdefault(kind.decode(), {})
            if name.decode() not in entries:
                entries[name.decode()] = components[kind.decode()][name.decode()]
                pending.append(orjson.dumps(entries[name.decode()]))
    return used


def _count(paths: Document) -> int:
    return sum(1 for _ in each_operation({"paths": paths}))


def _bench(method: str, name: str, members: Document) -> Document:
    ok = {"200": {"description": "ok", "content": {"application/json": {"schema": {"type": "object"}}}}}
    operation = {"operationId": f"bench.{name}", "security": SECURITY, "responses": ok, "x-surface": "local_apps", **members}
    return {method: operation}


def _chat_members() -> Document:
    schema = {"$ref": "#/components/schemas/ChatRequest"}
    return {"x-permission": "llm.chat", "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _show_members() -> Document:
    number = {"name": "number", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 64}}
    return {"x-permission": "none", "parameters": [number]}
