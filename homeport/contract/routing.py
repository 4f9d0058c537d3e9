"""The segment table: finds the operation of a path in time that does not grow with the number of operations.

A literal segment beats a template at the same place, whichever order the document names them in.
"""

from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

Target = TypeVar("Target")


class TemplateClash(Exception):
    """Two paths differ only in the names of their parameters, so that no request could tell them apart."""

    def __init__(self, other: str) -> None:
        self.other = other
        super().__init__(f"cannot be told apart from '{other}'")


class UndecodablePath(Exception):
    """A percent-encoded path that is not UTF-8."""


class _Node(Generic[Target]):
    __slots__ = ("literals", "methods", "names", "path", "template")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[Target]] = {}
        self.template: _Node[Target] | None = None
        self.methods: dict[str, Target] = {}
        self.names: tuple[str, ...] = ()
        self.path = ""


class SegmentTable(Generic[Target]):
    """Paths with ``{parameters}`` to one target a method."""

    def __init__(self) -> None:
        self._root: _Node[Target] = _Node()
        self._literal: dict[bytes, _Node[Target]] = {}

    def add(self, path: str, method: str, target: Target) -> None:
        """Add one operation. Raises TemplateClash when another path has the same shape."""
        node, names = self._root, []
        for segment in path.split("/")[1:]:
            if segment.startswith("{") and segment.endswith("}"):
                names.append(segment[1:-1])
                node.template = node.template or _Node()
                node = node.template
            else:
                node = node.literals.setdefault(segment, _Node())
        if node.path not in ("", path):
            raise TemplateClash(node.path)
        node.path, node.names = path, tuple(names)
        node.methods[method] = target
        if not names:
            self._literal[path.encode()] = node

    def match(self, raw_path: bytes) -> tuple[dict[str, Target], dict[str, str]] | None:
        """The methods of the path that a request names, and its parameters; None when there is no such path. Raises UndecodablePath."""
        literal = self._literal.get(raw_path)
        if literal is not None:
            return literal.methods, {}
        values: list[str] = []
        node = _descend(self._root, split_path(raw_path), 0, values)
        return None if node is None else (node.methods, dict(zip(node.names, values, strict=True)))


def split_path(raw_path: bytes) -> list[str]:
    """Decoded segments of a request's path. ``%2F`` stays inside its segment.

    Empty segments at the front and one at the end are dropped: some official clients join a base address that ends in a slash, and none of
    them follows a redirect. Raises UndecodablePath.
    """
    text = raw_path.lstrip(b"/").removesuffix(b"/")
    if b"%" not in text:
        try:
            return text.decode("utf-8").split("/")
        except UnicodeDecodeError as error:
            raise UndecodablePath from error
    try:
        return [unquote_to_bytes(segment).decode("utf-8") for segment in text.split(b"/")]
    except UnicodeDecodeError as error:
        raise UndecodablePath from error


def _descend(node: _Node[Target], segments: list[str], depth: int, values: list[str]) -> _Node[Target] | None:
    if depth == len(segments):
        return node if node.methods else None
    segment = segments[depth]
    literal = node.literals.get(segment)
    if literal is not None:
        found = _descend(literal, segments, depth + 1, values)
        if found is not None:
            return found
    if node.template is None or not segment:
        return None
    values.append(segment)
    found = _descend(node.template, segments, depth + 1, values)
    if found is None:
        values.pop()
    return found
