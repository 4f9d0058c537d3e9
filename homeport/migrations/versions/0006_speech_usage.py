"""Speech by models is counted, too."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Let the use of models name speech."""
    name = op.f("model_usage_operation_check")
    op.drop_constraint(name, "model_usage")
    op.create_check_constraint(name, "model_usage", "operation IN ('chat', 'embedding', 'speech')")
