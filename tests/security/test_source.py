"""A second pair of eyes over the source: whatever starts a program, opens an address, writes SQL or loads code was looked at.

A new place fails here until somebody has looked at it and added it, with the reason why it is safe.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TREES = ("homeport", "adapters", "handlers")
# Run by developers, never by the program.
DEVELOPERS_TOOLS = {"adapters/minilm/build_graph.py"}

STARTS_PROGRAMS = {
    "adapters/audio/devices.py": "this Python with a module of ours; two words from a list",
    "adapters/mcp/process.py": "an operator's command and arguments, no shell, a minimal environment",
    "adapters/postgres/account.py": "useradd with fixed words, for root only",
    "adapters/postgres/binaries.py": "programs of the wheel, asked for their version",
    "adapters/postgres/embedded.py": "initdb of the wheel, an environment of two variables",
    "adapters/postgres/postmaster.py": "postgres of the wheel, an environment of two or three variables",
    "adapters/processes/program.py": "an operator's command and arguments, no shell, the environment that is given",
    "adapters/recognizers/searching.py": "this Python with a module of ours, named variables only",
    "adapters/voices/pool.py": "this Python with a module of ours",
}
OPENS_ADDRESSES = {
    "adapters/fetch.py": "any caller's address, checked and pinned (outbound), each redirect again",
    "adapters/mcp/remote.py": "an operator's address; names are checked and pinned, no redirects",
    "adapters/openai_protocol.py": "an operator's address of a provider; no redirects, bounded",
    "adapters/posting.py": "any caller's address, checked and pinned; https unless an operator lists the host; no redirects",
    "adapters/processes/asking.py": "an operator's address of an app; only the status is read",
}
SQL_THAT_IS_PUT_TOGETHER = {
    "adapters/pgvector/indexes.py": "a constant of this file",
    "adapters/postgres/database.py": "names from a tuple in the same function",
    "homeport/agents/run_statements.py": "names of columns and constants of this file",
    "homeport/tasks/keeper.py": "three words from a tuple in the same line",
}
LOADS_BY_NAME = {
    "adapters/litellm.py": "a constant",
    "adapters/mcp/sessions.py": "a constant",
    "adapters/minilm/runtime.py": "a constant",
    "adapters/voices/piper.py": "a constant",
    "homeport/contract/contract.py": "an operationId of our own document, under handlers",
}
NEVER = {
    "eval": "runs text",
    "exec": "runs text",
    "compile": "makes text into code",
    "os.system": "is a shell",
    "os.popen": "is a shell",
    "asyncio.create_subprocess_shell": "is a shell",
    "pickle.load": "runs what it reads",
    "pickle.loads": "runs what it reads",
    "marshal.loads": "runs what it reads",
    "shelve.open": "runs what it reads",
    "yaml.unsafe_load": "runs what it reads",
    "yaml.full_load": "runs what it reads",
    "tempfile.mktemp": "gives a name that somebody else can take",
    "random.choice": "can be foretold; secrets is for what must not",
    "random.randbytes": "can be foretold",
    "ssl._create_unverified_context": "believes any certificate",
    "xml.etree.ElementTree.parse": "expands what it reads",
    "xml.etree.ElementTree.fromstring": "expands what it reads",
    "zipfile.ZipFile": "an archive: bound its entries, sizes and names first",
    "tarfile.open": "an archive: bound its entries, sizes and names first",
    "shutil.unpack_archive": "an archive: bound its entries, sizes and names first",
}
PROGRAM_STARTERS = re.compile(
    r"(?:^|\.)(?:Popen|check_output|check_call|create_subprocess_exec|subprocess_exec|execv\w*|posix_spawn\w*|fork|spawn[lv]\w*)$|^subprocess\.(?:run|call)$"
)
ADDRESS_OPENERS = re.compile(
    r"(?:^|\.)(?:AsyncClient|Client|AsyncHTTPTransport|HTTPTransport|ClientSession|open_connection|create_connection|urlopen)$"
)


@cache
def sources() -> dict[str, ast.Module]:
    """Every file of the program, parsed."""
    files = [file for tree in TREES for file in sorted((ROOT / tree).rglob("*.py"))]
    names = {file.relative_to(ROOT).as_posix(): file for file in files}
    return {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in names.items() if name not in DEVELOPERS_TOOLS}


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """Every call below a node, by the dotted name of what is called."""
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@cache
def all_calls() -> dict[str, list[tuple[str, ast.Call]]]:
    """Every call of the program, by file."""
    return {name: calls(tree) for name, tree in sources().items()}


def places(is_one: Callable[[str, ast.Call], bool]) -> set[str]:
    """The files with such a call."""
    return {name for name, made in all_calls().items() if any(is_one(*each) for each in made)}


def test_programs_are_started_only_where_it_was_looked_at() -> None:
    assert places(lambda called, _: bool(PROGRAM_STARTERS.search(called))) == STARTS_PROGRAMS.keys()


def test_no_program_is_started_through_a_shell_or_from_one_text() -> None:
    for name, made in all_calls().items():
        for called, call in made:
            if PROGRAM_STARTERS.search(called):
                assert not [each for each in call.keywords if each.arg == "shell"], name
                assert not (call.args and isinstance(call.args[0], ast.JoinedStr | ast.Constant)), f"{name}: {ast.unparse(call)[:80]}"


def test_addresses_are_opened_only_where_it_was_looked_at() -> None:
    # mcp's own Client is given one of the transports above.
    assert places(lambda called, _: bool(ADDRESS_OPENERS.search(called))) - {"adapters/mcp/session.py"} == OPENS_ADDRESSES.keys()


def test_no_redirect_is_followed_by_a_library_and_certificates_are_checked() -> None:
    for name, made in all_calls().items():
        for called, call in made:
            said = {each.arg: ast.unparse(each.value) for each in call.keywords}
            assert said.get("follow_redirects", "False") == "False", f"{name}: {called}"
            assert said.get("allow_redirects", "False") == "False", f"{name}: {called}"
            assert said.get("verify") != "False", f"{name}: {called}"
            assert said.get("ssl") != "False", f"{name}: {called}"
    unchecked = {
        name
        for name, tree in sources().items()
        if any(isinstance(each, ast.Attribute) and each.attr == "CERT_NONE" for each in ast.walk(tree))
    }
    assert unchecked == {"adapters/processes/asking.py"}


def test_values_never_stand_in_the_text_of_sql() -> None:
    words = re.compile(
        r"\b(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE (?:TABLE|INDEX|ROLE|DATABASE)|ALTER|DROP|LISTEN|NOTIFY|COPY|SET) "
    )
    found = {
        name
        for name, tree in sources().items()
        for node, is_fragment in _run_texts(tree)
        if _is_put_together(node) and (is_fragment or words.search(ast.unparse(node)))
    }
    assert found == SQL_THAT_IS_PUT_TOGETHER.keys()


def _run_texts(tree: ast.Module) -> Iterator[tuple[ast.expr, bool]]:
    """What is run as SQL or stands in a constant, and whether it is run as a part of a statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) and target.id.isupper() for target in node.targets):
            yield node.value, False
        elif isinstance(node, ast.Call) and node.args:
            function = ast.unparse(node.func).split(".")[-1]
            if function in {"execute", "executemany", "SQL", "text", "literal_column", "exec_driver_sql"}:
                yield node.args[0], function != "SQL"


