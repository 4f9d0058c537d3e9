"""Files to vectors, group by group, with a progress bar where somebody is looking."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from homeport.cli.files import Found, TextFile, find_files, read_file

if TYPE_CHECKING:
    from homeport.home import Home
    from homeport.identity import Principal
    from homeport.vectors import Document
    from homeport.vectors.documents import Plan

GROUP_FILES = 100
GROUP_BYTES = 2_000_000
FOLDER = "folder"  # in the metadata of a chunk: where its file is, so that files that are gone can be told from those of other folders


@dataclass(slots=True)
class Summary:
    """What became of the files."""

    files: int = 0
    chunks: int = 0
    embedded: int = 0
    deleted: int = 0
    model: str | None = None
    skipped: Counter[str] = field(default_factory=Counter)


async def take_in(home: "Home", owner: "Principal", paths: Sequence[Path], pattern: str | None, plan: "Plan") -> Summary:
    """Take in the text files that ``paths`` name or that are below them, then remove what is no longer below the folders among them."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    found = find_files(paths, pattern)
    summary = Summary()
    taken: set[tuple[Path, str]] = set()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[chunks]} chunks"),
        TimeRemainingColumn(),
    )
    # On a terminal only: elsewhere nothing but the result is printed.
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("Taking in", total=sum(file.size for file in found.files) or 1, chunks=0)
        before = 0
        for group in _groups(found.files):
            size = sum(file.size for file in group)
            documents = _read(group, found, taken)

            async def show(done: int, total: int, before: int = before, size: int = size) -> None:
                progress.update(task, completed=before + size * done / total if total else before, chunks=summary.chunks + done)

            if documents:
                done = await home.ingest.ingest(owner, documents, plan, show)
                summary.files += done.documents
                summary.chunks += done.chunks
                summary.embedded += done.embedded
                summary.deleted += done.deleted
                summary.model = done.model
            before += size
            progress.update(task, completed=before, chunks=summary.chunks)
    # A folder in which nothing is found is more likely one that is not mounted than one that was emptied.
    if taken:
        folders = {path.resolve() for path in paths if path.is_dir()}
        for folder in folders & {folder for folder, _ in taken}:
            summary.deleted += await _remove_missing(home, owner, plan.workspace, folder, pattern, taken | found.unreadable)
    summary.skipped = +found.skipped  # without zeros
    return summary


def _groups(files: Sequence[TextFile]) -> Iterator[list[TextFile]]:
    """The files in groups that are read, cut and kept in memory together."""
    group: list[TextFile] = []
    for file in files:
        if group and (len(group) >= GROUP_FILES or sum(each.size for each in group) + file.size > GROUP_BYTES):
            yield group
            group = []
        group.append(file)
    if group:
        yield group


def _read(group: Sequence[TextFile], found: Found, taken: set[tuple[Path, str]]) -> "list[Document]":
    from homeport.vectors import Document

    documents = {}
    for file in group:
        try:
            text = read_file(file)
        except OSError:
            found.skipped["unreadable"] += 1
            found.unreadable.add((file.folder, file.name))
            continue
        if text is None:
            found.skipped["binary"] += 1
        elif not text.strip():
            found.skipped["empty"] += 1
        else:
            taken.add((file.folder, file.name))
            documents[file.name] = Document(file.name, text, {FOLDER: str(file.folder)})
    return list(documents.values())


async def _remove_missing(
    home: "Home", owner: "Principal", workspace: str, folder: Path, pattern: str | None, known: set[tuple[Path, str]]
) -> int:
    """Delete the vectors of files that were in ``folder`` before; returns how many. What could not be read keeps its own."""
    stored = await home.vectors.list_values(owner.owner_id, workspace, "documentId", {FOLDER: str(folder)})
    names = {name for place, name in known if place == folder}
    deleted = 0
    for name in sorted(stored - names):
        path = PurePosixPath(name)
        if (pattern is None or path.match(pattern)) and not any(str(parent) in names for parent in path.parents):
            deleted += await home.vectors.delete(owner.owner_id, workspace, filter={"documentId": name, FOLDER: str(folder)})
    return deleted
