"""Lists page by page: an opaque cursor holds the sort values of the last row seen, so that a page costs the same however deep it lies.

A cursor is bound to its list and filter: used elsewhere it is refused. It carries a position, never a right, so it is not signed.
"""

import base64
import binascii
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import orjson
from sqlalchemy import Column, RowMapping, Select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from homeport.clock import parse_time
from homeport.errors import InvalidRequest

MAX_LIMIT = 200
_VERSION = 1

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items of a list, and the cursor for the next ones (None at the end)."""

    items: list[Item]
    next_cursor: str | None = None

    def render(self, item_shape: Callable[[Item], dict[str, Any]]) -> dict[str, Any]:
        """The page as JSON data, each item shaped by ``item_shape``."""
        return {"items": [item_shape(item) for item in self.items], "next_cursor": self.next_cursor}


def encode_cursor(scope: str, position: Sequence[object]) -> str:
    """The cursor that continues the list ``scope`` (its name, sort and filter) after the row with these sort values."""
    values = [value.isoformat() if isinstance(value, datetime) else str(value) for value in position]
    return base64.urlsafe_b64encode(orjson.dumps([_VERSION, _fingerprint(scope), *values])).decode("ascii").rstrip("=")


def decode_cursor(scope: str, cursor: str, types: Sequence[type]) -> list[Any]:
    """The sort values in ``cursor``, read as ``types`` (datetime, UUID, int or str).

    Raises InvalidRequest (INVALID_CURSOR) when it is damaged or was made for another list or filter.
    """
    try:
        version, fingerprint, *values = orjson.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
        if (version, fingerprint) != (_VERSION, _fingerprint(scope)):
            raise ValueError("made for another list")
        return [_read(value, kind) for value, kind in zip(values, types, strict=True)]
    except (ValueError, TypeError, binascii.Error, InvalidRequest) as error:
        raise InvalidRequest(
            "The cursor is not valid for this list; take next_cursor from the page before, with the same filter, or leave it out.",
            code="INVALID_CURSOR",
        ) from error


async def fetch_page(
    connection: AsyncConnection,
    statement: Select[Any],
    order: Sequence[Column[Any]],
    *,
    scope: str,
    limit: int,
    cursor: str | None,
    descending: bool = False,
) -> Page[RowMapping]:
    """Run ``statement`` sorted by ``order`` (which must end in something unique and be selected) and return one page of rows."""
    limit = max(1, min(limit, MAX_LIMIT))
    if cursor is not None:
        position = tuple_(*decode_cursor(scope, cursor, [column.type.python_type for column in order]))
        key = tuple_(*order)
        statement = statement.where(key < position if descending else key > position)
    statement = statement.order_by(*(column.desc() if descending else column.asc() for column in order)).limit(limit + 1)
    rows = list((await connection.execute(statement)).mappings())
    if len(rows) <= limit:
        return Page(rows)
    return Page(rows[:limit], encode_cursor(scope, [rows[limit - 1][column] for column in order]))


def slice_page(items: Sequence[Item], name: Callable[[Item], str], *, scope: str, limit: int, cursor: str | None) -> Page[Item]:
    """One page of a list that is in memory, sorted by a name that each item has for itself."""
    limit = max(1, min(limit, MAX_LIMIT))
    after = decode_cursor(scope, cursor, [str])[0] if cursor is not None else ""
    rest = sorted((item for item in items if name(item) > after), key=name)
    if len(rest) <= limit:
        return Page(rest)
    return Page(rest[:limit], encode_cursor(scope, [name(rest[limit - 1])]))


def _fingerprint(scope: str) -> int:
    return zlib.crc32(scope.encode("utf-8"))


def _read(value: object, kind: type) -> object:
    if not isinstance(value, str):
        raise ValueError("a sort value is written as text")
    if kind is datetime:
        return parse_time(value)
    if kind is int:
        return _read_number(value)
    return UUID(value) if kind is UUID else value


def _read_number(text: str) -> int:
    if (number := int(text)) >= 2**63:
        raise ValueError("larger than a bigint")
    return number
