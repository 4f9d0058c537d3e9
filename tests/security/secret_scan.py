"""Looks for secrets in the files under version control: with the detectors of detect-secrets, and for our own keys.

The detectors read whole files instead of one line after the other, which takes a tenth of the time; but for the one that goes by names
(``password = …``), which reads the lines that such a name stands in. None of them asks a service whether a secret is good.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import BasePlugin

from homeport.key_text import KEY_PREFIX, parse_key

# Addresses are no secrets; the limits of entropy are the library's own.
LEFT_OUT = {"IPPublicDetector"}
LIMITS = {"Base64HighEntropyString": 4.5, "HexHighEntropyString": 3.0}
BY_NAME = "KeywordDetector"
_NAMES = re.compile(
    r"api_?key|auth_?key|service_?key|account_?key|db_?key|database_?key|priv_?key|private_?key|client_?key|pass|pwd|secret|token",
    re.IGNORECASE,
)
_OWN_KEY = re.compile(rf"{KEY_PREFIX}\w+")
# Hashes of releases, by the thousand: tests/unit/test_lock_files.py says what may stand there.
_HASHES = re.compile(r"(?:^|/)(?:requirements[\w-]*\.txt|package-lock\.json|go\.sum)$")

# Made up, each looked at: what tests and examples show in the place of a secret. Nothing that has ever opened anything belongs here.
EXAMPLES = frozenset(
    """
# passwords, and what stands for one in a text that is filled in
pass
password
secret
pw
new
first
from-url
from-environment
hunter2
s3cr3t
shared
unused
guessed
changed
p@ss:word/1
p%40ss%3Aword%2F1
%2A%2A%2A%2A
a shared secret
the secret of the contract
must not be handed on
# keys of providers that begin like real ones
sk-1
sk-1\\r\\nX-Evil: 1
sk-a
sk-e
sk-g
sk-x
sk-test
sk-database
sk-environment
sk-stand-in
sk-very-secret-0123456789
gsk_0123456789abcdef
# tokens of people, signed with nothing
eyJhbGciOiJIUzI1NiJ9.e30.
eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.
eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyLTEifQ.
# what looks random and is none: an alphabet, the example of a key (its checksum is wrong), ids of requests and commits, hashes of files
0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz
hp_local_4f9KdQ2mX7pZ_0aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789aBcDeFgHiJkLmN
9b2d1f0c5c0a4f4d8a3b7e6f1c2d3e4f
5f1c7a9be0d84c0c9a6f3b1d2e4f5a60
0123456789abcdef0123456789abcdef01234567
5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9
53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037
""".splitlines()
)
# The beginning of a WAV file: no key is one.
_SOUND = "UklGR"
# A name in the place of a value: a placeholder that is filled in, a function, the name of a scheme.
_NO_VALUE = re.compile(r".*\{.*|.|[a-z_]+(?:\.[a-z_]+)+|x-[A-Za-z]+Func|\W*")


@dataclass(frozen=True)
class Found:
    """Something that looks like a secret. It is never shown whole: what is printed ends up in logs."""

    file: str
    line: int
    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.value[:4]}… ({len(self.value)} characters)"


def scan(root: Path) -> list[Found]:
    """What looks like a secret in the files of a checkout, examples left out."""
    detectors = [*_detectors()]
    return [found for file in _files(root) for found in _scan_file(root, file, detectors)]


def _files(root: Path) -> Iterable[str]:
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=60).stdout
    return sorted({name for name in listed.split("\0") if name and not _HASHES.search(name) and (root / name).is_file()})


def _detectors() -> Iterator[BasePlugin]:
    for kind in get_mapping_from_secret_type_to_class().values():
        if kind.__name__ not in LEFT_OUT:
            yield kind(limit=LIMITS[kind.__name__]) if kind.__name__ in LIMITS else kind()


def _scan_file(root: Path, file: str, detectors: Iterable[BasePlugin]) -> list[Found]:
    try:
        text = (root / file).read_text(encoding="utf-8")
    except (UnicodeDecodeError, FileNotFoundError):
        return []  # no text, or gone meanwhile
    found = {(match[0], "API key of a server") for match in _OWN_KEY.finditer(text) if parse_key(match[0])}
    named = "\n".join(line for line in text.split("\n") if _NAMES.search(line))
    for detector in detectors:
        for part in (named.split("\n") if named else []) if type(detector).__name__ == BY_NAME else [text]:
            found |= {(each.secret_value or "", each.type) for each in detector.analyze_line(filename=file, line=part, line_number=1)}
    return [
        Found(file, text[: max(text.find(value), 0)].count("\n") + 1, kind, value)
        for value, kind in sorted(found)
        if value not in EXAMPLES and not value.startswith(_SOUND) and not _NO_VALUE.fullmatch(value)
    ]
