"""The compiled contract: operations, routes, and the documents that are published."""

import functools
import hashlib
import importlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import yaml

from homeport.contract.checking import check_bundle
from homeport.contract.loading import CONTRACT_ROOT, Bundle, ContractError, each_operation, load_bundle
from homeport.contract.modern import to_openapi_31
from homeport.contract.operations import Operation, compile_operation
from homeport.contract.routing import SegmentTable
from homeport.contract.schemas import Schemas
from homeport.contract.tools import Tool


@dataclass(frozen=True, slots=True)
class PublishedDocument:
    """One published form of the document, with its strong ETag."""

    content: bytes
    media_type: str
    etag: str


class Contract:
    """A checked bundle and everything compiled from it."""

    def __init__(self, bundle: Bundle, operations: dict[str, Operation]) -> None:
        self.bundle = bundle
        self.operations: Mapping[str, Operation] = operations
        self.routes: SegmentTable[Operation] = SegmentTable()
        for operation in operations.values():
            self.routes.add(operation.path, operation.method, operation)
        tools = {each.tool.name: (each.tool, each) for each in operations.values() if each.tool}
        # By name, in an order that does not change.
        self.tools: Mapping[str, tuple[Tool, Operation]] = dict(sorted(tools.items()))
        self._surface_prefixes = _surface_prefixes(operations.values())

    @property
    def surfaces(self) -> list[str]:
        """The surfaces that have an operation, sorted."""
        return sorted({operation.surface for operation in self.operations.values()})

    def surface_of(self, segments: list[str], default: str) -> str:
        """The surface that a path without an operation most likely meant: that of the longest known prefix."""
        for depth in range(len(segments), 0, -1):
            surface = self._surface_prefixes.get(tuple(segments[:depth]))
            if surface is not None:
                return surface
        return default

    @functools.cached_property
    def published(self) -> PublishedDocument:
        """The whole document as JSON, as clients get it: component names kept, how credentials are checked left out."""
        return _publish(orjson.dumps(self._select(None)), "application/json")

    @functools.cached_property
    def published_31(self) -> PublishedDocument:
        """The same as OpenAPI 3.1."""
        return _publish(orjson.dumps(to_openapi_31(self._select(None))), "application/json")

    @functools.cached_property
    def published_yaml(self) -> PublishedDocument:
        """The same as YAML. The first use takes a while."""
        content = yaml.dump(self._select(None), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
        return _publish(content.encode(), "application/yaml")

    @functools.cached_property
    def published_surfaces(self) -> Mapping[str, PublishedDocument]:
        """One document for each surface, with only the components that it uses."""
        return {surface: _publish(orjson.dumps(self._select(surface)), "application/json") for surface in self.surfaces}

    def _select(self, surface: str | None) -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(orjson.dumps(self.bundle.document))
        for scheme in document.get("components", {}).get("securitySchemes", {}).values():
            for key in [key for key in scheme if key.startswith("x-")]:
                del scheme[key]
        if surface is not None:
            for path, method, operation in list(each_operation(document)):
                if operation["x-surface"] != surface:
                    del document["paths"][path][method]
            document["paths"] = {path: item for path, item in document["paths"].items() if any(each_operation({"paths": {path: item}}))}
            _drop_unused_components(document)
        return document


def _publish(content: bytes, media_type: str) -> PublishedDocument:
    return PublishedDocument(content, media_type, strong_etag(content))


def strong_etag(content: bytes) -> str:
    """An ETag that changes with every byte."""
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def load_contract(
    root: Path = CONTRACT_ROOT, *, surfaces: Collection[str], cache_dir: Path | None = None, strict_surfaces: Collection[str] = ()
) -> Contract:
    """Load, check and compile the document under ``root``. Raises ContractError naming file and line.

    ``surfaces``: those with an error body. On ``strict_surfaces`` a query parameter that is not declared is an error.
    """
    bundle = load_bundle(root, cache_dir)
    check_bundle(bundle, surfaces, find_function)
    schemas = Schemas(bundle.document)
    operations: dict[str, Operation] = {}
    tools: dict[str, str] = {}
    problems = []
    for path, method, raw in each_operation(bundle.document):
        raw.setdefault("x-strict-query", raw["x-surface"] in strict_surfaces)
        try:
            operation = compile_operation(path, method, bundle.document["paths"][path], bundle.document, schemas)
            if operation.tool and tools.setdefault(operation.tool.name, operation.id) != operation.id:
                raise ValueError(f"x-mcp: the name '{operation.tool.name}' is already used by {tools[operation.tool.name]}")
            operations[operation.id] = operation
        except ValueError as error:
            problems.append(f"{bundle.locate(path, method)}: {method.upper()} {path}: {error}")
        del raw["x-strict-query"]
    if problems:
        raise ContractError("\n".join(problems))
    return Contract(bundle, operations)


@functools.cache
def find_function(dotted_name: str) -> Any:
    """Import ``package.module.function``. Raises ImportError or AttributeError."""
    module, _, name = dotted_name.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _surface_prefixes(operations: Collection[Operation]) -> dict[tuple[str, ...], str]:
    """Literal beginnings of paths that belong to one surface only."""
    owners: dict[tuple[str, ...], set[str]] = {}
    for operation in operations:
        segments = operation.path.split("/")[1:]
        for depth in range(1, len(segments) + 1):
            if segments[depth - 1].startswith("{"):
                break
            owners.setdefault(tuple(segments[:depth]), set()).add(operation.surface)
    return {prefix: next(iter(surfaces)) for prefix, surfaces in owners.items() if len(surfaces) == 1}


def _drop_unused_components(document: dict[str, Any]) -> None:
    components = document.get("components", {})
    used: set[str] = set()
    pending = [document["paths"]]
    while pending:
        for reference in _references(pending.pop()):
            if reference not in used:
                used.add(reference)
                _, _, kind, name = reference.split("/", 3)
                pending.append(components[kind][name])
    schemes = {name for _, _, operation in each_operation(document) for each in operation.get("security", []) for name in each}
    document["components"] = {
        kind: kept
        for kind, entries in components.items()
        if (
            kept := {n: e for n, e in entries.items() if f"#/components/{kind}/{n}" in used or (kind == "securitySchemes" and n in schemes)}
        )
    }
    tags = {tag for _, _, operation in each_operation(document) for tag in operation.get("tags", [])}
    document["tags"] = [tag for tag in document.get("tags", []) if tag["name"] in tags]


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [reference for child in value.values() for reference in _references(child)]
    if isinstance(value, list):
        return [reference for child in value for reference in _references(child)]
    return []
