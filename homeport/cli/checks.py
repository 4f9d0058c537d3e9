"""What Homeport needs, looked at piece by piece: what was found, whether that is good, and what to do where it is not.

Nothing is made or changed: a database that does not exist yet is reported as such. An embedded one that is not running is started for
as long as the look takes.
"""

import asyncio
import errno
import http.client
import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from adapters.minilm import DIMENSIONS, MODEL
from adapters.minilm.files import INSTALL, INSTALL_AGAIN, find_folder, is_installed
from adapters.postgres import Database, EmbeddedPostgres
from adapters.postgres.binaries import find_binaries
from adapters.postgres.migrations import known_revisions
from homeport.contract import ContractError, load_contract
from homeport.errors import AppError
from homeport.migrations import SCRIPTS
from homeport.models import Models, Provider, ProviderTest
from homeport.models.environment import read_environment
from homeport.models.resolving import DIRECT
from homeport.secrets import SecretBox, load_secret_key
from homeport.settings import EVERYWHERE, Settings
from homeport.tools import find_problem, read_servers

LITTLE_SPACE_BYTES = 1024**3
NO_SPACE_BYTES = 200 * 1024**2
ANSWER_TIMEOUT_S = 3.0
PROVIDER_TIMEOUT_S = 10.0
SPEECH_ADVICE = "What there is, and how to get more: homeport speech engines"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. ``advice`` says what to do; empty when there is nothing to do."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


_NO_PROVIDER = Check(
    "models",
    "warn",
    "no provider is configured: apps cannot chat",
    "Set a provider's key (such as OPENAI_API_KEY) for the server, start Ollama, or run: homeport models add --help",
)


async def check_everything(settings: Settings) -> AsyncIterator[Check]:
    """Every check, as soon as it is done."""
    yield await asyncio.to_thread(check_contract)
    yield await asyncio.to_thread(check_data_dir, settings)
    yield await asyncio.to_thread(check_disk, settings)
    yield await asyncio.to_thread(check_port, settings)
    yield await asyncio.to_thread(check_embeddings)
    yield await check_voice(settings)
    yield await check_recogniser(settings)
    yield await check_microphone()
    async for check in check_database(settings):
        yield check


def check_contract() -> Check:
    """Whether the OpenAPI document can be served."""
    from homeport.http.error_bodies import ERROR_BODIES, PROBLEM_SURFACES

    try:
        # Without the cache in the data directory, which may not be there yet.
        contract = load_contract(surfaces=ERROR_BODIES, strict_surfaces=PROBLEM_SURFACES)
    except ContractError as error:
        return Check("contract", "fail", str(error), "Install Homeport again; if you changed the document, correct it there.")
    return Check("contract", "ok", f"{len(contract.operations)} operations")


