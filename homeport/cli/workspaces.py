"""``homeport workspaces``: the places in which conversations live."""

from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli.running import with_home
from homeport.cli.writing import Json, Quiet, print_json, print_table, say, show_time
from homeport.errors import NotFound

if TYPE_CHECKING:
    from homeport.home import Home
    from homeport.workspaces import Workspace

app = typer.Typer(help="Workspaces, in which threads live.", no_args_is_help=True)


@app.command("list")
def list_workspaces(json: Json = False) -> None:
    """List all workspaces, oldest first."""
    workspaces = list(with_home(lambda home: home.workspaces.list()))
    if json:
        return print_json(workspaces)
    if not workspaces:
        return say("There are no workspaces. Create one: homeport workspaces create NAME")
    print_table(["slug", "name", "created"], [[each.slug, each.name, show_time(each.created_at, "")] for each in workspaces])


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name for people.")],
    slug: Annotated[str | None, typer.Option(help="Its short name; made from the name when left out.")] = None,
    quiet: Quiet = False,
) -> None:
    """Create a workspace."""
    created = with_home(lambda home: home.workspaces.create(name, slug))
    if quiet:
        return say(created.slug)
    say(f"Created the workspace '{created.slug}'. Add a thread: homeport threads create {created.slug} NAME")


@app.command()
def remove(slug: Annotated[str, typer.Argument(help="Its short name.")]) -> None:
    """Remove a workspace and its threads."""

    async def work(home: "Home") -> "Workspace":
        try:
            return await home.workspaces.remove(slug)
        except NotFound as error:
            raise workspace_not_found(slug) from error

    say(f"Removed the workspace '{with_home(work).slug}' and its threads.")


def workspace_not_found(slug: str) -> NotFound:
    """The error for a workspace that is not there."""
    return NotFound(f"There is no workspace '{slug[:80]}'. Show all of them: homeport workspaces list")
