"""The application factory: settings and contract in, one ASGI application out."""

import asyncio
import gc
import multiprocessing
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import structlog
from starlette.middleware.cors import CORSMiddleware

from homeport.contract import Contract, load_contract
from homeport.errors import Unavailable
from homeport.home import Home, make_data_dir, open_home
from homeport.http.connexion_app import Asgi, connexion_app
from homeport.http.error_bodies import ERROR_BODIES, PROBLEM_SURFACES
from homeport.http.middleware.access import Access
from homeport.http.middleware.body_limit import BodyLimit
from homeport.http.middleware.errors import Errors
from homeport.http.middleware.guard import Guard
from homeport.http.serving import stop_with_parent
from homeport.log import configure_logging
from homeport.settings import Settings, load_settings

DATABASE_WAIT_S = 30.0
RETRY_S = 0.5

log = structlog.get_logger(__name__)


def create_app(settings: Settings | None = None, contract: Contract | None = None) -> Asgi:
    """Build the server. Without arguments from the environment, which is how ``uvicorn --factory`` calls it.

    Raises ContractError or SettingsError, both with a message for people.
    """
    settings = settings or load_settings()
    configure_logging(settings)
    contract = contract or load_server_contract(settings)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[dict[str, Any]]:
        stop_with_parent()
        async with AsyncExitStack() as stack:
            home = await _open_home(settings, stack)
            # Some 160 000 objects live as long as the process. Looking at them in every collection costs a fifth of a small request's time.
            gc.freeze()
            yield {"home": home}

    return connexion_app(contract, lifespan, _edges(settings, contract), is_checked=settings.validate_responses)


async def _open_home(settings: Settings, stack: AsyncExitStack) -> Home:
    """Everything that the server works with. One of several processes waits for a database that is away: its parent has seen it, and stops
    all of them when one does not start."""
    clock = asyncio.get_running_loop().time
    give_up_at = clock() + (DATABASE_WAIT_S if multiprocessing.parent_process() is not None else 0)
    while True:
        try:
            return await stack.enter_async_context(open_home(settings, is_server=True))
        except Unavailable as error:
            if "Retry-After" not in error.headers or clock() > give_up_at:  # a database that does not fit will not fit later
                raise
            log.warning("the database is away; trying again", reason=error.message)
        await asyncio.sleep(RETRY_S)


def load_server_contract(settings: Settings) -> Contract:
    """The contract that this server serves, from its cache when the files have not changed."""
    return load_contract(surfaces=ERROR_BODIES, strict_surfaces=PROBLEM_SURFACES, cache_dir=make_data_dir(settings) / "cache")


def _edges(settings: Settings, contract: Contract) -> list[Any]:
    """What wraps everything, outermost first: so that errors carry request ids and, when it is on, CORS headers."""
    edges: list[Any] = [Access]
    if settings.allowed_origins:
        cors = partial(CORSMiddleware, allow_origins=settings.allowed_origins, allow_methods=["*"], allow_headers=["*"], max_age=600)
        edges.append(cors)
    edges += [
        partial(Errors, contract=contract, is_checked=settings.validate_responses),
        partial(Guard, allowed_hosts=settings.allowed_hosts, allowed_origins=settings.allowed_origins),
        partial(BodyLimit, max_bytes=settings.max_body_bytes),
    ]
    return edges
