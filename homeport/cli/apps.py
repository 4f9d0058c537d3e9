"""``homeport apps``: registered apps, and what each may do."""

import sys
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from homeport.cli.app_launch import (
    Arguments,
    Autostart,
    Command,
    EnvFile,
    HealthPath,
    HomeUrl,
    ManifestFile,
    Variables,
    WorkingDir,
    describe_launch,
    read_launch_options,
    read_manifest_file,
)
from homeport.cli.running import each_item, end, with_home
from homeport.cli.writing import Json, Quiet, as_dict, print_json, print_table, printable, say, show_time
from homeport.errors import NotFound

if TYPE_CHECKING:
    from uuid import UUID

    from homeport.apps import App
    from homeport.grants import Grant, PermissionRequest
    from homeport.home import Home
    from homeport.launcher import AppProcess

DECIDED_BY = "cli"

app = typer.Typer(help="Apps that dock here, and what each of them may do.", no_args_is_help=True)

AppName = Annotated[str, typer.Argument(metavar="APP", help="The app's slug or id.")]
PermissionNames = Annotated[list[str], typer.Argument(metavar="PERMISSION...", help="Permissions, such as llm.chat.")]


@app.command()
def register(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The app's name for people; it may stand in the manifest.")] = None,
    permission: Annotated[
        list[str] | None, typer.Option("--permission", "-p", help="A permission that its manifest declares; again for more.")
    ] = None,
    slug: Annotated[str | None, typer.Option(help="Its short name; made from the name when left out.")] = None,
    app_id: Annotated[str | None, typer.Option("--id", metavar="UUID", help="Its id; drawn when left out.")] = None,
    description: Annotated[str | None, typer.Option(help="What it does.")] = None,
    requires_user: Annotated[bool, typer.Option("--requires-user", help="Refuse its activities until a user has signed in to it.")] = False,
    manifest: ManifestFile = None,
    command: Command = None,
    arg: Arguments = None,
    working_dir: WorkingDir = None,
    env: Variables = None,
    env_file: EnvFile = None,
    home_url: HomeUrl = None,
    health_path: HealthPath = None,
    autostart: Autostart = None,
    quiet: Quiet = False,
) -> None:
    """Register an app. Declaring a permission does not grant it. With a command it can be started from here."""
    said = read_manifest_file(manifest)
    launch = {**said.launch, **read_launch_options(command, arg, working_dir, env, env_file, home_url, health_path, autostart)}
    if (named := name or said.name) is None:
        raise typer.BadParameter("give the app a name, or a manifest that has one.")
    registered = with_home(
        lambda home: home.apps.register(
            named,
            slug=slug or said.slug,
            app_id=app_id or said.app_id,
            description=description or said.description,
            permissions=permission or said.permissions,
            requires_user=requires_user,
            launch=launch or None,
        )
    )
    if quiet:
        return say(str(registered.id))
    grants = " ".join(registered.permissions) or "llm.chat"
    start = ["Start it:", "", f"  homeport apps start {registered.slug}"]
    if registered.launch is None:
        start = ["Start it with its id in the environment:", "", f"  RTX_APP_ID={registered.id}"]
    say(
        f"Registered the app '{registered.name}'.",
        "",
        f"  id    {registered.id}",
        f"  slug  {registered.slug}",
        "",
        *start,
        "",
        "Let it do things now, or when it asks (homeport apps requests):",
        "",
        f"  homeport apps grant {registered.slug} {grants}",
    )


