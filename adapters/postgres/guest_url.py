"""The URL of an app's own database: what may stand in it, how it is shown, and how a connection is made from it.

libpq reads files, sockets and the environment of whoever runs it: passwords, certificates, services. For a URL that an app
sends, all of that is switched off; what is not said in the URL has a fixed value.
"""

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import quote, urlencode

import psycopg
from psycopg.pq import Conninfo

from adapters.postgres.connection import DEFAULTS, read_url
from homeport.errors import InvalidRequest

MASK = "****"
DEFAULT_PORT = 5432
LONGEST_CONNECT_S = 5
# How the server may identify the caller: with what the URL says, never with a ticket or a token of this machine's user.
AUTHENTICATION = "password,md5,scram-sha-256,none"
# A file that cannot exist, for a parameter whose empty value means the file in the user's home.
NOWHERE = "/dev/null/none"

_ANYTHING = re.compile(r"[^\x00-\x1f\x7f]{1,63}")
_ALLOWED = {
    "application_name": _ANYTHING,
    "channel_binding": re.compile(r"disable|prefer|require"),
    "connect_timeout": re.compile(r"[0-9]{1,5}"),
    "sslmode": re.compile(r"disable|allow|prefer|require|verify-ca|verify-full"),
    "sslnegotiation": re.compile(r"postgres|direct"),
    "sslrootcert": re.compile(r"system"),
}
# Another database on the same server, or another name for the caller, is no other place to send a password to.
_SAYS_NOT_WHERE = ("application_name", "connect_timeout")
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_PORT = re.compile(r"[0-9]{1,5}")


class DatabaseUrlInvalid(InvalidRequest):
    """This is not a database URL that can be used."""

    code = "DATABASE_URL_INVALID"


@dataclass(frozen=True, slots=True)
class GuestUrl:
    """A checked URL. An empty ``password`` means none, an empty ``database`` the one that is named like the user."""

    user: str
    password: str = field(repr=False)
    host: str
    port: int
    database: str
    options: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """The URL with its password."""
        return self._text(quote(self.password, safe=""))

    @property
    def masked(self) -> str:
        """The URL to be shown: with ``****`` for its password."""
        return self._text(MASK if self.password else "")

    @property
    def is_masked(self) -> bool:
        """Whether it is a URL that was shown, with a mask in place of its password."""
        return self.password == MASK

    def unmasked(self, kept: Self | None) -> Self:
        """This URL, with the password of ``kept`` where it has only the mask of one.

        Raises DatabaseUrlInvalid when ``kept`` is another server, another user or another way to connect: a password goes nowhere but
        where it was given for.
        """
        if not self.is_masked:
            return self
        if kept is None or not kept.password or self._place() != kept._place():
            raise DatabaseUrlInvalid(
                f"The database URL has '{MASK}' for its password, which stands for the registered one only as long as user, host, port and "
                "the parameters of the connection stay the same. Send the password."
            )
        return replace(self, password=kept.password)

    def parameters(self, addresses: Sequence[str]) -> dict[str, Any]:
        """The parameters of libpq for a connection to one of ``addresses``, whatever the host's name may mean by then."""
        given = dict(self.options)
        count = max(len(addresses), 1)
        return {
            **_without_environment(),
            **DEFAULTS,
            **given,
            "user": self.user,
            "password": self.password,
            "dbname": self.database,
            "host": ",".join([self.host] * count),
            "hostaddr": ",".join(addresses),
            "port": ",".join([str(self.port)] * count),
            "application_name": given.get("application_name", "homeport"),
            "connect_timeout": min(int(given.get("connect_timeout", 0)) or LONGEST_CONNECT_S, LONGEST_CONNECT_S),
            **_encryption(given),
        }

    def _text(self, password: str) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        secret = f":{password}" if password else ""
        query = f"?{urlencode(self.options, quote_via=quote)}" if self.options else ""
        database = f"/{quote(self.database, safe='')}" if self.database else ""
        return f"postgresql://{quote(self.user, safe='')}{secret}@{host}:{self.port}{database}{query}"

    def _place(self) -> tuple[object, ...]:
        options = {name: value for name, value in self.options if name not in _SAYS_NOT_WHERE}
        return self.user, self.host.lower(), self.port, tuple(sorted(options.items()))


