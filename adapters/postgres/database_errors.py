"""Database errors, told in the words of ``homeport.errors``.

What the domain must decide (a unique or foreign key that was violated) passes unchanged; what is a mistake of ours (a syntax error, a
missing table) passes too and ends as an internal error. The SQL and its values stay in the cause.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import structlog
from sqlalchemy import exc

from homeport.errors import AppError, InvalidRequest, Unavailable

log = structlog.get_logger(__name__)

# A PostgreSQL that restarts is back within a second or two.
RETRY_AFTER_S = 2
# Classes and codes of SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
UNAVAILABLE = {
    "08": "The database cannot be reached at the moment. Try again.",
    "25006": "The database only allows reading at the moment. Try again later.",
    "40": "The database was too busy with conflicting changes. Try again.",
    "53100": "The disk of the database is full.",
    "53": "The database is out of resources at the moment. Try again later.",
    "55P03": "The database was too busy with conflicting changes. Try again.",
    "57": "The database is stopping or took too long. Try again.",
    "58": "The database has trouble with its disk.",
}
INVALID = {
    "22003": "A number is outside the range that can be stored.",
    "22008": "A time is outside the range that can be stored.",
    "22021": "A text holds a character that cannot be stored (U+0000).",
    "22P05": "A text holds a character that cannot be stored (U+0000).",
    "22": "A value cannot be stored.",
    "54": "A value is too long to be stored.",
}
NUL = "A text holds a character that cannot be stored (U+0000)."


@contextmanager
def translated_errors() -> Iterator[None]:
    """Let database errors leave the block as errors of ``homeport.errors``, where they have a meaning for the caller."""
    try:
        yield
    except exc.TimeoutError as error:
        log.warning("no database connection became free")
        raise database_unavailable("All database connections are in use. Try again later.") from error
    except UnicodeEncodeError as error:
        raise InvalidRequest("A text holds half of a surrogate pair, which is no character and cannot be stored.") from error
    except (exc.DBAPIError, psycopg.Error) as error:
        replacement = translate(error)
        if replacement is None:
            raise
        if isinstance(replacement, Unavailable):
            log.warning("database unavailable", reason=str(getattr(error, "orig", error)).splitlines()[0])
        raise replacement from error


def translate(error: exc.DBAPIError | psycopg.Error) -> AppError | None:
    """The error that the caller may see instead; None when this one passes as it is."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    if not isinstance(cause, psycopg.Error):
        return None
    state = cause.sqlstate or ""
    if message := _look_up(UNAVAILABLE, state):
        return database_unavailable(message)
    if message := _look_up(INVALID, state):
        return InvalidRequest(message)
    if not state and isinstance(cause, psycopg.DataError):
        return InvalidRequest(NUL if "NUL" in str(cause) else INVALID["22"])
    if not state and isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)):
        return database_unavailable(UNAVAILABLE["08"])
    return None


def database_unavailable(message: str) -> Unavailable:
    """What a caller is told when the database does not do what was asked now, and may soon."""
    return Unavailable(message, code="DATABASE_UNAVAILABLE", headers={"Retry-After": str(RETRY_AFTER_S)})


def _look_up(table: dict[str, str], state: str) -> str | None:
    return table.get(state) or table.get(state[:2])
