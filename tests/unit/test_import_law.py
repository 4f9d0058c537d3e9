"""The import law: handlers → homeport → adapters, never back, and each outside library in its own place.

The law reads imports as they are written, those inside functions and under TYPE_CHECKING too. Tests may import anything.
"""

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ("homeport", "adapters", "handlers")
OURS = (*INSTALLED, "contract", "tests")
CONNEXION_HOME = "homeport/http/connexion_app.py"

# Declared, yet imported nowhere: another library loads it by name when it is there.
LOADED_BY_NAME = {
    "httptools": "uvicorn's HTTP parser",
    "uvloop": "uvicorn's event loop",
    "python-multipart": "Starlette's form parser",
}

# Run by developers, never by the program: it may import what only the extra `dev` declares.
DEVELOPERS_TOOLS = {"adapters/minilm/build_graph.py"}


@dataclass(frozen=True)
class Rule:
    """Files for which ``applies`` is true import nothing for which ``forbids`` is true."""

    sentence: str
    applies: Callable[[str], bool]
    forbids: Callable[[str], bool]


def is_under(name: str, *modules: str) -> bool:
    """Is the dotted name one of the modules, or inside one?"""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def is_entry_point(path: str) -> bool:
    """The commands: they put the program together or examine it, so they see all of it."""
    return path.startswith("homeport/cli/") or path.endswith("/__main__.py")


def is_http(path: str) -> bool:
    return path.startswith("homeport/http/")


def is_installed(path: str) -> bool:
    return path.startswith(tuple(f"{package}/" for package in INSTALLED))


RULES = (
    Rule("nothing imports handlers: the contract names them", lambda path: True, lambda name: is_under(name, "handlers")),
    Rule(
        "adapters import nothing of ours but homeport.errors, homeport.settings and other adapters",
        lambda path: path.startswith("adapters/"),
        lambda name: is_under(name, *OURS) and not is_under(name, "homeport.errors", "homeport.settings", "adapters"),
    ),
    Rule(
        "homeport.errors and homeport.settings, which adapters import, import nothing else of ours",
        lambda path: path in ("homeport/errors.py", "homeport/settings.py"),
        lambda name: is_under(name, *OURS) and not is_under(name, "homeport.errors", "homeport.settings"),
    ),
    Rule(
        "handlers call the domain, which calls adapters",
        lambda path: path.startswith("handlers/"),
        lambda name: is_under(name, "adapters"),
    ),
    Rule(
        "only homeport/http and the commands know the HTTP layer",
        lambda path: is_installed(path) and not is_http(path) and not is_entry_point(path),
        lambda name: is_under(name, "homeport.http"),
    ),
    Rule(
        "only homeport/http imports Starlette",
        lambda path: is_installed(path) and not is_http(path),
        lambda name: is_under(name, "starlette"),
    ),
    Rule(
        f"only {CONNEXION_HOME} imports Connexion",
        lambda path: path != CONNEXION_HOME,
        lambda name: is_under(name, "connexion"),
    ),
    Rule(
        "the wheel leaves contract and tests out, so nothing in it imports them",
        is_installed,
        lambda name: is_under(name, "contract", "tests"),
    ),
)


