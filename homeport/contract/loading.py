"""Reads the multi-file document and bundles it into one, with every reference internal and every component name kept.

``openapi.yaml`` is an index: each path refers to a path item in ``paths/<surface>/<resource>.yaml``, each component to its file. The bundle
is cached by the hash of all files, because parsing YAML is the slowest part of a start.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml

BUNDLE_FORMAT = b"1"

_PACKAGED = Path(__file__).resolve().parents[1] / "_openapi"
CONTRACT_ROOT = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).resolve().parents[2] / "openapi"

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ContractError(Exception):
    """The document cannot be served. The message names every problem as ``file:line: problem``, one a line."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One document, and for each of its paths the file and JSON pointer that it came from."""

    document: dict[str, Any]
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)
    root: Path = CONTRACT_ROOT

    def locate(self, path: str, *below: str) -> str:
        """``file:line`` of a path item, or of something below it, for messages."""
        file, pointer = self.sources.get(path, ("openapi.yaml", f"/paths/{_escape(path)}"))
        return locate(self.root / file, "/".join([pointer, *map(_escape, below)]))


def load_bundle(root: Path = CONTRACT_ROOT, cache_dir: Path | None = None) -> Bundle:
    """Bundle the document whose index is ``root/openapi.yaml``. Raises ContractError naming file and line."""
    index = root / "openapi.yaml"
    if not index.is_file():
        raise ContractError(f"{index}: there is no contract here")
    cached = cache_dir / f"contract-{_hash_files(root)}.json" if cache_dir else None
    if cached and cached.is_file():
        content = orjson.loads(cached.read_bytes())
        return Bundle(content["document"], {path: (file, pointer) for path, (file, pointer) in content["sources"].items()}, root)
    bundle = _Bundler(root).bundle()
    if cached:
        _write_atomically(cached, orjson.dumps({"document": bundle.document, "sources": bundle.sources}))
    return bundle


def locate(file: Path, pointer: str) -> str:
    """``file:line`` of what a JSON pointer points at; the nearest ancestor where the pointer leads nowhere."""
    node = yaml.compose(file.read_text(encoding="utf-8"), Loader=_Loader)
    for segment in pointer.split("/")[1:]:
        found = _child(node, _unescape(segment))
        if found is None:
            break
        node = found
    return f"{_display(file)}:{node.start_mark.line + 1 if node else 1}"


def _child(node: Any, name: str) -> Any:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                # A block value starts on the line after its key; the key is what a reader looks for.
                value.start_mark = key.start_mark
                return value
    if isinstance(node, yaml.SequenceNode) and name.isdigit() and int(name) < len(node.value):
        return node.value[int(name)]
    return None


