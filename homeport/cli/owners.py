"""Whose vectors a command works on: an app's, or those of an API key."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from homeport.cli.apps import find_app
from homeport.cli.keys import all_keys, is_named, key_state
from homeport.errors import NotFound

if TYPE_CHECKING:
    from homeport.home import Home
    from homeport.identity import Principal

AppOption = Annotated[str | None, typer.Option("--app", metavar="APP", help="The vectors of this app: its slug or id.")]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="ID_OR_PREFIX", help="The vectors of this API key: its id or prefix. The oldest valid one when left out."
    ),
]


async def find_owner(home: "Home", app: str | None, key: str | None) -> "Principal":
    """Who owns the vectors, as somebody who may do everything with them. Raises NotFound, saying what to do."""
    from homeport.identity import Principal

    everything = frozenset({"*"})
    if app is not None:
        if key is not None:
            raise typer.BadParameter("--app and --key exclude each other.")
        found = await find_app(home, app)
        return Principal("app", found.id, found.slug, found.id, str(found.id), everything, frozenset())
    keys = await all_keys(home)
    if key is None:
        now = datetime.now(UTC)
        chosen = next((each for each in reversed(keys) if key_state(each, now) == "active"), None)
        missing = "There is no valid API key yet, so nobody to own vectors. Create one: homeport keys create NAME"
    else:
        chosen = next((each for each in keys if is_named(each, key)), None)
        missing = f"There is no API key with the id or prefix '{key[:21]}'. Show all of them: homeport keys list"
    if chosen is None:
        raise NotFound(missing)
    return Principal("key", chosen.id, chosen.name, chosen.id, None, everything, frozenset())


def whose(owner: "Principal") -> str:
    """The owner, as it stands in a sentence."""
    return f"the {'app' if owner.kind == 'app' else 'API key'} '{owner.name}'"