def read_imports(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that the file imports; ``from a import b`` gives ``a.b``."""
    package = path.split("/")[:-1]
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*above, node.module] if node.module else above)
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def find_violations(path: str, source: str) -> list[str]:
    """One sentence for each import that breaks a rule: file, line, rule and what was imported."""
    return [
        f"{path}:{line}: {rule.sentence} (imports {name})"
        for line, name in read_imports(path, source)
        for rule in RULES
        if rule.applies(path) and rule.forbids(name)
    ]


def our_files(*trees: str) -> dict[str, str]:
    """Path below the root and source of every Python file in these trees."""
    files = (file for tree in trees for file in sorted((ROOT / tree).rglob("*.py")))
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def test_the_tree_obeys_the_import_law() -> None:
    files = our_files("homeport", "adapters", "handlers", "contract")
    assert {"homeport/errors.py", CONNEXION_HOME} <= files.keys()
    violations = [violation for path, source in files.items() for violation in find_violations(path, source)]
    assert not violations, "\n" + "\n".join(violations)


def test_connexion_is_imported_where_the_law_says() -> None:
    source = (ROOT / CONNEXION_HOME).read_text(encoding="utf-8")
    assert any(is_under(name, "connexion") for _, name in read_imports(CONNEXION_HOME, source))


@pytest.mark.parametrize(
    ("path", "source", "broken"),
    [
        ("homeport/apps.py", "import handlers.core.health", "nothing imports handlers"),
        ("homeport/apps.py", "def f():\n    from handlers import core", "nothing imports handlers"),
        ("handlers/core/health.py", "from handlers.core import other", "nothing imports handlers"),
        ("handlers/core/health.py", "from . import other", "nothing imports handlers"),
        ("handlers/core/health.py", "from ..admin.apps import show_app", "nothing imports handlers"),
        ("handlers/__init__.py", "from .core import health", "nothing imports handlers"),
        ("contract/__main__.py", "import handlers", "nothing imports handlers"),
        ("adapters/chat.py", "from homeport.identity import Principal", "adapters import nothing of ours"),
        ("adapters/chat.py", "from homeport import identity", "adapters import nothing of ours"),
        ("adapters/chat.py", "import homeport", "adapters import nothing of ours"),
        ("adapters/chat.py", "from homeport.errors_of_mine import X", "adapters import nothing of ours"),
        ("adapters/postgres/pool.py", "if TYPE_CHECKING:\n    from homeport.home import Home", "adapters import nothing of ours"),
        ("homeport/errors.py", "from homeport.ids import new_id", "homeport.errors and homeport.settings"),
        ("homeport/settings.py", "from .clock import now", "homeport.errors and homeport.settings"),
        ("handlers/admin/apps.py", "from adapters.postgres import Database", "handlers call the domain"),
        ("homeport/apps.py", "from homeport.http.app import build_app", "only homeport/http and the commands"),
        ("homeport/apps.py", "from . import http", "only homeport/http and the commands"),
        ("handlers/admin/apps.py", "from homeport import http", "only homeport/http and the commands"),
        ("homeport/apps.py", "from starlette.requests import Request", "only homeport/http imports Starlette"),
        ("adapters/chat.py", "import starlette", "only homeport/http imports Starlette"),
        ("homeport/cli/serving.py", "import starlette", "only homeport/http imports Starlette"),
        ("homeport/http/app.py", "from connexion import AsyncApp", "imports Connexion"),
        ("homeport/http/app.py", "import connexion.middleware as m", "imports Connexion"),
        ("homeport/apps.py", "import contract.upstream", "the wheel leaves contract and tests out"),
        ("homeport/apps.py", "from tests.unit import contract_app", "the wheel leaves contract and tests out"),
    ],
)
def test_an_import_against_the_law_is_found(path: str, source: str, broken: str) -> None:
    violations = find_violations(path, source)
    line = source.count("\n") + 1
    assert any(violation.startswith(f"{path}:{line}: ") and broken in violation for violation in violations), violations


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("adapters/postgres/pool.py", "from homeport.errors import Unavailable\nfrom homeport import settings\nfrom . import locks"),
        ("adapters/litellm.py", "import litellm\nfrom adapters.chat import Endpoint"),
        ("homeport/models/chat.py", "from adapters.chat import Endpoint\nfrom . import providers\nfrom ..errors import NotFound"),
        ("homeport/contract/routing.py", "from homeport.contract.schemas import compile_schema\nfrom . import parameters"),
        ("handlers/core/health.py", "from homeport.home import Home\nfrom homeport.replies import Reply"),
        ("homeport/http/app.py", "from starlette.types import Scope\nfrom homeport.http.binding import bind"),
        ("homeport/cli/serving.py", "from homeport.http.app import build_app"),
        ("homeport/contract/__main__.py", "from homeport.http.error_bodies import ERROR_BODIES"),
        (CONNEXION_HOME, "import connexion\nfrom connexion.middleware import MiddlewarePosition"),
        ("contract/upstream.py", "from starlette.applications import Starlette\nfrom contract import tools"),
    ],
)
def test_an_import_within_the_law_passes(path: str, source: str) -> None:
    assert find_violations(path, source) == []


def test_every_library_that_is_imported_is_declared() -> None:
    declared = declared_distributions()
    found_in = importlib.metadata.packages_distributions()
    missing = [
        f"{path}:{line}: {name.partition('.')[0]} is imported but pyproject.toml does not declare its distribution"
        for path, source in our_files(*INSTALLED).items()
        for line, name in read_imports(path, source)
        if path not in DEVELOPERS_TOOLS
        and is_third_party(name)
        and not declared & {normalise(each) for each in found_in.get(name.partition(".")[0], [])}
    ]
    assert not missing, "\n" + "\n".join(missing)


def test_every_declared_library_is_used() -> None:
    found_in = importlib.metadata.packages_distributions()
    files = our_files(*INSTALLED).items()
    names = {name for path, source in files for name in [*(name for _, name in read_imports(path, source)), *find_lazy_imports(source)]}
    used = {normalise(distribution) for name in names for distribution in found_in.get(name.partition(".")[0], [])}
    unused = declared_distributions() - used - LOADED_BY_NAME.keys()
    assert not unused, f"pyproject.toml declares what nothing imports: {sorted(unused)}"


def find_lazy_imports(source: str) -> Iterator[str]:
    """Names given as text to ``import_module`` or ``find_spec``."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Name(id="import_module" | "find_spec") | ast.Attribute(attr="import_module" | "find_spec"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def declared_distributions() -> set[str]:
    """Names of the distributions that the program needs, normalised."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {normalise(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in project["dependencies"]}


def is_third_party(name: str) -> bool:
    return name.partition(".")[0] not in sys.stdlib_module_names and not is_under(name, *OURS)


def normalise(distribution: str) -> str:
    """One spelling for a distribution's name, as package indexes compare them."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
