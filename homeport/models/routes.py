"""Which provider and model answer a request that names neither: for each role a default, then its fallbacks in order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.model_catalog import Role
from homeport.errors import InvalidRequest
from homeport.tables import model_routes

ROLES: tuple[Role, ...] = ("chat", "embedding")
MAX_TARGETS = 10
MAX_NAME_LENGTH = 200

ONE_MODEL = (
    "Vectors of different models cannot be compared, so a fallback for embedding must be the same model on another provider: "
    "name that model with the default and with each fallback, as in openai/text-embedding-3-small other/text-embedding-3-small."
)


@dataclass(frozen=True, slots=True)
class Target:
    """A provider and one of its models; ``model`` None is the provider's own default."""

    provider: str
    model: str | None = None

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}" if self.model else self.provider


Routes = Mapping[Role, tuple[Target, ...]]


def parse_target(value: str) -> Target:
    """The target written as ``provider`` or ``provider/model``; the model may hold slashes itself. Raises InvalidRequest."""
    provider, slash, model = value.strip().partition("/")
    if not provider or (slash and not model):
        raise InvalidRequest(f"'{value[:80]}' names no provider and model; write it like openai or openai/gpt-4o-mini.")
    return Target(provider.lower(), check_model_name(model) if model else None)


def check_model_name(model: str) -> str:
    """Return ``model`` if it can name one. Raises InvalidRequest."""
    if not model.strip() or not model.isprintable() or len(model) > MAX_NAME_LENGTH:
        raise InvalidRequest(f"The name of a model must be 1 to {MAX_NAME_LENGTH} visible characters.")
    return model


def check_route(role: Role, targets: Sequence[Target]) -> None:
    """Raise InvalidRequest unless ``targets`` can be a route: not too long, nothing twice, for embedding one model everywhere."""
    if len(targets) > MAX_TARGETS:
        raise InvalidRequest(f"A default has at most {MAX_TARGETS - 1} fallbacks.")
    if twice := next((each for each in targets if targets.count(each) > 1), None):
        raise InvalidRequest(f"'{twice}' is named twice. Name each provider and model once, the default first.")
    if role == "embedding" and len(targets) > 1:
        models = {target.model for target in targets}
        if len(models) > 1 or None in models:
            raise InvalidRequest(ONE_MODEL)


async def read_routes(connection: AsyncConnection) -> dict[Role, tuple[Target, ...]]:
    """The routes of all roles that have one."""
    columns = (model_routes.c.role, model_routes.c.provider, model_routes.c.model)
    routes: dict[Role, tuple[Target, ...]] = {}
    for role, provider, model in await connection.execute(select(*columns).order_by(model_routes.c.role, model_routes.c.position)):
        routes[role] = (*routes.get(role, ()), Target(provider, model))
    return routes


async def lock_routes(connection: AsyncConnection) -> None:
    """Let nobody else change routes until the transaction ends: rows that are replaced together cannot be locked one by one."""
    await connection.execute(text("LOCK TABLE model_routes IN SHARE ROW EXCLUSIVE MODE"))


async def write_route(connection: AsyncConnection, role: Role, targets: Sequence[Target]) -> None:
    """Replace the route of a role; no targets is no route. The caller holds ``lock_routes``."""
    await connection.execute(delete(model_routes).where(model_routes.c.role == role))
    rows = [{"role": role, "position": position, "provider": each.provider, "model": each.model} for position, each in enumerate(targets)]
    if rows:
        await connection.execute(insert(model_routes), rows)


async def write_default(connection: AsyncConnection, role: Role, target: Target) -> None:
    """Make ``target`` the default of a role in place of the one before; the fallbacks stay."""
    await lock_routes(connection)
    _, *fallbacks = (await read_routes(connection)).get(role, ()) or (target,)
    await write_route(connection, role, [target, *(each for each in fallbacks if each.provider != target.provider)])


async def drop_from_routes(connection: AsyncConnection, provider: str) -> None:
    """Take a provider out of all routes."""
    await lock_routes(connection)
    for role, targets in (await read_routes(connection)).items():
        await write_route(connection, role, [each for each in targets if each.provider != provider])