@app.command()
def update(
    name: AppName,
    new_name: Annotated[str | None, typer.Option("--name", help="Its name for people.")] = None,
    permission: Annotated[
        list[str] | None,
        typer.Option("--permission", "-p", help="A permission that its manifest declares, in the place of all."),
    ] = None,
    slug: Annotated[str | None, typer.Option(help="Its short name.")] = None,
    description: Annotated[str | None, typer.Option(help="What it does.")] = None,
    requires_user: Annotated[
        bool | None, typer.Option("--requires-user/--no-requires-user", help="Refuse its activities until a user has signed in to it.")
    ] = None,
    manifest: ManifestFile = None,
    command: Command = None,
    arg: Arguments = None,
    working_dir: WorkingDir = None,
    env: Variables = None,
    env_file: EnvFile = None,
    home_url: HomeUrl = None,
    health_path: HealthPath = None,
    autostart: Autostart = None,
) -> None:
    """Change an app; what is left out stays. Arguments and variables are replaced as a whole. What it holds is not touched."""
    said = read_manifest_file(manifest)
    launch = {**said.launch, **read_launch_options(command, arg, working_dir, env, env_file, home_url, health_path, autostart)}

    async def work(home: "Home") -> "App":
        found = await find_app(home, name)
        return await home.apps.update(
            str(found.id),
            name=new_name or said.name,
            slug=slug,
            description=description if description is not None else said.description,
            permissions=permission or said.permissions,
            requires_user=requires_user,
            launch=launch or None,
        )

    changed = with_home(work)
    say(f"Changed the app '{changed.slug}'.")
    if launch:
        say(f"How it is started holds from its next start on: homeport apps restart {changed.slug}")


@app.command("list")
def list_apps(json: Json = False) -> None:
    """List all apps, oldest first."""

    async def work(home: "Home") -> "tuple[list[App], dict[UUID, AppProcess]]":
        found = [each async for each in each_item(lambda cursor: home.apps.list(limit=200, cursor=cursor))]
        return found, {each.app_id: each for each in await home.launcher.list()}

    apps, processes = with_home(work)
    if json:
        return print_json([as_dict(each) | {"process": as_dict(processes.get(each.id))} for each in apps])
    if not apps:
        return say("There are no apps. Register one: homeport apps register NAME")
    print_table(
        ["slug", "name", "id", "declares", "registered", "state", "url"],
        [
            [each.slug, each.name, str(each.id), " ".join(each.permissions) or "-", show_time(each.created_at, "")]
            + ([process.state, process.url or "-"] if (process := processes.get(each.id)) is not None else ["-", "-"])
            for each in apps
        ],
    )


@app.command()
def show(name: AppName, json: Json = False) -> None:
    """Show an app with its grants and its requests."""

    async def work(home: "Home") -> "tuple[App, AppProcess, list[Grant], list[PermissionRequest]]":
        found = await find_app(home, name)
        process = await home.launcher.state(str(found.id))
        grants = [each async for each in each_item(lambda cursor: home.permissions.list_grants(found.id, limit=200, cursor=cursor))]
        return found, process, grants, [each for each in await _requests(home) if each.app_id == found.id]

    found, process, grants, requests = with_home(work)
    if json:
        asked = {"grants": [as_dict(each) for each in grants], "requests": [as_dict(each) for each in requests]}
        return print_json(as_dict(found) | {"process": as_dict(process) if found.launch is not None else None} | asked)
    say(
        f"{found.name}{f' - {printable(found.description)}' if found.description else ''}",
        "",
        f"  id             {found.id}",
        f"  slug           {found.slug}",
        f"  kind           {found.kind}",
        f"  declares       {' '.join(found.permissions) or '-'}",
        f"  requires user  {'yes' if found.requires_user else 'no'}",
        f"  registered     {show_time(found.created_at, '')}",
        *describe_launch(found, process),
        "",
    )
    if grants:
        print_table(
            ["permission", "state", "decided by", "decided"],
            [[each.permission, each.state, each.decided_by, show_time(each.decided_at, "")] for each in grants],
        )
    else:
        say(f"Nothing is granted or denied. Grant: homeport apps grant {found.slug} PERMISSION")
    if pending := [each.permission for each in requests if each.state == "pending"]:
        say("", f"It waits for {', '.join(pending)}. Decide: homeport apps grant {found.slug} {' '.join(pending)} (or deny)")


@app.command()
def grant(name: AppName, permissions: PermissionNames) -> None:
    """Let an app do things. One that waits for the answer goes on at once."""
    _decide(name, permissions, "granted")


