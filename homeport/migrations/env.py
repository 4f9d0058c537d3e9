"""What Alembic runs around the steps: in the connection, and in the transaction, that the program gives it."""

from alembic import context

from homeport.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
