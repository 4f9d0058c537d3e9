"""Every method of every official client, unmodified, against running servers.

What the methods are is asked of the installed release itself; one that is not called, or that does not come back with what it should,
fails the test of its release. The scenarios are in ``scenario.py`` and ``scenario.mjs``: one process carries out all that fit its release.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from contract.upstream import RunningUpstream
from tests.acceptance.conftest import provider_settings
from tests.acceptance.official.releases import RELEASES, Release
from tests.acceptance.servers import PROCESS_TIMEOUT_S, Admin, Servers
from tests.virtual_microphone import NO_SOUND, virtual_microphone

SECRET = "the secret of the contract"
MCP_SERVER = Path(__file__).resolve().parents[3] / "contract" / "mcp_server.py"
RUN_TIMEOUT_S = 240
OUTPUT_TAIL = 3000

# The first and the last release of each language are asked each time, those between in the long form.
IN_BETWEEN = {"python-1.3.6", "python-1.4.5"}


@pytest.fixture(scope="module")
def microphone() -> Iterator[dict[str, str] | None]:
    """The environment of a machine with a microphone; None where none can be made up, which in CI is a failure."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(virtual_microphone())
        except pytest.skip.Exception:
            yield None
        else:
            yield found.environment


@pytest.fixture(scope="module")
def place(folder: Path, running_upstream: RunningUpstream, microphone: dict[str, str] | None) -> Iterator[dict[str, Any]]:
    """Where the clients are: a server as most have it, and one that has no models, no sound, and another policy for permissions."""
    settings = {"HOMEPORT_PERMISSION_WAIT_S": "30", "HOMEPORT_CONTRACT_SECRET": SECRET}
    with Servers(folder) as servers:
        server = servers.begin("official", **settings, **provider_settings(running_upstream), **(microphone or NO_SOUND))
        bare = servers.begin("bare", HOMEPORT_PERMISSION_POLICY="manifest", **NO_SOUND)
        for each in servers.started:
            each.wait_until_ready()
        assert server.first_key is not None
        admin = Admin(server.url, server.first_key)
        with admin.http:
            admin.call("POST", "/agents", {"display_name": "Scripted", "provider": "openai", "model": "script"})
            admin.call("POST", "/mcp-servers", {"name": "stand-in", "command": sys.executable, "args": [str(MCP_SERVER)]})
            # The official clients wait 5 s: not for the first start of an MCP server on a busy machine.
            assert admin.http.post("/admin/v1/mcp-servers/stand-in/test", timeout=PROCESS_TIMEOUT_S).json()["works"]
        yield {
            "url": server.url,
            "key": server.first_key,
            "bare_url": bare.url,
            "bare_key": bare.first_key,
            "data_dir": str(server.data_dir),
            "secret": SECRET,
            "mcp_server": "stand-in",
            "has_microphone": microphone is not None,
        }


@pytest.mark.parametrize(
    "release", [pytest.param(each, id=str(each), marks=pytest.mark.long if each.name in IN_BETWEEN else ()) for each in RELEASES]
)
def test_every_method_does_what_it_promises(release: Release, place: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    run = subprocess.run(
        release.command(),
        env=os.environ | release.environment(),
        input=json.dumps(place | {"verdict": str(path)}),
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_TIMEOUT_S,
    )
    output = (run.stdout + run.stderr)[-OUTPUT_TAIL:]
    assert run.returncode == 0, output
    verdict = json.loads(path.read_text(encoding="utf-8"))
    assert release.name.endswith(verdict["version"]), "this is another release"
    assert not verdict["failures"], "\n\n".join([*verdict["failures"].values(), output])

    public, called = set(verdict["public"]), set(verdict["called"])
    assert public - called == set(), "methods that no scenario calls"
    assert called - public == set(), "methods that were called and not counted"
    served = {name for name in public if name.partition(".")[0] not in verdict["not_served"]}
    assert (len(public), len(served)) == (release.methods, release.served)
