"""PostgreSQL: the embedded server, transactions, notifications between processes, migrations."""

from adapters.postgres.binaries import EmbeddedPostgresError
from adapters.postgres.connection import DatabaseUnsuitable
from adapters.postgres.database import Database, check_server
from adapters.postgres.embedded import EmbeddedPostgres
from adapters.postgres.migrations import SchemaTooNew, known_revisions, migrate
from adapters.postgres.notifications import Notifications, notify

__all__ = [
    "Database",
    "DatabaseUnsuitable",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "Notifications",
    "SchemaTooNew",
    "check_server",
    "known_revisions",
    "migrate",
    "notify",
]
