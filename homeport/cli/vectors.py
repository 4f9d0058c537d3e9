"""``homeport vectors``: files taken in as vectors, and the search in them."""

import sys
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli.owners import AppOption, KeyOption, find_owner, whose
from homeport.cli.running import end, with_home
from homeport.cli.taking_in import Summary, take_in
from homeport.cli.writing import Json, print_json, print_table, say

if TYPE_CHECKING:
    from homeport.home import Home
    from homeport.identity import Principal
    from homeport.vectors import Match, Namespace

SNIPPET_LENGTH = 160
STOPPED = 130  # what shells report of a program that was ended with Ctrl-C

app = typer.Typer(help="Vectors: take files in, and search them by meaning.", no_args_is_help=True)

WorkspaceOption = Annotated[str, typer.Option("--workspace", "-w", metavar="NAME", help="The workspace of vectors.")]


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(metavar="FOLDER|FILE...", exists=True, help="Text files, or folders of them.")],
    workspace: WorkspaceOption = "default",
    app: AppOption = None,
    key: KeyOption = None,
    glob: Annotated[str | None, typer.Option(metavar="PATTERN", help="Only such files of the folders, like *.md or notes/*.txt.")] = None,
    size: Annotated[int | None, typer.Option(help="How many characters a chunk has at most; 1000 when left out.")] = None,
    overlap: Annotated[int | None, typer.Option(help="How many of them are repeated in the next chunk; 150 when left out.")] = None,
    provider: Annotated[str | None, typer.Option(help="Whose model embeds; the workspace's own, else the default, when left out.")] = None,
    model: Annotated[str | None, typer.Option(help="The embedding model.")] = None,
) -> None:
    """Take text files in: cut, embedded and stored, to be searched. A second run only takes in what has changed."""

    async def work(home: "Home") -> "tuple[Principal, Summary]":
        from homeport.vectors import check_workspace, make_plan

        plan = make_plan(check_workspace(workspace), size, overlap, provider, model)
        owner = await find_owner(home, app, key)
        return owner, await take_in(home, owner, paths, glob, plan)

    try:
        owner, summary = with_home(work)
    except KeyboardInterrupt:
        typer.echo("Stopped. What was stored stays; the same command goes on from there.", err=True)
        sys.exit(STOPPED)
    _tell(owner, workspace, summary)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="What to look for, in your own words.")],
    workspace: WorkspaceOption = "default",
    number: Annotated[int, typer.Option("--number", "-k", min=1, max=1000, help="How many passages to show at most.")] = 5,
    app: AppOption = None,
    key: KeyOption = None,
    json: Json = False,
) -> None:
    """Find the passages whose meaning is nearest to a text."""

    async def work(home: "Home") -> "tuple[Principal, list[Match]]":
        owner = await find_owner(home, app, key)
        return owner, await home.vectors.query(owner, workspace, text=text, top_k=number)

    owner, matches = with_home(work)
    if json:
        return print_json(matches)
    if not matches:
        return say(f"Nothing was found for {whose(owner)} in the workspace '{workspace}'. All workspaces: homeport vectors list")
    print_table(
        ["score", "document", "passage"],
        [[f"{match.score:.3f}", str(match.metadata.get("documentId") or match.id), _snippet(match)] for match in matches],
    )


@app.command("list")
def list_workspaces(app: AppOption = None, key: KeyOption = None, json: Json = False) -> None:
    """List the workspaces that hold vectors, by name."""

    async def work(home: "Home") -> "tuple[Principal, list[tuple[Namespace, int]]]":
        owner = await find_owner(home, app, key)
        found = await home.vectors.list_namespaces(owner.owner_id)
        return owner, [(each, await home.vectors.count(owner.owner_id, each.workspace)) for each in found]

    owner, found = with_home(work)
    if json:
        return print_json([_as_json(each, count) for each, count in found])
    if not found:
        return say(f"There are no vectors of {whose(owner)}. Take files in: homeport vectors ingest FOLDER")
    say(f"The vectors of {whose(owner)}:", "")
    print_table(
        ["workspace", "vectors", "dimensions", "model", "search"],
        [[each.workspace, str(count), str(each.dimensions), _model(each) or "-", _search(each)] for each, count in found],
    )


@app.command()
def delete(
    workspace: Annotated[str, typer.Option("--workspace", "-w", metavar="NAME", help="The workspace of vectors.")],
    app: AppOption = None,
    key: KeyOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a workspace with all its vectors. The files that they were made from stay."""
    if not yes:
        if not sys.stdin.isatty():
            end(f"This deletes all vectors of the workspace. To confirm: homeport vectors delete --workspace {quote(workspace)} --yes")
        typer.confirm(f"Delete the workspace '{workspace}' with all its vectors?", abort=True)

    async def work(home: "Home") -> "tuple[Principal, int]":
        owner = await find_owner(home, app, key)
        return owner, await home.vectors.delete_workspace(owner.owner_id, workspace)

    owner, count = with_home(work)
    if not count:
        return say(f"There was no workspace '{workspace}' of {whose(owner)}.")
    say(f"Deleted the workspace '{workspace}' of {whose(owner)}, {count} vectors.")


def _tell(owner: "Principal", workspace: str, summary: "Summary") -> None:
    if not summary.files:
        end(f"There is no text file to take in{f' (skipped: {_skipped(summary)})' if summary.skipped else ''}. Nothing was changed.")
    place = f"in the workspace '{workspace}' of {whose(owner)}"
    new = f"{summary.embedded} of them new or changed, embedded by {summary.model}" if summary.embedded else "none of them new or changed"
    say(f"{_count(summary.files, 'file')} {place}: {_count(summary.chunks, 'chunk')}, {new}.")
    if summary.deleted:
        say(f"Removed {_count(summary.deleted, 'chunk')} of what is no longer there.")
    if summary.skipped:
        say(f"Skipped: {_skipped(summary)}.")
    option = f" --workspace {quote(workspace)}" if workspace != "default" else ""
    say("", f'Search: homeport vectors search "your question"{option}')


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _skipped(summary: "Summary") -> str:
    return ", ".join(f"{count} {reason}" for reason, count in sorted(summary.skipped.items()))


def _snippet(match: "Match") -> str:
    return shorten(str(match.metadata.get("text") or ""), SNIPPET_LENGTH, placeholder=" …")


def _model(namespace: "Namespace") -> str | None:
    return f"{namespace.embedding.provider}/{namespace.embedding.model}" if namespace.embedding else None


def _search(namespace: "Namespace") -> str:
    return "by index" if namespace.is_indexed else "exact"


def _as_json(namespace: "Namespace", count: int) -> dict[str, Any]:
    embedding = asdict(namespace.embedding) if namespace.embedding else None
    return {
        "workspace": namespace.workspace,
        "vectors": count,
        "dimensions": namespace.dimensions,
        "embedding": embedding,
        "is_indexed": namespace.is_indexed,
    }
