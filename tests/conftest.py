"""What every test starts from: an environment without the developer's own settings, keys and databases, in which every server and app holds
what it answers against the contract."""

import os

import pytest

PREFIXES = ("HOMEPORT_", "PG")
SUFFIXES = ("_API_KEY", "_API_BASE", "_BASE_URL")

for _name in list(os.environ):
    if _name.startswith(PREFIXES) or _name.endswith(SUFFIXES) or _name == "DATABASE_URL":
        del os.environ[_name]
os.environ["HOMEPORT_VALIDATE_RESPONSES"] = "true"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Coroutine tests run on asyncio, the only event loop that the program uses."""
    return "asyncio"
