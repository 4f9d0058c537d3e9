"""The stand-in for a model server as a fixture."""

import json
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest

from contract.upstream import RunningUpstream, serve_in_thread


@pytest.fixture(scope="session")
def running_upstream() -> Iterator[RunningUpstream]:
    """One stand-in for the whole run, in a thread of its own."""
    with serve_in_thread() as upstream:
        yield upstream


@pytest.fixture
def upstream(running_upstream: RunningUpstream) -> RunningUpstream:
    """The stand-in, its counters at zero."""
    with urlopen(Request(f"{running_upstream.url}/stand-in/state", method="DELETE"), timeout=5) as answer:
        json.load(answer)
    return running_upstream
