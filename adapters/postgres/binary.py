"""Values that were written in PostgreSQL's binary form already."""

from dataclasses import dataclass, field

from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format


@dataclass(frozen=True, slots=True)
class BinaryParameter:
    """A parameter that is sent as it is. The statement has to say its type: ``%s::vector``."""

    data: bytes = field(repr=False)


class BinaryParameterDumper(Dumper):
    """How psycopg sends a BinaryParameter: in binary, and of a type that the server finds in the statement."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: BinaryParameter) -> Buffer:
        """The bytes."""
        return obj.data
