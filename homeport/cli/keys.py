"""``homeport keys``: API keys for developers and tools."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli.running import each_item, with_home
from homeport.cli.spans import parse_span
from homeport.cli.writing import Json, Quiet, print_json, print_table, say, show_time
from homeport.errors import NotFound

if TYPE_CHECKING:
    from homeport.home import Home
    from homeport.keys import ApiKey

app = typer.Typer(help="API keys for developers and tools.", no_args_is_help=True)


def parse_expiry(text: str) -> datetime:
    """The moment that ``text`` means: a span from now (``12h``, ``30d``, ``8w``, ``1y``), a date (its first moment in UTC) or a time."""
    if (span := parse_span(text)) is not None:
        return datetime.now(UTC) + span
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC)
    except ValueError as error:
        raise typer.BadParameter("write a span like 30d (h, d, w, y), a date like 2030-01-31, or a time like 2030-01-31T12:00Z.") from error


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, as lists show it.")],
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="A permission it gives, such as llm.chat or activities.*; again for more. Everything when left out."),
    ] = None,
    expires: Annotated[
        datetime | None,
        typer.Option(parser=parse_expiry, metavar="WHEN", help="30d, 12h, 8w, 1y or a date like 2030-01-31. Never when left out."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Create an API key and print it. It is shown this once."""

    async def work(home: "Home") -> "tuple[ApiKey, str, str]":
        return *await home.keys.create(name, scope or ["*"], expires), home.settings.base_url

    key, text, url = with_home(work)
    if quiet:
        return say(text)
    say(
        f"Created the API key '{key.name}'. It gives {_scopes(key)} and {_expiry(key)}.",
        "",
        f"  {text}",
        "",
        "It is shown this once; store it now. Use it like this:",
        "",
        f'  curl -H "Authorization: Bearer {text}" {url}/sdk/ping',
    )


@app.command("list")
def list_keys(json: Json = False) -> None:
    """List all API keys, newest first."""
    keys = with_home(all_keys)
    if json:
        return print_json(keys)
    if not keys:
        return say("There are no API keys. Create one: homeport keys create NAME")
    now = datetime.now(UTC)
    print_table(
        ["name", "prefix", "gives", "state", "expires", "last used", "created"],
        [
            [
                key.name,
                key.prefix,
                " ".join(key.scopes),
                key_state(key, now),
                show_time(key.expires_at, "never"),
                show_time(key.last_used_at, "never"),
                show_time(key.created_at, ""),
            ]
            for key in keys
        ],
    )


@app.command()
def revoke(key: Annotated[str, typer.Argument(metavar="ID_OR_PREFIX", help="The key's id, or its prefix (hp_local_…).")]) -> None:
    """Make a key useless from now on, in every running server."""

    async def work(home: "Home") -> "tuple[ApiKey, bool]":
        found = next((each for each in await all_keys(home) if is_named(each, key)), None)
        if found is None:
            raise NotFound(f"There is no API key with the id or prefix '{key[:80]}'. Show all of them: homeport keys list")
        revoked = await home.keys.revoke(str(found.id))
        now = datetime.now(UTC)
        return revoked, any(key_state(each, now) == "active" for each in await all_keys(home))

    revoked, is_any_left = with_home(work)
    say(f"Revoked the API key '{revoked.name}' ({revoked.prefix}).")
    if not is_any_left:
        say("No valid key is left. Create one: homeport keys create NAME")


async def all_keys(home: "Home") -> "list[ApiKey]":
    """All API keys, newest first, revoked and expired ones too."""
    return [key async for key in each_item(lambda cursor: home.keys.list(limit=200, cursor=cursor))]


def is_named(key: "ApiKey", text: str) -> bool:
    """Whether ``text`` is the key's id or its prefix."""
    # Somebody who pastes the whole key means that key.
    return text.lower() == str(key.id) or text == key.prefix or text.startswith(f"{key.prefix}_")


def _scopes(key: "ApiKey") -> str:
    return "everything" if "*" in key.scopes else ", ".join(key.scopes)


def _expiry(key: "ApiKey") -> str:
    return f"expires {show_time(key.expires_at, '')}" if key.expires_at else "does not expire"


def key_state(key: "ApiKey", now: datetime) -> str:
    """``active``, ``revoked`` or ``expired``."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "active"
