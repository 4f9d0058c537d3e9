"""``homeport agents``: agents that apps can name, and what they do."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli import agent_runs
from homeport.cli.running import with_home
from homeport.cli.writing import Json, Quiet, as_dict, print_json, print_table, printable, say, show_time

if TYPE_CHECKING:
    from homeport.agents import Agent

app = typer.Typer(help="Agents that apps can name, and what they do.", no_args_is_help=True)
app.command("runs")(agent_runs.list_runs)
app.command("run")(agent_runs.show_run)
app.command("cancel")(agent_runs.cancel_run)

AgentSlug = Annotated[str, typer.Argument(metavar="AGENT", help="Its short name.")]
Instructions = Annotated[
    str | None, typer.Option(metavar="TEXT | @FILE", help="What its model is told before the conversation; @FILE reads it from a file.")
]
Provider = Annotated[str | None, typer.Option(help="The model provider that it asks; '' is the default one.")]
Model = Annotated[str | None, typer.Option(help="The model that it asks; '' is the provider's default.")]
Tools = Annotated[
    list[str] | None,
    typer.Option("--tool", metavar="PATTERN", help="A tool that it may use: SERVER/TOOL, SERVER/* or '*'; again for more."),
]
Limits = Annotated[
    list[str] | None, typer.Option("--limit", metavar="NAME=VALUE", help="What one run may take, such as turns=8; again for more.")
]


@app.command("list")
def list_agents(json: Json = False) -> None:
    """List all agents, oldest first."""
    agents = list(with_home(lambda home: home.agents.list()))
    if json:
        return print_json(agents)
    if not agents:
        return say("There are no agents. Create one: homeport agents create NAME")
    print_table(
        ["slug", "name", "model", "tools", "description", "created"],
        [
            [
                each.slug,
                each.display_name,
                _model(each),
                " ".join(each.tools) or "-",
                each.description or "-",
                show_time(each.created_at, ""),
            ]
            for each in agents
        ],
    )


@app.command()
def show(slug: AgentSlug, json: Json = False) -> None:
    """Show an agent, with its instructions and its limits."""
    found = with_home(lambda home: home.agents.get(slug))
    if json:
        return print_json(found)
    limits = {name: value for name, value in as_dict(found.limits).items() if value is not None}
    rows = {
        "name": found.display_name,
        "description": found.description,
        "hub id": found.hub_id,
        "model": _model(found),
        "tools": " ".join(found.tools) or "none",
        "limits": " ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in limits.items()),
        "created": show_time(found.created_at, ""),
        "changed": show_time(found.updated_at, ""),
    }
    say(found.slug, "", *(f"  {label:<12} {printable(value)}" for label, value in rows.items() if value))
    say("", *(printable(line) for line in found.instructions.splitlines() or ["It has no instructions."]))


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name for people.")],
    slug: Annotated[str | None, typer.Option(help="Its short name, which may begin with @; made from the name when left out.")] = None,
    description: Annotated[str, typer.Option(help="What it does.", show_default=False)] = "",
    hub_id: Annotated[str | None, typer.Option(help="Its id in a hub that it came from.")] = None,
    instructions: Instructions = None,
    provider: Provider = None,
    model: Model = None,
    tool: Tools = None,
    limit: Limits = None,
    quiet: Quiet = False,
) -> None:
    """Create an agent. Without tools it only talks."""
    values: dict[str, Any] = {"provider": provider, "model": model, "tools": tool or [], "limits": _read_limits(limit)}
    told = _read_instructions(instructions) or ""
    created = with_home(lambda home: home.agents.create(name, slug, description, hub_id, instructions=told, **values))
    say(created.slug if quiet else f"Created the agent '{created.slug}'. Show it: homeport agents show {quote(created.slug)}")


@app.command()
def update(
    slug: AgentSlug,
    name: Annotated[str | None, typer.Option(help="Its name for people.")] = None,
    description: Annotated[str | None, typer.Option(help="What it does.")] = None,
    hub_id: Annotated[str | None, typer.Option(help="Its id in a hub that it came from; '' is none.")] = None,
    instructions: Instructions = None,
    provider: Provider = None,
    model: Model = None,
    tool: Tools = None,
    no_tools: Annotated[bool, typer.Option("--no-tools", help="Take all tools from it.")] = False,
    limit: Limits = None,
) -> None:
    """Change an agent. What is not given stays; tools are replaced as a whole, and a limit without a value is at its default again."""
    if no_tools and tool:
        raise typer.BadParameter("give either --tool or --no-tools.")
    values: dict[str, Any] = {
        "display_name": name,
        "description": description,
        "hub_id": hub_id,
        "instructions": _read_instructions(instructions),
        "provider": provider,
        "model": model,
        "tools": [] if no_tools else tool,
        "limits": _read_limits(limit),
    }
    if all(value is None for value in values.values()):
        raise typer.BadParameter("say what to change, such as --instructions or --tool.")
    changed = with_home(lambda home: home.agents.update(slug, **values))
    say(f"Changed the agent '{changed.slug}'.")


@app.command()
def remove(slug: AgentSlug) -> None:
    """Remove an agent and its sessions, with what was said in them."""
    removed = with_home(lambda home: home.agents.remove(slug))
    say(f"Removed the agent '{removed.slug}'.")


def _read_instructions(given: str | None) -> str | None:
    if given is None or not given.startswith("@"):
        return given
    file = Path(given[1:]).expanduser()
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file} is not a text in UTF-8.", param_hint="--instructions") from error


def _read_limits(given: list[str] | None) -> dict[str, float | None] | None:
    """Limits by name; None for one without a value. Whether there is such a limit, and what it may be, the catalogue knows."""
    return None if not given else dict(_read_limit(text) for text in given)


def _read_limit(text: str) -> tuple[str, float | None]:
    name, _, value = text.partition("=")
    try:
        return name, float(value) if value else None
    except ValueError as error:
        raise typer.BadParameter(f"'{text}' is not NAME=NUMBER.", param_hint="--limit") from error


def _model(agent: "Agent") -> str:
    if agent.provider is None:
        return agent.model or "default"
    return f"{agent.provider}/{agent.model or '(default)'}"