class _Bundler:
    """Copies the index and follows references; whatever is referred to in another file becomes a component."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.files: dict[Path, Any] = {}
        self.targets: dict[tuple[Path, str], Path] = {}
        self.index = self.root / "openapi.yaml"
        self.components: dict[str, dict[str, Any]] = {}
        self.names: dict[tuple[Path, str], tuple[str, str]] = {}
        self.pending: list[tuple[str, str, Path, str]] = []

    def bundle(self) -> Bundle:
        document = self._read(self.index)
        if not isinstance(document, dict):
            raise ContractError(f"{_display(self.index)}:1: the index is not a mapping")
        bundled = {key: self._copy(value, self.index) for key, value in document.items() if key not in ("paths", "components")}
        for kind, entries in document.get("components", {}).items():
            for name, entry in entries.items():
                self._name_component(kind, name, entry)
        sources: dict[str, tuple[str, str]] = {}
        bundled["paths"] = {}
        for path, entry in document.get("paths", {}).items():
            file, pointer, item = self._follow(entry, self.index, f"/paths/{_escape(path)}")
            sources[path] = (file.relative_to(self.root).as_posix(), pointer)
            bundled["paths"][path] = self._surfaced(self._copy(item, file), file)
        while self.pending:
            kind, name, file, pointer = self.pending.pop()
            self.components.setdefault(kind, {})[name] = self._copy(self._at(file, pointer, file, ""), file)
        bundled["components"] = {
            kind: {name: self.components[kind][name] for name in sorted(self.components[kind])} for kind in sorted(self.components)
        }
        return Bundle(bundled, sources, self.root)

    def _name_component(self, kind: str, name: str, entry: Any) -> None:
        file, pointer, _ = self._follow(entry, self.index, f"/components/{kind}/{_escape(name)}")
        self.names[self.index, f"/components/{kind}/{_escape(name)}"] = (kind, name)
        self.names.setdefault((file, pointer), (kind, name))
        self.pending.append((kind, name, file, pointer))

    def _follow(self, entry: Any, file: Path, pointer: str) -> tuple[Path, str, Any]:
        """The place that an entry of the index stands for: the target of its reference, or itself."""
        while isinstance(entry, dict) and "$ref" in entry:
            origin, origin_pointer = file, pointer
            file, pointer = self._target(entry["$ref"], file)
            entry = self._at(file, pointer, origin, origin_pointer)
        return file, pointer, entry

    def _surfaced(self, item: Any, file: Path) -> Any:
        """An operation belongs to the surface whose folder its file is in."""
        parts = file.relative_to(self.root).parts
        if len(parts) > 2 and parts[0] == "paths" and isinstance(item, dict):
            for operation in operations_of(item).values():
                operation.setdefault("x-surface", parts[1])
        return item

    def _copy(self, value: Any, file: Path) -> Any:
        if isinstance(value, dict):
            reference = value.get("$ref")
            if isinstance(reference, str):
                return {"$ref": self._rename(reference, file)}
            return {str(key): self._copy(child, file) for key, child in value.items()}
        if isinstance(value, list):
            return [self._copy(child, file) for child in value]
        return value

    def _rename(self, reference: str, file: Path) -> str:
        target, pointer = self._target(reference, file)
        if (target, pointer) not in self.names:
            self._at(target, pointer, file, reference)
            kind, name = self._invent_name(target, pointer)
            self.names[target, pointer] = (kind, name)
            self.pending.append((kind, name, target, pointer))
        kind, name = self.names[target, pointer]
        return f"#/components/{kind}/{_escape(name)}"

    def _invent_name(self, file: Path, pointer: str) -> tuple[str, str]:
        parts = file.relative_to(self.root).parts
        kind = Path(parts[1]).stem if len(parts) > 1 and parts[0] == "components" else "schemas"
        name = _unescape(pointer.rsplit("/", 1)[-1]) or file.stem
        if (kind, name) in self.names.values():
            raise ContractError(f"{locate(file, pointer)}: two components would be called {kind}/{name}; rename one")
        return kind, name

    def _target(self, reference: str, file: Path) -> tuple[Path, str]:
        location, _, pointer = reference.partition("#")
        if not location:
            return file, pointer
        target = self.targets.get((file.parent, location))
        if target is None:
            target = self.targets[file.parent, location] = (file.parent / location).resolve()
            if not target.is_relative_to(self.root):
                raise ContractError(f"{_display(file)}: the reference '{reference}' leaves the contract's folder")
        return target, pointer

    def _at(self, file: Path, pointer: str, origin: Path, origin_pointer: str) -> Any:
        value = self._read(file, origin)
        for segment in pointer.split("/")[1:]:
            key = _unescape(segment)
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                where = locate(origin, origin_pointer) if origin_pointer.startswith("/") else _line_of(origin, origin_pointer)
                raise ContractError(f"{where}: nothing is at {_display(file)}#{pointer}")
        return value

    def _read(self, file: Path, origin: Path | None = None) -> Any:
        if file not in self.files:
            try:
                self.files[file] = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 a safe loader
            except FileNotFoundError as error:
                raise ContractError(f"{_display(origin or file)}: refers to {_display(file)}, which does not exist") from error
            except yaml.YAMLError as error:
                line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
                raise ContractError(f"{_display(file)}:{line}: {getattr(error, 'problem', error)}") from error
        return self.files[file]


METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


def operations_of(item: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The operations of a path item by lower-case method."""
    return {method: item[method] for method in METHODS if isinstance(item.get(method), dict)}


def each_operation(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(path, method, operation) of a whole document."""
    for path, item in document.get("paths", {}).items():
        for method, operation in operations_of(item).items():
            yield path, method, operation


def _hash_files(root: Path) -> str:
    digest = hashlib.sha256(BUNDLE_FORMAT)
    for file in sorted(root.rglob("*.yaml")):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:32]


def _write_atomically(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # who could write there could say what is enforced
    for stale in target.parent.glob("contract-*.json"):
        stale.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".contract-")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.replace(name, target)


def _line_of(file: Path, text: str) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    number = next((number for number, line in enumerate(lines, 1) if text in line), 1)
    return f"{_display(file)}:{number}"


def _display(file: Path) -> str:
    try:
        return file.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(file)


def _escape(segment: str) -> str:
    return segment.replace("~", "~0").replace("/", "~1")


def _unescape(segment: str) -> str:
    return segment.replace("~1", "/").replace("~0", "~")
