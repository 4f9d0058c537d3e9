"""Servers to be harmed, and the row of the table that each test of a fault fills."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import admin as admin
from tests.acceptance.conftest import folder as folder
from tests.acceptance.conftest import no_settings_of_the_sdk as no_settings_of_the_sdk
from tests.acceptance.conftest import provider_settings
from tests.acceptance.conftest import pytest_runtest_makereport as pytest_runtest_makereport
from tests.acceptance.conftest import servers as servers
from tests.acceptance.servers import Server, Servers, memory_folder
from tests.faults.table import PROPERTY, Row
from tests.upstream_plugin import RunningUpstream
from tests.upstream_plugin import running_upstream as running_upstream
from tests.upstream_plugin import upstream as upstream


@pytest.fixture
def row(record_property: object, request: pytest.FixtureRequest) -> Row:
    """What this test does, what was promised and what happened; goes into docs/faults.md."""
    row = Row()
    request.node.user_properties.append((PROPERTY, row.cells))
    return row


@pytest.fixture(scope="session")
def shared_folder() -> Iterator[Path]:
    """A folder for the data of the server that most tests share."""
    with memory_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def server(shared_folder: Path, running_upstream: RunningUpstream) -> Iterator[Server]:
    """The server that most tests harm one after the other, each without lasting damage; it ends with status 0.

    It does not hold its own answers against the contract, as no server that people use does: what is measured is what they would see.
    """
    with Servers(shared_folder, **provider_settings(running_upstream), HOMEPORT_VALIDATE_RESPONSES="false") as servers:
        server = servers.start("shared")
        yield server
        assert server.stop() == 0
        assert '"exception"' not in server.log, "a fault from outside is never told with a traceback"
