"""``homeport agents``: agents that apps can name."""

from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli.running import with_home
from homeport.cli.writing import Json, Quiet, print_json, print_table, say, show_time
from homeport.errors import NotFound

if TYPE_CHECKING:
    from homeport.agents import Agent
    from homeport.home import Home

app = typer.Typer(help="Agents that apps can name.", no_args_is_help=True)


@app.command("list")
def list_agents(json: Json = False) -> None:
    """List all agents, oldest first."""
    agents = list(with_home(lambda home: home.agents.list()))
    if json:
        return print_json(agents)
    if not agents:
        return say("There are no agents. Create one: homeport agents create NAME")
    print_table(
        ["slug", "name", "description", "created"],
        [[each.slug, each.display_name, each.description or "-", show_time(each.created_at, "")] for each in agents],
    )


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name for people.")],
    slug: Annotated[str | None, typer.Option(help="Its short name, which may begin with @; made from the name when left out.")] = None,
    description: Annotated[str, typer.Option(help="What it does.", show_default=False)] = "",
    hub_id: Annotated[str | None, typer.Option(help="Its id in a hub that it came from.")] = None,
    quiet: Quiet = False,
) -> None:
    """Create an agent."""
    created = with_home(lambda home: home.agents.create(name, slug, description, hub_id))
    say(created.slug if quiet else f"Created the agent '{created.slug}'.")


@app.command()
def remove(slug: Annotated[str, typer.Argument(help="Its short name.")]) -> None:
    """Remove an agent."""

    async def work(home: "Home") -> "Agent":
        try:
            return await home.agents.remove(slug)
        except NotFound as error:
            raise NotFound(f"There is no agent '{slug[:80]}'. Show all of them: homeport agents list") from error

    say(f"Removed the agent '{with_home(work).slug}'.")
