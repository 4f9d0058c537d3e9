"""``python -m clients``: generates clients from the document that a running server publishes, builds them, and runs each against it.

Each language tells the same story of twelve things that an app does, and one that it may not do (``clients/<language>/story.*``). The
server is a real one, started for this, with the stand-in of the contract run as its model provider and as its MCP server.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from clients.languages import LANGUAGES, NEEDED
from clients.workshop import BUILD, ROOT, CommandFailed, Workshop
from contract.upstream import serve_in_thread
from tests.acceptance.servers import Admin, Servers, memory_folder

STEPS = ("ping", "activity", "chat", "stream", "embed", "upsert", "query", "speak", "transcribe", "tool", "agent", "task", "refused")
AT_ONCE = 2
TOLD = re.compile(r"^ok (\w+): ", re.MULTILINE)
GRANTED = (
    *("activities.read", "activities.write", "llm.chat", "llm.embed", "vectors.read", "vectors.write", "tts.generate", "stt.transcribe"),
    *("mcp.tools", "agent.chat", "webhook.trigger", "api.task"),
)
# By the name of a file in the build folder: the whole document, and what apps need of it.
DOCUMENTS = {"openapi.json": "/openapi.json", "local_apps.json": "/openapi/local_apps.json"}


def main(
    languages: Annotated[list[str] | None, typer.Argument(metavar="[LANGUAGE]…", help=f"Of {', '.join(LANGUAGES)}; left out, all.")] = None,
    short: Annotated[bool, typer.Option("--short", help=f"Only {' and '.join(NEEDED)}.")] = False,
) -> None:
    """Generate, build and run the clients. What a language lacks on this machine is told; it is a failure where the language was asked for
    by name, and for the needed ones where CI is true."""
    if unknown := set(languages or ()) - LANGUAGES.keys():
        sys.exit(f"no such language: {', '.join(sorted(unknown))}")
    chosen = languages or (NEEDED if short else tuple(LANGUAGES))
    must_run = set(languages or (NEEDED if os.environ.get("CI") == "true" else ()))
    # A generator and a compiler use one core each.
    with _server() as environment, ThreadPoolExecutor(AT_ONCE) as pool:
        begun = {name: pool.submit(_try, name, environment, is_asked_for=name in must_run) for name in chosen}
        outcomes = {name: each.result() for name, each in begun.items()}
    _print_matrix(outcomes)
    if not all(outcome.is_good for outcome in outcomes.values()):
        sys.exit(1)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a language: how far it came, and which steps of the story it has told."""

    word: str
    told: tuple[str, ...] = ()
    is_good: bool = True


@contextmanager
def _server() -> Iterator[dict[str, str]]:
    """A server, and on it an app that holds what the story needs; gives the environment that the story reads. The server's documents are
    kept in the build folder."""
    with serve_in_thread() as upstream, memory_folder() as folder:
        settings = {"OPENAI_API_KEY": "sk-stand-in", "OPENAI_BASE_URL": upstream.base_url}
        with Servers(folder, **settings) as servers:
            server = servers.start("data")
            assert server.first_key is not None
            admin = Admin(server.url, server.first_key)
            with admin.http:
                admin.call("PUT", "/model-routes/chat", {"targets": [{"provider": "openai", "model": "echo"}]})
                tools = {"name": "time", "command": sys.executable, "args": [str(ROOT / "contract" / "mcp_server.py")]}
                admin.call("POST", "/mcp-servers", tools)
                app_id = admin.register("Story", granted=GRANTED)
                BUILD.mkdir(parents=True, exist_ok=True)
                for name, path in DOCUMENTS.items():
                    (BUILD / name).write_bytes(admin.http.get(path).raise_for_status().content)
            yield {"HOMEPORT_URL": server.url, "RTX_APP_ID": app_id}


def _try(name: str, environment: Mapping[str, str], *, is_asked_for: bool) -> Outcome:
    """Generate, build and run one client, and say so line by line."""
    language = LANGUAGES[name]
    for needed, how_to_get_it in language.needs.items():
        if shutil.which(needed) is None and not Path(needed).exists():
            return _say(name, Outcome(f"toolchain missing: {needed} ({how_to_get_it})", is_good=not is_asked_for))
    shop = Workshop(name, *(BUILD / document for document in DOCUMENTS), dict(environment))
    began = time.monotonic()
    try:
        for word, step in (("generated", language.generate), ("built", language.build)):
            step(shop)
            print(f"{name}: {word} after {time.monotonic() - began:.0f} s", flush=True)
        if language.tell is None:
            return _say(name, Outcome("compiled only"))
        said = language.tell(shop)
    except CommandFailed as error:
        print(error, flush=True)
        return _say(name, Outcome("failed", is_good=False))
    print("\n".join(f"{name}: {line}" for line in said.splitlines()), flush=True)
    told = tuple(TOLD.findall(said))
    return _say(
        name, Outcome(f"ran, {time.monotonic() - began:.0f} s", told) if told == STEPS else Outcome("left steps out", told, is_good=False)
    )


def _say(name: str, outcome: Outcome) -> Outcome:
    print(f"{name}: {outcome.word}", flush=True)
    return outcome


def _print_matrix(outcomes: Mapping[str, Outcome]) -> None:
    print(f"\n{'':12}{' '.join(STEPS)}")
    for name, outcome in outcomes.items():
        marks = " ".join(("ran" if step in outcome.told else "-").ljust(len(step)) for step in STEPS)
        print(f"{name:12}{marks}  {outcome.word}")


if __name__ == "__main__":
    typer.run(main)
