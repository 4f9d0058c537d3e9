"""How every connection to PostgreSQL is made: what a URL may say, and what is set when it says nothing."""

from typing import Any, LiteralString

import psycopg
from psycopg.abc import AdaptContext
from psycopg.conninfo import conninfo_to_dict

from homeport.errors import Unavailable

Connection = psycopg.AsyncConnection[Any]

SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg://")

# Over TCP, a server that vanished without a word is noticed within a minute when idle and within 10 s when spoken to.
DEFAULTS = {
    "fallback_application_name": "homeport",
    "client_encoding": "utf-8",
    "connect_timeout": "5",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


class DatabaseUnsuitable(Unavailable):
    """The database cannot be used by Homeport."""

    code = "DATABASE_UNAVAILABLE"


def parse_url(url: str) -> dict[str, Any]:
    """The connection parameters that a ``postgres://`` or ``postgresql://`` URL gives, with our defaults for the others.

    Everything that libpq understands may stand in it: several hosts, a socket folder, ``sslmode`` and its other options.
    Raises DatabaseUnsuitable; the message never repeats the URL, which may hold a password.
    """
    try:
        return {**DEFAULTS, **read_url(url)}
    except psycopg.ProgrammingError:
        raise DatabaseUnsuitable(
            "DATABASE_URL is not a PostgreSQL URL. It looks like postgresql://user:password@host:5432/name?sslmode=require, "
            "and special characters in the password are written as %40 for @, %2F for / and so on."
        ) from None


def read_url(url: str) -> dict[str, Any]:
    """What ``url`` itself says, as libpq reads it. Raises psycopg.ProgrammingError, whose text may repeat parts of the URL."""
    scheme = next((scheme for scheme in SCHEMES if url.startswith(scheme)), None)
    if scheme is None:
        raise psycopg.ProgrammingError("it does not begin with postgresql://")
    return conninfo_to_dict("postgresql://" + url.removeprefix(scheme))


def is_local(parameters: dict[str, Any]) -> bool:
    """Whether the server is reached through a Unix socket."""
    return str(parameters.get("host", "")).startswith("/")


async def connect(url: str, *, autocommit: bool = False, context: AdaptContext | None = None) -> Connection:
    """A new connection whose times are in UTC. Raises psycopg.OperationalError when there is none to be had."""
    return await connect_with(parse_url(url), autocommit=autocommit, context=context)


async def connect_with(
    parameters: dict[str, Any], *, autocommit: bool = False, context: AdaptContext | None = None, first: LiteralString = ""
) -> Connection:
    """The same, from parameters of libpq. None of them is left to the environment that is given here, be it empty. ``first`` is what the
    connection is told before it is used.

    Statements are prepared on the server only over a Unix socket. It saves a fifth of a short query there, where nothing stands
    between; over TCP there may be a pooler (PgBouncer) that hands each transaction another server connection, on which
    the prepared statement does not exist.
    """
    connection: Connection = await psycopg.AsyncConnection.connect(
        autocommit=True, context=context, prepare_threshold=5 if is_local(parameters) else None, **parameters
    )
    try:
        if connection.info.parameter_status("TimeZone") not in ("UTC", "Etc/UTC"):
            await connection.execute("SET TIME ZONE 'UTC'")
        if first:
            await connection.execute(first)
        await connection.set_autocommit(autocommit)
    except BaseException:
        await connection.close()
        raise
    return connection
