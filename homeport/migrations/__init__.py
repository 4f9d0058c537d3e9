"""The steps that lead from an empty database to ``homeport.tables``. Forward only; ``adapters.postgres.migrations`` runs them at start."""

from pathlib import Path

SCRIPTS = Path(__file__).parent
