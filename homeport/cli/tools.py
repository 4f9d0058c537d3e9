"""``homeport tools``: who may use which tool."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli.apps import DECIDED_BY, find_app
from homeport.cli.running import end, with_home
from homeport.cli.writing import Json, print_json, print_table, say, show_time

if TYPE_CHECKING:
    from homeport.home import Home
    from homeport.tools import Decision, McpTool, ToolRule

app = typer.Typer(
    help="Who may use which tool. Without a rule, an app that holds mcp.tools may use all of them.",
    no_args_is_help=True,
)

Who = Annotated[str, typer.Argument(metavar="WHO", help="An app's slug or id, 'everybody', or an agent as agent:SLUG.")]
Which = Annotated[list[str], typer.Argument(metavar="TOOL...", help="SERVER/TOOL, SERVER/* for all of a server's, '*' for all.")]


@app.command("rules")
def list_rules(
    who: Annotated[str | None, typer.Argument(metavar="[WHO]", help="Only the rules about this app, agent, or everybody.")] = None,
    json: Json = False,
) -> None:
    """List the rules. The most exact one counts; one about an app goes before one for everybody that is not stricter and more exact."""

    async def work(home: "Home") -> "tuple[list[ToolRule], dict[str, str]]":
        subject = (await _find_subject(home, who))[0] if who is not None else None
        rules = [*await home.tools.rules.list(subject)]
        return rules, {rule.subject: await _show_subject(home, rule.subject) for rule in rules}

    rules, names = with_home(work)
    if json:
        return print_json(rules)
    if not rules:
        return say("There are no rules: an app that holds mcp.tools may use every tool. To limit one: homeport tools only --help")
    print_table(
        ["who", "tools", "decision", "decided by", "decided"],
        [[names[each.subject], each.pattern, each.decision, each.decided_by, show_time(each.created_at, "")] for each in rules],
    )


@app.command("builtin")
def list_builtin(json: Json = False) -> None:
    """List the tools that are built in. Agents can be given them, by these names; apps and MCP clients cannot use them."""

    async def work(home: "Home") -> "list[McpTool]":
        return [*home.tools.builtins()]

    tools = with_home(work)
    if json:
        return print_json(tools)
    print_table(["tool", "what it does"], [[f"homeport/{tool.name}", (tool.description or "").partition(". ")[0]] for tool in tools])


@app.command()
def allow(who: Who, which: Which) -> None:
    """Let an app, an agent or everybody use tools."""
    name = _set(who, which, "allow")
    say(f"{name} may use {', '.join(which)}.")


@app.command()
def ask(who: Who, which: Which) -> None:
    """Have a person asked before an app, an agent or everybody uses tools, once for each app and tool."""
    name = _set(who, which, "ask")
    say(f"{name} has to ask for {', '.join(which)}. What apps ask: homeport apps requests. What agents ask: homeport approvals list")


@app.command()
def deny(who: Who, which: Which) -> None:
    """Keep an app, an agent or everybody from using tools. They are not listed to an app, either."""
    name = _set(who, which, "deny")
    say(f"{name} may not use {', '.join(which)}.")


@app.command()
def only(who: Who, which: Which) -> None:
    """Let an app or an agent use these tools and no others, in place of all its rules."""

    async def work(home: "Home") -> str:
        subject, name = await _find_subject(home, who)
        decisions: dict[tuple[str, str], Decision] = {("", ""): "deny"}
        decisions |= dict.fromkeys(await _find_patterns(home, which), "allow")
        await home.tools.rules.replace(subject, decisions, by=DECIDED_BY)
        return name

    say(f"{with_home(work)} may use {', '.join(which)} and no other tool.")


@app.command()
def forget(
    who: Who, which: Annotated[list[str] | None, typer.Argument(metavar="[TOOL]...", help="All of its rules when left out.")] = None
) -> None:
    """Remove rules about an app, an agent or everybody."""

    async def work(home: "Home") -> "tuple[str, list[ToolRule]]":
        subject, name = await _find_subject(home, who)
        found = [rule for rule in await home.tools.rules.list(subject) if not which or rule.pattern in which]
        return name, [await home.tools.rules.remove(str(rule.id)) for rule in found]

    name, removed = with_home(work)
    if not removed:
        end(f"There is no such rule about {name}. Show them: homeport tools rules")
    say(f"Forgot what was ruled about {', '.join(rule.pattern for rule in removed)} for {name}.")


def _set(who: str, which: Sequence[str], decision: "Decision") -> str:
    async def work(home: "Home") -> str:
        subject, name = await _find_subject(home, who)
        for server, tool in await _find_patterns(home, which):
            await home.tools.rules.set(subject, server, tool, decision, by=DECIDED_BY)
        return name

    return with_home(work)


async def _find_patterns(home: "Home", which: Sequence[str]) -> list[tuple[str, str]]:
    from homeport.tools import BUILTIN_SERVER, parse_pattern

    servers = [BUILTIN_SERVER, *(server.name for server in await home.tools.servers.list())]
    return [parse_pattern(text, servers) for text in which]


async def _find_subject(home: "Home", who: str) -> tuple[str, str]:
    """The subject of rules that somebody is, and the name for people. Raises NotFound for an app that there is not."""
    from homeport.tools import EVERYBODY, agent_subject, app_subject

    if who == EVERYBODY:
        return EVERYBODY, "Everybody"
    if who.startswith("agent:"):
        slug = who.removeprefix("agent:")
        return agent_subject(slug), f"The agent '{slug}'"
    found = await find_app(home, who)
    return app_subject(found.id), f"'{found.slug}'"


async def _show_subject(home: "Home", subject: str) -> str:
    kind, _, name = subject.partition(":")
    return (await home.apps.get(name)).slug if kind == "app" else subject
