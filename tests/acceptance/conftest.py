"""Servers for the tests: one that most of them share, and what starts others. A failed test shows what its servers have logged."""

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from realtimex_sdk import RealtimeXSDK, SDKConfig  # type: ignore[import-untyped]

from contract.upstream import RunningUpstream
from tests.acceptance.servers import Admin, Server, Servers, memory_folder
from tests.upstream_plugin import running_upstream as running_upstream
from tests.upstream_plugin import upstream as upstream

OPENAI_KEY = "sk-stand-in"
# `make scale PROCESSES=2`: the server that most tests share is so many of them, behind nginx. Not HOMEPORT_…, which is for settings.
PROCESSES = int(os.environ.get("ACCEPTANCE_PROCESSES", "1"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the end of each server's log to the report of a failed test."""
    report = yield
    if report.failed:
        values = getattr(item, "funcargs", {}).values()
        servers = [value for value in values if isinstance(value, Server)]
        servers += [each for value in values if isinstance(value, Servers) for each in value.started if each not in servers]
        report.sections += [(f"end of {server.log_path}", server.log_tail()) for server in servers]
    return report


@pytest.fixture(autouse=True)
def no_settings_of_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK reads these; and its HTTP client would send even loopback requests through a proxy.

    It makes a client for each call, and each client would read all certificates, which takes longer than most calls: nothing speaks TLS.
    """
    for name in ("RTX_APP_ID", "RTX_APP_NAME", "RTX_API_KEY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("SSL_CERT_DIR", os.devnull)


def provider_settings(upstream: RunningUpstream) -> dict[str, str]:
    """The environment of a server whose models are the stand-in's."""
    return {"OPENAI_BASE_URL": upstream.base_url, "OPENAI_API_KEY": OPENAI_KEY}


@pytest.fixture(scope="session")
def shared_servers(running_upstream: RunningUpstream) -> Iterator[Servers]:
    """Where the servers of all modules live that do not stop or break theirs."""
    with memory_folder() as folder, Servers(folder, **provider_settings(running_upstream)) as servers:
        yield servers


@pytest.fixture(scope="session")
def server(shared_servers: Servers) -> Server:
    """The server that most tests share: embedded database, permission policy ``prompt``, the stand-in as its model provider."""
    settings = {"HOMEPORT_PERMISSION_WAIT_S": "20"}
    return (
        shared_servers.start("shared", **settings) if PROCESSES == 1 else shared_servers.start_behind_nginx("shared", PROCESSES, **settings)
    )


@pytest.fixture(scope="session")
def admin(server: Server) -> Iterator[Admin]:
    """The administrator of the shared server."""
    assert server.first_key is not None
    admin = Admin(server.url, server.first_key)
    with admin.http:
        yield admin


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder for the data of this module's servers."""
    with memory_folder() as folder:
        yield folder


@pytest.fixture
def servers(folder: Path, running_upstream: RunningUpstream) -> Iterator[Servers]:
    """Servers of a test's own, to be stopped and killed."""
    with Servers(folder, **provider_settings(running_upstream)) as servers:
        yield servers


@pytest.fixture
def sdk(server: Server) -> Callable[..., RealtimeXSDK]:
    """Makes the official SDK for the shared server: ``sdk(app_id=…)`` as a launched app, ``sdk(api_key=…)`` as a developer."""

    def make(**config: Any) -> RealtimeXSDK:
        return RealtimeXSDK(SDKConfig(**({"url": server.url} | config)))

    return make
