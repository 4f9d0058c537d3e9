"""``homeport threads``: conversations in a workspace."""

from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli.running import with_home
from homeport.cli.workspaces import workspace_not_found
from homeport.cli.writing import Json, Quiet, print_json, print_table, say, show_time
from homeport.errors import NotFound

if TYPE_CHECKING:
    from homeport.home import Home
    from homeport.workspaces import Thread

app = typer.Typer(help="Threads: conversations in a workspace.", no_args_is_help=True)

WorkspaceSlug = Annotated[str, typer.Argument(metavar="WORKSPACE", help="The workspace's short name.")]


@app.command("list")
def list_threads(workspace: WorkspaceSlug = "default", json: Json = False) -> None:
    """List a workspace's threads, oldest first."""

    async def work(home: "Home") -> "list[Thread]":
        try:
            return list((await home.workspaces.list_threads(workspace))[1])
        except NotFound as error:
            raise workspace_not_found(workspace) from error

    threads = with_home(work)
    if json:
        return print_json(threads)
    if not threads:
        return say(f"There are no threads in '{workspace}'. Create one: homeport threads create {workspace} NAME")
    print_table(["slug", "name", "created"], [[each.slug, each.name, show_time(each.created_at, "")] for each in threads])


@app.command()
def create(
    workspace: WorkspaceSlug,
    name: Annotated[str, typer.Argument(help="Its name for people.")],
    slug: Annotated[str | None, typer.Option(help="Its short name; made from the name when left out.")] = None,
    quiet: Quiet = False,
) -> None:
    """Create a thread in a workspace."""

    async def work(home: "Home") -> "Thread":
        try:
            return await home.workspaces.create_thread(workspace, name, slug)
        except NotFound as error:
            raise workspace_not_found(workspace) from error

    created = with_home(work)
    say(created.slug if quiet else f"Created the thread '{created.slug}' in '{workspace}'.")


@app.command()
def remove(workspace: WorkspaceSlug, slug: Annotated[str, typer.Argument(help="The thread's short name.")]) -> None:
    """Remove a thread."""

    async def work(home: "Home") -> "Thread":
        try:
            return await home.workspaces.remove_thread(workspace, slug)
        except NotFound as error:
            raise NotFound(
                f"There is no thread '{slug[:80]}' in '{workspace[:80]}'. Show them: homeport threads list {workspace}"
            ) from error

    say(f"Removed the thread '{with_home(work).slug}' from '{workspace}'.")
