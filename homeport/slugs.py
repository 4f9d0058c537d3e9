"""Slugs: the short names by which people and URLs know a thing."""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, RowMapping, Table
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from homeport.errors import Conflict, InvalidRequest
from homeport.ids import parse_uuid

MAX_LENGTH = 63
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


def slugify(name: str, fallback: str) -> str:
    """A slug for ``name``: lower-case ASCII letters, digits and hyphens; ``fallback`` when nothing of the name is left."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")[:MAX_LENGTH].rstrip("-") or fallback
    return f"{fallback}-{slug}" if parse_uuid(slug) else slug


def check_slug(slug: str) -> str:
    """Return ``slug`` if it can be one. Raises InvalidRequest; one in the form of a UUID is refused: ids stand in the same places."""
    if len(slug) > MAX_LENGTH or not _SLUG.fullmatch(slug) or parse_uuid(slug):
        raise InvalidRequest(
            f"'{slug[:80]}' cannot be a slug: use up to {MAX_LENGTH} lower-case letters, digits and hyphens, not in the form of a UUID."
        )
    return slug


def slug_taken(slug: str) -> Conflict:
    """The error for a slug that belongs to another thing."""
    return Conflict(f"The slug '{slug}' is taken; choose another.", code="SLUG_TAKEN")


async def insert_with_slug(
    connection: AsyncConnection, table: Table, values: Mapping[str, Any], slugs: Sequence[str], unique: Sequence[Column[Any]]
) -> RowMapping:
    """Insert a row under the first of ``slugs`` that is free and return it. ``unique`` are the columns in which a slug may stand only once.

    Raises Conflict (SLUG_TAKEN) when none is free.
    """
    for slug in slugs:
        statement = insert(table).values(slug=slug, **values).on_conflict_do_nothing(index_elements=list(unique))
        row: RowMapping | None = (await connection.execute(statement.returning(table))).mappings().one_or_none()
        if row is not None:
            return row
    raise slug_taken(slugs[0])


def slugs_for(name: str, fallback: str) -> list[str]:
    """The slug for ``name`` and what to try in turn when it is taken: -2 … -9, then a random ending."""
    slug = slugify(name, fallback)
    stem = slug[: MAX_LENGTH - 9].rstrip("-")
    return [slug, *(f"{stem}-{number}" for number in range(2, 10)), *(f"{stem}-{os.urandom(4).hex()}" for _ in range(2))]