def check_data_dir(settings: Settings) -> Check:
    """Whether the data directory can be used, and by nobody else."""
    folder = settings.data_dir
    choose = "Choose another one with --data-dir or HOMEPORT_DATA_DIR."
    if not folder.exists():
        parent = _nearest_folder(folder)
        if os.access(parent, os.W_OK | os.X_OK):
            return Check("data directory", "ok", f"{folder} is not there yet; the first start makes it")
        return Check("data directory", "fail", f"{folder} is not there and cannot be made: {parent} is not writable", choose)
    if not folder.is_dir():
        return Check("data directory", "fail", f"{folder} is not a folder", choose)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check("data directory", "fail", f"{folder} is not writable for this user", f"Correct its owner or rights. {choose}")
    mode = stat.S_IMODE(folder.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        return Check("data directory", "warn", f"{folder} is open to other users (mode {mode:04o})", f"chmod 700 {folder}")
    return Check("data directory", "ok", f"{folder}, mode {mode:04o}")


def check_disk(settings: Settings) -> Check:
    """Whether there is room where the data is."""
    folder = _nearest_folder(settings.data_dir)
    free = shutil.disk_usage(folder).free
    found = f"{free / 1024**3:.1f} GiB free at {folder}"
    if free < NO_SPACE_BYTES:
        return Check("disk", "fail", found, "Free some space: the database stops when the disk is full.")
    if free < LITTLE_SPACE_BYTES:
        return Check("disk", "warn", found, "Free some space soon.")
    return Check("disk", "ok", found)


def check_port(settings: Settings) -> Check:
    """Whether the port is free, or a Homeport listens there."""
    from homeport.http.serving import PortUnavailable, bind

    if settings.port == 0:
        return Check("port", "ok", "a free one is taken at each start")
    try:
        sockets = bind(settings.host, settings.port)
    except PortUnavailable as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRINUSE and _homeport_answers(settings):
            return Check("port", "ok", f"a Homeport answers on port {settings.port} of {settings.host}")
        found, _, advice = str(error).partition("\n")
        return Check("port", "fail", found, advice)
    for each in sockets:
        each.close()
    return Check("port", "ok", f"port {settings.port} of {settings.host} is free; no server runs there")


def check_embeddings(folder: Path | None = None) -> Check:
    """Whether the files of the embedding model that runs here are there, in ``folder`` or where the wheel puts them, and of the right
    size. What they hold is checked when they are used."""
    folder = folder or find_folder()
    if folder is None or not folder.is_dir():
        found = f"{MODEL} is not installed: texts can be embedded only by a provider that is configured for it"
        return Check("embeddings", "warn", found, INSTALL)
    if not is_installed(folder):
        return Check("embeddings", "warn", f"the files of {MODEL} in {folder} are incomplete", INSTALL_AGAIN)
    return Check("embeddings", "ok", f"{MODEL} is installed, {DIMENSIONS} dimensions")


async def check_voice(settings: Settings) -> Check:
    """Which engine of this machine speaks by default, and whether it does."""
    from homeport.speech.engines import local_engines

    engines = local_engines(settings.data_dir)
    try:
        for engine in engines:
            if engine.find_problem() is None:
                return Check("voice", "ok", f"{engine.name}, {len(await engine.voices())} voices")
    except AppError as error:
        return Check("voice", "warn", error.message, SPEECH_ADVICE)
    finally:
        await asyncio.gather(*(engine.close() for engine in engines))
    return Check("voice", "warn", "nothing on this machine speaks", SPEECH_ADVICE)


async def check_recogniser(settings: Settings) -> Check:
    """Which engine listens by default, and with which model."""
    from homeport.speech.recognition import Recognition

    recognition = Recognition(settings)
    try:
        first = (await recognition.providers())[0]
    finally:
        await recognition.close()
    if first.problem is not None:
        return Check("recogniser", "warn", "nothing on this machine can write down what is said", first.problem)
    better = "" if first.id == "whisper" else "It makes many mistakes. For a good one: homeport speech pull small"
    return Check("recogniser", "ok", f"{first.name}, model {first.models[0].id}", better)


async def check_microphone() -> Check:
    """Whether there is one. Nothing is recorded."""
    from adapters.audio.microphone import MicrophoneUnavailable, find_microphone

    try:
        return Check("microphone", "ok", await find_microphone())
    except MicrophoneUnavailable as error:
        return Check("microphone", "warn", f"none: {error.reason}", error.advice)


async def check_database(settings: Settings) -> AsyncIterator[Check]:
    """Whether the database can be reached and used, how new its schema is, which pgvector it has; then the providers, which it may hold."""
    checks: list[Check] = []
    async with AsyncExitStack() as stack:
        try:
            database = await stack.enter_async_context(_open_database(settings))
            if database is None:
                checks.append(Check("database", "ok", "embedded; not there yet, the first start makes it"))
            else:
                async with database.transaction() as connection:
                    checks += [await _check_server(connection, settings), await _check_schema(connection), await _check_vector(connection)]
        except AppError as error:
            checks.append(Check("database", "fail", error.message, _database_advice(settings)))
            database = None
        for check in checks:
            yield check
        is_current = all(check.status == "ok" for check in checks) and database is not None and checks[1].found.endswith("up to date")
        async for check in check_providers(settings, database if is_current else None):
            yield check
        if is_current and database is not None:
            yield await check_mcp_servers(settings, database)


async def check_providers(settings: Settings, database: Database | None) -> AsyncIterator[Check]:
    """Which model providers are configured, in the environment and in a ``database`` that can be read, and whether they answer."""
    if database is None:
        names = [provider.name for provider in read_environment(os.environ)]
        yield Check("models", "ok", f"configured: {', '.join(names)}; not asked") if names else _NO_PROVIDER
        return
    models = Models(settings, database, SecretBox(load_secret_key(settings)))
    try:
        providers = [*await models.configured_providers()]
        providers += [each for each in await models.providers() if each.source == "ollama"]
        if not providers:
            yield _NO_PROVIDER
        for provider in providers:
            yield await _check_provider(models, provider)
    finally:
        await models.close()


async def _check_provider(models: Models, provider: Provider) -> Check:
    name = f"models of {provider.name}"
    if provider.kind != DIRECT:
        # Nothing but a chat, which costs money, would tell more.
        return Check(name, "ok", f"configured in the {provider.source}; not asked (homeport models test {provider.name})")
    try:
        async with asyncio.timeout(PROVIDER_TIMEOUT_S):
            test = await models.test_provider(provider.name)
    except TimeoutError:
        test = ProviderTest(False, f"'{provider.name}' did not answer within {PROVIDER_TIMEOUT_S:.0f} s.")
    advice = "" if test.works else f"Apps cannot chat with it. Once it is corrected: homeport models test {provider.name}"
    return Check(name, "ok" if test.works else "warn", test.message, advice)


async def check_mcp_servers(settings: Settings, database: Database) -> Check:
    """Whether the MCP servers could be started, as far as that can be seen without starting them."""
    async with database.transaction() as connection:
        servers = await read_servers(connection, SecretBox(load_secret_key(settings)))
    if not servers:
        return Check("MCP servers", "ok", "none; to add one: homeport mcp add --help")
    problems = [f"{server.name}: {problem}" for server in servers if server.enabled and (problem := find_problem(server))]
    if problems:
        return Check("MCP servers", "warn", "; ".join(problems), "Once it is corrected: homeport mcp test")
    return Check("MCP servers", "ok", f"{', '.join(server.name for server in servers)}; not started (homeport mcp test)")


@asynccontextmanager
async def _open_database(settings: Settings) -> AsyncIterator[Database | None]:
    async with AsyncExitStack() as stack:
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
        else:
            await asyncio.to_thread(find_binaries)
            if not (settings.data_dir / "postgres" / "data").exists():
                yield None
                return
            embedded = EmbeddedPostgres(settings.data_dir)
            url = await asyncio.to_thread(embedded.start)
            stack.push_async_callback(asyncio.to_thread, embedded.stop)
        database = Database(url, 2)
        stack.push_async_callback(database.close)
        await database.open()
        yield database


async def _check_server(connection: AsyncConnection, settings: Settings) -> Check:
    version = (await connection.execute(text("SELECT current_setting('server_version')"))).scalar_one()
    return Check("database", "ok", f"PostgreSQL {version}, {'embedded' if settings.database_url is None else 'from DATABASE_URL'}")


async def _check_schema(connection: AsyncConnection) -> Check:
    newest = known_revisions(SCRIPTS)[-1]
    if (await connection.execute(text("SELECT to_regclass('alembic_version')"))).scalar() is None:
        return Check("schema", "ok", f"not there yet; the first start makes schema {newest}")
    found = (await connection.execute(text("SELECT max(version_num) FROM alembic_version"))).scalar()
    if found == newest:
        return Check("schema", "ok", f"{found}, up to date")
    if found is None or found in known_revisions(SCRIPTS):
        return Check("schema", "warn", f"{found or 'none'}; this Homeport brings {newest}", "The next start of the server migrates it.")
    return Check(
        "schema",
        "fail",
        f"{found}, written by a newer Homeport (this one knows up to {newest})",
        "Upgrade Homeport, or use another data directory or database.",
    )


async def _check_vector(connection: AsyncConnection) -> Check:
    version = (await connection.execute(text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))).scalar()
    # Opening the database has shown that the server brings one that is new enough.
    return Check("pgvector", "ok", str(version) if version else "available; the first start adds it to the database")


def _database_advice(settings: Settings) -> str:
    if settings.database_url is None:
        return f"Its log: {settings.data_dir / 'postgres' / 'server.log'}"
    return "Check DATABASE_URL and that its server runs; without it the embedded database is used."


def _homeport_answers(settings: Settings) -> bool:
    host = "localhost" if settings.host in EVERYWHERE else settings.host
    connection = http.client.HTTPConnection(host, settings.port, ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return answer.status == 200 and b'"ok"' in answer.read(1000) and answer.getheader("x-request-id") is not None
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _nearest_folder(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.is_dir())
