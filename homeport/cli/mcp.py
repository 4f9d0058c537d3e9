"""``homeport mcp``: MCP servers, whose tools apps can use.

A command is a process of its own: a server that it starts ends with it, and those that a running Homeport has started go on.
"""

import os
import sys
from pathlib import Path
from shlex import join, quote
from shutil import which
from typing import TYPE_CHECKING, Annotated, Any

import typer

from homeport.cli.named_values import read_env_file, read_named
from homeport.cli.running import end, show_log, with_home
from homeport.cli.tool_calls import print_output, read_arguments
from homeport.cli.writing import Json, Quiet, as_dict, print_json, print_table, printable, say, show_time

if TYPE_CHECKING:
    from homeport.home import Home
    from homeport.tools import McpServer, OfferedTool, ServerTest, ToolOutput

app = typer.Typer(help="MCP servers, whose tools apps can use.", no_args_is_help=True)

HOW_TO_ADD = """Add one, or import the file of a desktop client:

  homeport mcp add time -- uvx mcp-server-time
  homeport mcp add docs --url https://mcp.example.com/mcp
  homeport mcp import ~/.cursor/mcp.json"""

ServerName = Annotated[str, typer.Argument(metavar="SERVER", help="The server's name or id.")]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The name by which apps ask for it.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND [ARG]...]", help="A program and its arguments. No shell reads them.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Its address, in the place of a command.")] = None,
    sse: Annotated[bool, typer.Option("--sse", help="The address speaks the older HTTP with server-sent events.")] = False,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=VALUE]", help="An environment variable; without a value it is taken from this shell, or asked for."),
    ] = None,
    env_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Environment variables, one NAME=VALUE a line.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=VALUE]", help="A header for the address; without a value it is asked for.")
    ] = None,
    cwd: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the program runs; an empty folder of its own otherwise.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="How long a call may go without a sign of progress.")] = None,
    description: Annotated[str, typer.Option(help="What it is good for.", show_default=False)] = "",
    quiet: Quiet = False,
) -> None:
    """Add a server, and try it. Variables and headers are stored encrypted."""
    if (url is None) == (not command):
        raise typer.BadParameter("give either a command, after --, or an address with --url.")
    variables = (read_env_file(env_file) if env_file is not None else {}) | read_named(env or [], "--env", os.environ)
    values: dict[str, Any] = {"env": variables, "headers": read_named(header or [], "--header", {}), "description": description}
    if command:
        values |= {"command": find_program(command[0]), "args": command[1:], "cwd": str(cwd.expanduser().absolute()) if cwd else None}
    if url is not None:
        values |= {"url": url, "transport": "sse" if sse else "http"}
    if timeout is not None:
        values["timeout_s"] = timeout

    async def work(home: "Home") -> "tuple[McpServer, ServerTest | None]":
        from homeport.tools import ServerDraft

        added = await home.tools.servers.add(ServerDraft(name, **values))
        return added, None if quiet else await home.tools.test(str(added.id))

    added, tested = with_home(work, has_warnings=False)
    if tested is None:
        return say(added.name)
    if tested.works:
        return say(f"Added the MCP server '{added.name}'. Apps that hold mcp.tools can use it at once.", printable(tested.message))
    say(f"Added the MCP server '{added.name}', which does not work yet.")
    typer.echo(printable(tested.message), err=True)
    say(f"Its log: homeport mcp logs {quote(added.name)}. Try it again: homeport mcp test {quote(added.name)}")


def find_program(command: str) -> str:
    """Where a program is that is found here: the server that will start it may look in other folders."""
    found = which(command)
    return command if found is None else os.path.abspath(found)


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A JSON file with mcpServers, as desktop clients keep it; - is standard input.")],
    replace: Annotated[bool, typer.Option("--replace", help="Change servers whose names are taken into what the file says.")] = False,
) -> None:
    """Add the servers of a file, all of them or none. Nothing is started."""
    content = sys.stdin.buffer.read() if str(file) == "-" else file.expanduser().read_bytes()
    done = with_home(lambda home: home.tools.servers.import_file(content, replace=replace))
    for remark in done.remarks:
        typer.echo(printable(remark), err=True)
    if done.skipped:
        say(f"Left as they are, because their names are taken: {', '.join(done.skipped)}. To change them: --replace")
    if done.imported:
        say(f"Imported {', '.join(done.imported)}. Try them: homeport mcp test")
    elif not done.skipped:
        say("The file holds no servers.")


@app.command("list")
def list_servers(json: Json = False) -> None:
    """List all servers. None is started."""
    servers = with_home(_with_problems)
    if json:
        return print_json([_shown(server) | {"problem": problem} for server, problem in servers])
    if not servers:
        return say("There are no MCP servers.", HOW_TO_ADD)
    print_table(
        ["name", "provider", "what", "state", "description"],
        [
            [each.name, each.provider, _what(each), "off" if not each.enabled else "warn" if problem else "on", each.description or "-"]
            for each, problem in servers
        ],
    )
    if problems := [f"{each.name}: {printable(problem)}" for each, problem in servers if problem]:
        say("", *problems)