def _is_put_together(node: ast.expr) -> bool:
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add)


def test_code_is_loaded_by_name_only_where_it_was_looked_at() -> None:
    assert (
        places(lambda called, _: called.split(".")[-1] in {"import_module", "__import__"}) | {"adapters/mcp/sessions.py"}
        == LOADS_BY_NAME.keys()
    )


@pytest.mark.parametrize("forbidden", NEVER)
def test_what_is_never_safe_is_never_used(forbidden: str) -> None:
    module, _, function = forbidden.rpartition(".")
    bare = {forbidden, f"{module.rpartition('.')[2]}.{function}" if module else function}
    assert places(lambda called, _: called in bare) == set(), NEVER[forbidden]
    for name, tree in sources().items():
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        taken = {each.name for node in imports if module and node.module == module for each in node.names}
        assert function not in taken, f"{name}: {NEVER[forbidden]}"


def test_yaml_is_read_by_a_safe_loader_only() -> None:
    loaders = {
        ast.unparse(call.keywords[-1].value)
        for tree in sources().values()
        for called, call in calls(tree)
        if called in {"yaml.load", "yaml.compose"}
    }
    assert loaders == {"_Loader"}
    from yaml import SafeLoader

    try:
        from yaml import CSafeLoader
    except ImportError:
        CSafeLoader = SafeLoader
    from homeport.contract import loading

    assert issubclass(loading._Loader, SafeLoader | CSafeLoader)


def test_temporary_names_are_never_guessable() -> None:
    used = {called for made in all_calls().values() for called, _ in made if called.startswith("tempfile.")}
    assert used == {"tempfile.mkdtemp", "tempfile.mkstemp", "tempfile.TemporaryDirectory"}


PATTERNS = sorted(
    {
        (name, ast.literal_eval(call.args[0]), "IGNORECASE" in ast.unparse(call))
        for name, made in all_calls().items()
        for called, call in made
        if called.split(".")[-1] in {"compile", "search", "match", "fullmatch", "sub", "findall", "finditer", "split"}
        and called.startswith("re.")
        and call.args
        and isinstance(call.args[0], ast.Constant)
    },
    key=str,
)
# Each pattern in a process of its own would take long; all in one, which is killed when one of them takes for ever.
TRY_PATTERNS = r"""
import ast, re, sys
for name, pattern, ignores_case in ast.literal_eval(sys.stdin.read()):
    print(name, repr(pattern), flush=True)
    compiled = re.compile(pattern, re.IGNORECASE if ignores_case else 0)
    is_text = isinstance(pattern, str)
    plain = re.sub(r"\\.|[\[\](){}?*+|^$.<>=!:]", " ", pattern if is_text else pattern.decode())
    words = [*plain.split(), *"a 0 - _ . / = < ' ( [".split(), "\"", " ", "\t", "\n", "a ", "a.", "a-"]
    for word in dict.fromkeys(words):
        for start in dict.fromkeys(("", words[0], " ")):
            for end in ("", "\x00"):
                hostile = start + word * (2000 // len(word)) + end
                given = hostile if is_text else hostile.encode()
                compiled.match(given), compiled.fullmatch(given), compiled.search(given[-500:])
print("done")
"""


def test_no_pattern_takes_for_ever_over_a_hostile_text() -> None:
    assert len(PATTERNS) > 40
    tried = subprocess.Popen([sys.executable, "-c", TRY_PATTERNS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        output, _ = tried.communicate(repr(PATTERNS), timeout=120)
    except subprocess.TimeoutExpired:
        tried.kill()
        output, _ = tried.communicate()
    assert output.splitlines()[-1] == "done"