@app.command()
def deny(name: AppName, permissions: PermissionNames) -> None:
    """Refuse things to an app, and remember it, so that it need not ask again."""
    _decide(name, permissions, "denied")


@app.command()
def reset(
    name: AppName, permissions: Annotated[list[str] | None, typer.Argument(metavar="[PERMISSION...]", help="All when left out.")] = None
) -> None:
    """Forget decisions about an app, so that it may ask again."""

    async def work(home: "Home") -> "tuple[App, list[Grant]]":
        found = await find_app(home, name)
        if not permissions:
            return found, await home.permissions.reset_grants(found.id)
        return found, [await home.permissions.reset_grant(found.id, permission) for permission in dict.fromkeys(permissions)]

    found, forgotten = with_home(work)
    if not forgotten:
        return say(f"Nothing was decided about '{found.slug}'.")
    say(f"Forgot what was decided about {', '.join(each.permission for each in forgotten)} for '{found.slug}'. It may ask again.")


@app.command()
def requests(
    every: Annotated[bool, typer.Option("--all", help="Also those that are decided.")] = False,
    json: Json = False,
) -> None:
    """List what apps have asked for and nobody has decided yet, oldest first."""
    found = with_home(lambda home: _requests(home, None if every else "pending"))
    if json:
        return print_json(found)
    if not found:
        return say(
            "No app has asked for anything." if every else "No request waits for a decision. Earlier ones: homeport apps requests --all"
        )
    print_table(
        ["app", "calls itself", "permission", "state", "asked"],
        [[each.app_slug, each.app_name, each.permission, each.state, show_time(each.requested_at, "")] for each in found],
    )
    pending: dict[str, list[str]] = {}
    for each in found:
        if each.state == "pending":
            pending.setdefault(each.app_slug, []).append(each.permission)
    if pending:
        say("", "Decide with these, or with deny instead of grant:", "")
        say(*(f"  homeport apps grant {slug} {' '.join(names)}" for slug, names in pending.items()))


@app.command()
def remove(
    name: AppName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove an app with its activities, vectors, grants and requests. Its folder is moved aside, not deleted."""
    if not yes:
        if not sys.stdin.isatty():
            end(f"This removes the app and all its activities and vectors. To confirm: homeport apps remove {quote(name)} --yes")
        found = with_home(lambda home: find_app(home, name))
        typer.confirm(f"Remove the app '{found.name}' ({found.slug}) with all its activities, vectors and grants?", abort=True)

    async def work(home: "Home") -> "App":
        return await home.apps.remove(str((await find_app(home, name)).id))

    removed = with_home(work)
    say(f"Removed the app '{removed.name}' ({removed.slug}).")


def _decide(name: str, permissions: list[str], state: Literal["granted", "denied"]) -> None:
    from homeport.permission_names import check_grantable

    wanted = [check_grantable(permission) for permission in dict.fromkeys(permissions)]

    async def work(home: "Home") -> "tuple[App, list[str]]":
        found = await find_app(home, name)
        asked = {each.permission for each in await _requests(home) if each.app_id == found.id}
        for permission in wanted:
            await home.permissions.set_grant(found.id, permission, state, DECIDED_BY)
        return found, [permission for permission in wanted if permission in asked]

    found, asked = with_home(work)
    if state == "granted":
        say(f"'{found.slug}' may now do: {', '.join(wanted)}.")
    else:
        say(f"'{found.slug}' may not do: {', '.join(wanted)}. To let it ask again: homeport apps reset {found.slug} {' '.join(wanted)}")
    if asked:
        say(f"It had asked for {', '.join(asked)}; that is answered.")


async def find_app(home: "Home", name: str) -> "App":
    """The app with this slug or id. Raises NotFound, saying how to list them."""
    try:
        return await home.apps.get(name)
    except NotFound as error:
        raise NotFound(f"There is no app with the slug or id '{name[:80]}'. Show all of them: homeport apps list") from error


async def _requests(home: "Home", state: str | None = "pending") -> "list[PermissionRequest]":
    return [each async for each in each_item(lambda cursor: home.permissions.list_requests(state=state, limit=200, cursor=cursor))]