@app.command()
def show(name: ServerName, json: Json = False) -> None:
    """Show a server. Of variables and headers, the names."""

    async def work(home: "Home") -> "tuple[McpServer, str | None]":
        from homeport.tools import find_problem

        found = await home.tools.servers.get(name)
        return found, find_problem(found)

    found, problem = with_home(work)
    if json:
        return print_json(_shown(found) | {"problem": problem})
    rows = {
        "id": str(found.id),
        "description": found.description,
        "tags": ", ".join(found.tags),
        "provider": found.provider,
        "command" if found.command else "address": _what(found),
        "folder": found.cwd,
        "variables": ", ".join(sorted(found.env)),
        "headers": ", ".join(sorted(found.headers)),
        "timeout": f"{found.timeout_s:g} s",
        "enabled": "yes" if found.enabled else "no",
        "added": show_time(found.created_at, ""),
        "problem": problem,
    }
    say(printable(found.name), "", *(f"  {label:<12} {printable(value)}" for label, value in rows.items() if value))


@app.command()
def remove(name: ServerName) -> None:
    """Remove a server, its secrets and its log. Rules about it stay."""
    removed = with_home(lambda home: home.tools.servers.remove(name))
    say(f"Removed the MCP server '{removed.name}'.")


@app.command()
def enable(name: ServerName) -> None:
    """Switch a server on again."""
    changed = with_home(lambda home: home.tools.servers.update(name, {"enabled": True}))
    say(f"The MCP server '{changed.name}' is on.")


@app.command()
def disable(name: ServerName) -> None:
    """Switch a server off: it is stopped, and its tools cannot be used."""
    changed = with_home(lambda home: home.tools.servers.update(name, {"enabled": False}))
    say(f"The MCP server '{changed.name}' is off.")


@app.command("test")
def try_servers(name: Annotated[str | None, typer.Argument(metavar="[SERVER]", help="All of them when left out.")] = None) -> None:
    """Start a server, or all that are on, and ask for the tools. Exit status 1 when one does not work."""

    async def work(home: "Home") -> "list[ServerTest]":
        names = [name] if name else [str(each.id) for each in await home.tools.servers.list() if each.enabled]
        return [await home.tools.test(each) for each in names]

    tests = with_home(work, has_warnings=False)
    if not tests:
        end(f"There are no MCP servers. {HOW_TO_ADD}")
    for each in tests:
        typer.echo(printable(each.message), err=not each.works)
    if not all(each.works for each in tests):
        raise typer.Exit(1)


@app.command()
def tools(name: ServerName, json: Json = False) -> None:
    """List the tools of a server, and those of them that have changed since they were approved. Starts it."""
    found = with_home(lambda home: home.tools.offered(name), has_warnings=False)
    if json:
        return print_json([as_dict(each.tool) | {"changed": each.is_changed} for each in found])
    print_table(
        ["tool", "arguments", "hints", "description"],
        [
            [each.tool.name, _parameters(each), _hints(each), (each.tool.description or each.tool.title or "-").partition("\n")[0]]
            for each in found
        ],
    )
    if any(each.is_changed for each in found):
        say("", f"What is 'changed' is refused until you approve it: homeport mcp approve {quote(name)}")


@app.command()
def call(
    name: ServerName,
    tool: Annotated[str, typer.Argument(help="The tool's name.")],
    argument: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]... | JSON", help="Its arguments, one by one, or one JSON object.")
    ] = None,
    json: Json = False,
) -> None:
    """Execute a tool as the operator, whom no rule binds. Exit status 1 when it fails."""

    async def work(home: "Home") -> "ToolOutput":
        schema = (await home.tools.find(None, name, tool)).input_schema if argument else {}
        return await home.tools.execute(None, name, tool, read_arguments(argument or [], schema))

    output = with_home(work, has_warnings=False)
    print_output(output, is_json=json)
    if output.is_error:
        raise typer.Exit(1)


@app.command()
def approve(name: ServerName) -> None:
    """Approve the tools of a server as it offers them now. Look at them first: homeport mcp tools SERVER"""
    before = with_home(lambda home: home.tools.approve(name), has_warnings=False)
    changed = [each.tool.name for each in before if each.is_changed]
    say(f"Approved: {', '.join(changed)}." if changed else f"None of its {len(before)} tools had changed.")


@app.command()
def logs(
    name: ServerName,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more, until Ctrl-C.")] = False,
) -> None:
    """Show what a server has written to its standard error, whichever Homeport started it here."""

    async def work(home: "Home") -> Path:
        return home.tools.servers.log_path(await home.tools.servers.get(name))

    show_log(with_home(work), lines, follow=follow, first_start=f"homeport mcp test {quote(name)}")


async def _with_problems(home: "Home") -> "list[tuple[McpServer, str | None]]":
    from homeport.tools import find_problem

    return [(server, find_problem(server)) for server in await home.tools.servers.list()]


def _shown(server: "McpServer") -> dict[str, Any]:
    """A server as JSON data, of its secrets only the names."""
    values = {name: getattr(server, name) for name in type(server).__slots__ if name != "problem"}
    return values | {"provider": server.provider, "env": sorted(server.env), "headers": sorted(server.headers)}


def _what(server: "McpServer") -> str:
    return join([server.command, *server.args]) if server.command is not None else server.url or ""


def _parameters(offered: "OfferedTool") -> str:
    schema = offered.tool.input_schema
    properties, required = schema.get("properties"), schema.get("required")
    names = properties if isinstance(properties, dict) else {}
    return " ".join(name if isinstance(required, list) and name in required else f"[{name}]" for name in names) or "-"


def _hints(offered: "OfferedTool") -> str:
    tool = offered.tool
    known = {"changed": offered.is_changed, "read only": tool.is_read_only, "destructive": tool.is_destructive}
    return ", ".join(name for name, holds in known.items() if holds) or "-"
