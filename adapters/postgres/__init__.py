"""PostgreSQL: the embedded server, transactions, notifications between processes, migrations."""

from adapters.postgres.binaries import EmbeddedPostgresError
from adapters.postgres.binary import BinaryParameter
from adapters.postgres.connection import DatabaseUnsuitable
from adapters.postgres.database import Database, check_server, dump_json
from adapters.postgres.embedded import EmbeddedPostgres
from adapters.postgres.guest_url import GuestUrl, parse_guest_url
from adapters.postgres.guests import GuestDatabase, GuestDatabases, GuestUnavailable, reason_of
from adapters.postgres.migrations import SchemaTooNew, known_revisions, migrate
from adapters.postgres.notifications import Notifications, notify

__all__ = [
    "BinaryParameter",
    "Database",
    "DatabaseUnsuitable",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "GuestDatabase",
    "GuestDatabases",
    "GuestUnavailable",
    "GuestUrl",
    "Notifications",
    "SchemaTooNew",
    "check_server",
    "dump_json",
    "known_revisions",
    "migrate",
    "notify",
    "parse_guest_url",
    "reason_of",
]
