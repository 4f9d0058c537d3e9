"""The running server that these tests share is the one of the acceptance tests."""

from tests.acceptance.conftest import admin as admin
from tests.acceptance.conftest import folder as folder
from tests.acceptance.conftest import no_settings_of_the_sdk as no_settings_of_the_sdk
from tests.acceptance.conftest import pytest_runtest_makereport as pytest_runtest_makereport
from tests.acceptance.conftest import running_upstream as running_upstream
from tests.acceptance.conftest import server as server
from tests.acceptance.conftest import servers as servers
from tests.acceptance.conftest import shared_servers as shared_servers
from tests.acceptance.conftest import upstream as upstream
