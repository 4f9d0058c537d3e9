"""The audit and the search for secrets find what they are for: each is shown one thing that is wrong, and says so."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import Distribution, PathDistribution
from itertools import cycle
from pathlib import Path

import pytest

from homeport.key_text import make_key
from tests.security import audit
from tests.security.secret_scan import scan

ROOT = Path(__file__).resolve().parents[2]
PLACES = ("README.md", "openapi/paths/admin/api_keys.yaml", "new/deep.py")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of its own with our lock files and a file or two of ours, under version control."""
    for name in (*audit.LOCK_FILES, "README.md", "homeport/key_text.py", "tests/unit/test_keys.py", "openapi/paths/admin/api_keys.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    return tmp_path


def planted() -> dict[str, str]:
    """Secrets of many kinds, put together here so that this file holds none."""
    random = os.urandom(30).hex()
    return {
        "a key of ours": f"curl -H 'Authorization: Bearer {make_key()[1]}'",
        "a key of OpenAI": "OPENAI = '" + "sk-" + "a1B2c3D4e5F6g7H8i9J0" + "T3Blbk" + "FJ" + "k1L2m3N4o5P6q7R8s9T0" + "'",
        "a key of AWS": "id = '" + "AKIA" + "Q3EGRIJ2JQKZ7WXA" + "'",
        "a token of GitHub": "token: " + "ghp_" + 9 * "aX2k",
        "a private key": "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIE",
        "a password by its name": f"database_password = 'Tr0ub4dor{random[:6]}'",
        "a password in a URL": f"postgresql://admin:{random[:12]}@db.internal/x",
        "something random": f"key = '{random}'",
        "a person's token": "eyJ" + "hbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ" + "zdWIiOiI0MiIsIm5hbWUiOiJBIn0.c2lnbmF0dXJlc2ln",
    }


def test_nothing_is_found_in_what_is_as_it_should_be(checkout: Path) -> None:
    assert [str(found) for found in scan(checkout)] == []
    assert audit.check_lock_files(checkout) == []


@pytest.mark.parametrize(("kind", "place"), [*zip(planted(), cycle(PLACES), strict=False)])
def test_a_secret_that_is_put_in_is_found_and_not_shown_whole(checkout: Path, kind: str, place: str) -> None:
    file = checkout / place
    file.parent.mkdir(parents=True, exist_ok=True)
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    secret = planted()[kind]
    file.write_text(f"{before}\n{secret}\n", encoding="utf-8")
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    found = scan(checkout)
    assert {each.file for each in found} == {place}
    assert {each.line for each in found} == {before.count("\n") + 2}
    assert not [each for each in found if len(each.value) > 8 and each.value in str(each)]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("evil @ https://files.example/evil-1.0.tar.gz", "pins no release"),
        ("git+https://code.example/evil.git", "pins no release"),
        ("./evil-1.0-py3-none-any.whl", "pins no release"),
        ("evil>=1.0 --hash=sha256:" + "0" * 64, "pins no release"),
        ("evil", "pins no release"),
        ("evil==1.0", "evil has no hash"),
        ("evil==1.0 --hash=md5:" + "0" * 32, "evil has no hash"),
        ("pyyaml==1.0 --hash=sha256:" + "0" * 64, "pyyaml is 1.0 here, and "),
    ],
)
def test_an_entry_of_a_lock_file_that_should_not_be_there_is_named(checkout: Path, wrong: str, problem: str) -> None:
    with (checkout / "requirements-build.txt").open("a", encoding="utf-8") as file:
        file.write(f"{wrong}\n")
    [found] = audit.check_lock_files(checkout)
    assert found.startswith("requirements-build.txt: ")
    assert problem in found


def release(folder: Path, *lines: str) -> Distribution:
    """An installed release of which only its metadata are there."""
    folder.mkdir()
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", "Name: probe", "Version: 9.9", *lines, ""]), encoding="utf-8")
    return PathDistribution(folder)


@pytest.mark.parametrize(
    ("lines", "is_fine"),
    [
        (["License-Expression: MIT"], True),
        (["License-Expression: Apache-2.0 AND (BSD-3-Clause OR GPL-2.0-only)"], True),
        (["License-Expression: (MIT OR Apache-2.0) AND GPL-3.0-only"], False),
        (["License-Expression: GPL-3.0-only OR MIT"], True),
        (["License-Expression: MIT AND AGPL-3.0-only"], False),
        (["Classifier: License :: OSI Approved :: MIT License"], True),
        (["Classifier: License :: OSI Approved :: GNU Affero General Public License v3"], False),
        (["License: BSD"], True),
        (["License: Proprietary"], False),
        ([], False),
    ],
)
def test_a_licence_that_nobody_has_looked_at_is_named(tmp_path: Path, lines: list[str], is_fine: bool) -> None:
    assert (audit.check_licences([release(tmp_path / "probe.dist-info", *lines)]) == []) is is_fine


def test_a_release_that_is_not_the_locked_one_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "PyYAML.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.4\nName: PyYAML\nVersion: 0.1\n", encoding="utf-8")
    [problem] = audit.check_installed(ROOT, [PathDistribution(folder)])
    assert problem.startswith("PyYAML: 0.1 is installed, ")


@contextmanager
def known_faults(of: str, status: int = 200) -> Iterator[str]:
    """A service of known faults that knows one of a release; its address."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            fault = {"id": "PYSEC-0000-1", "summary": "It opens every door.", "modified": "2026-01-01T00:00:00Z", "affected": []}
            affected = {"package": {"ecosystem": "PyPI", "name": of}, "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}]}]}
            known = {"vulns": [{**fault, "affected": [affected]}]} if asked["package"]["name"] == of else {}
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(known).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def few_releases(tmp_path: Path) -> Path:
    """A checkout that locks only what builds the program."""
    for name in audit.LOCK_FILES:
        (tmp_path / name).write_text((ROOT / "requirements-build.txt").read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def test_a_known_fault_of_a_locked_release_is_reported_where_the_service_answers(few_releases: Path) -> None:
    with known_faults(of="hatchling") as service:
        report, was_asked = audit.find_known_faults(few_releases, service)
    assert was_asked
    assert [line for line in report if line.startswith("hatchling") and "PYSEC-0000-1" in line]
    with known_faults(of="nothing-of-ours") as service:
        assert audit.find_known_faults(few_releases, service) == ([], True)


def test_where_the_service_does_not_answer_it_is_said_that_it_was_not_asked(few_releases: Path) -> None:
    with known_faults(of="hatchling", status=500) as service:
        assert audit.find_known_faults(few_releases, service) == ([], False)
    assert audit.find_known_faults(few_releases, service) == ([], False)


def test_the_check_runs_both_and_fails_when_there_is_something(checkout: Path) -> None:
    (checkout / "leak.py").write_text(planted()["a key of ours"], encoding="utf-8")
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    program = "import sys, pathlib, tests.security.__main__ as check; check.ROOT = pathlib.Path(sys.argv[1]); sys.exit(check.main())"
    done = subprocess.run(
        [sys.executable, "-c", program, str(checkout)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "leak.py:1: API key of a server: hp_l… (" in done.stdout
    assert "secrets: 1 " in done.stdout