def parse_guest_url(url: str) -> GuestUrl:
    """Read the URL that an app sent. Raises DatabaseUrlInvalid; the message never repeats a value, which may be a password."""
    try:
        given = {name: str(value) for name, value in _read(url).items()}
    except (psycopg.ProgrammingError, UnicodeError):
        raise DatabaseUrlInvalid(
            "This is not a PostgreSQL URL. It looks like postgresql://user:password@host:5432/database?sslmode=require, "
            "and special characters in the password are written as %40 for @, %2F for / and so on."
        ) from None
    user, password, host = given.pop("user", ""), given.pop("password", ""), given.pop("host", "")
    port, database = given.pop("port", "") or str(DEFAULT_PORT), given.pop("dbname", "")
    if not user:
        raise DatabaseUrlInvalid("The database URL names no user: postgresql://user:password@host:5432/database.")
    if not _HOST.fullmatch(host):
        raise DatabaseUrlInvalid(
            "The database URL must name one host, by its name or its address: postgresql://user:password@host:5432/database."
        )
    if not _PORT.fullmatch(port) or not 0 < int(port) <= 65535:
        raise DatabaseUrlInvalid("The port in the database URL must be a number from 1 to 65535.")
    for name, value in given.items():
        _check_option(name, value, given)
    return GuestUrl(user, password, host, int(port), database, tuple(sorted(given.items())))


def _read(url: str) -> dict[str, Any]:
    # libpq reads C strings: it would not see what follows a NUL.
    if re.search(r"[\x00-\x1f\x7f]", url):
        raise psycopg.ProgrammingError("a control character")
    return read_url(url)


def _check_option(name: str, value: str, given: dict[str, str]) -> None:
    if name not in _ALLOWED:
        allowed = ", ".join(sorted(_ALLOWED))
        raise DatabaseUrlInvalid(f"The database URL sets {name!r}. Besides user, password, host, port and database it may set: {allowed}.")
    if not _ALLOWED[name].fullmatch(value):
        raise DatabaseUrlInvalid(f"The database URL sets {name!r} to a value that cannot be used here.")
    if name == "sslrootcert" and given.get("sslmode", "verify-full") != "verify-full":
        raise DatabaseUrlInvalid("The database URL sets 'sslrootcert' to 'system', which needs 'sslmode' to be 'verify-full'.")


def _without_environment() -> dict[str, Any]:
    """Every parameter that libpq would else take from a ``PG*`` variable or a file of the user's, with the value that it has without."""
    built_in = {
        option.keyword.decode(): (option.compiled or b"").decode()
        for option in Conninfo.get_defaults()
        # An empty service is looked up like any other; and all that one could say is said here.
        if option.envvar and option.keyword != b"service"
    }
    fixed = {
        "passfile": NOWHERE,
        "sslcertmode": "disable",
        "gssencmode": "disable",
        "require_auth": AUTHENTICATION,
        "min_protocol_version": "3.0",
        "max_protocol_version": "3.0",
    }
    return {**built_in, **fixed}


def _encryption(given: dict[str, str]) -> dict[str, str]:
    """``sslmode``, and the authorities that ``verify-ca`` and ``verify-full`` trust: this machine's. The other modes ask none."""
    mode = given.get("sslmode", "verify-full" if "sslrootcert" in given else "prefer")
    if not mode.startswith("verify"):
        return {"sslmode": mode, "sslrootcert": NOWHERE}
    # The libpq that comes with psycopg looks for "system" in a folder of its own, which is empty; Python knows the machine's.
    return {"sslmode": mode, "sslrootcert": ssl.get_default_verify_paths().cafile or "system"}
