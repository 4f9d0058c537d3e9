"""The only module that imports Connexion. Connexion binds operationIds to handlers and sends each request through a stack of routed
middlewares; every layer here is one of its own seams (``RoutedMiddleware``, ``RoutedAPI``, ``AsyncApi.make_operation``, the resolver),
with the work that Connexion does per request done once, at start-up, by ``homeport.contract``.

Connexion is given a skeleton of the document: paths and operationIds. It needs no more to dispatch, and so its own validation, which
is built anew for every request, never runs.

    Routing → Admission (security, permission, validation) → Dispatch (the handler)
"""

import asyncio
import types
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from typing import Any

from homeport.contract import Contract, Operation
from homeport.contract.contract import find_function
from homeport.contract.routing import UndecodablePath
from homeport.errors import InvalidRequest, MethodNotAllowed, NotFound
from homeport.http import credentials
from homeport.http.binding import BoundHandler, bind_handler
from homeport.http.exchange import Exchange, exchange_of
from homeport.http.mcp_endpoint import McpEndpoint
from homeport.http.rendering import send_events, send_reply
from homeport.http.request_body import ABSENT, read_request_body
from homeport.identity import Identity, Principal
from homeport.replies import EventStream, McpMessage

with warnings.catch_warnings():
    # Connexion imports Starlette's test client, which warns about the HTTP client it is given.
    warnings.simplefilter("ignore")
    from connexion.apps.asynchronous import AsyncApi, AsyncASGIApp
    from connexion.middleware import ConnexionMiddleware
    from connexion.middleware.abstract import ROUTING_CONTEXT, RoutedAPI, RoutedMiddleware, SpecMiddleware
    from connexion.middleware.lifespan import LifespanMiddleware
    from connexion.resolver import RelativeResolver

HANDLERS = "handlers"
# Beside what Connexion's layers look for in a routing context: how the innermost one sends another request through all of them.
RUN = "homeport_run"
# A handler that runs longer than this is watched for a client that has left.
LEAVE_WATCH_AFTER_S = 0.25

Asgi = Callable[[Any, Any, Any], Awaitable[None]]
Credential = Callable[[str, Exchange, Identity], Awaitable[Principal | None]]


class ClientLeft(Exception):
    """The client closed its connection before its answer was ready. Nobody is left to tell; the access log notes it."""


def connexion_app(contract: Contract, lifespan: Any, edges: list[Any], *, is_checked: bool) -> Asgi:
    """The ASGI application. ``edges`` are middleware factories that wrap everything, outermost first.

    With ``is_checked`` every answer is held against the contract before it is sent.
    """
    middlewares = [*edges, LifespanMiddleware, Routing, Admission]
    app = ConnexionMiddleware(Dispatch(), import_name=HANDLERS, lifespan=lifespan, middlewares=middlewares)
    app.add_api(_skeleton(contract), base_path="", resolver=RelativeResolver(HANDLERS), contract=contract, is_checked=is_checked)
    # Build the stack now: an operation without its handler stops the start, not the first request.
    app.app, app.middleware_stack = app._build_middleware_stack()
    return app  # type: ignore[no-any-return]


def _skeleton(contract: Contract) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in contract.operations.values():
        paths.setdefault(operation.path, {})[operation.method.lower()] = {
            "operationId": operation.id,
            "security": [],
            "responses": {"default": {"description": operation.id}},
        }
    return {"openapi": "3.0.3", "info": contract.bundle.document["info"], "paths": paths}


class Routing(SpecMiddleware):
    """Finds the operation through the contract's segment table and notes it where Connexion's routed layers look for it."""

    def __init__(self, app: Asgi) -> None:
        self.app = app
        self._routes: dict[str, tuple[Operation, dict[str, Any]]] = {}

    def add_api(self, specification: Any, *, contract: Contract, **_: Any) -> None:
        self._contract = contract
        self._routes = {
            id_: (operation, {"api_base_path": "", "operation_id": f"{HANDLERS}.{id_}", RUN: self.run})
            for id_, operation in contract.operations.items()
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            found = self._contract.routes.match(scope.get("raw_path") or scope["path"].encode())
        except UndecodablePath as error:
            raise InvalidRequest("The path is not percent-encoded UTF-8.") from error
        if found is None:
            raise NotFound(f"There is no operation at {scope['path'][:200]}; /docs lists them all.", code="UNKNOWN_ROUTE")
        methods, path_params = found
        operation = methods.get(scope["method"])
        if operation is None:
            exchange_of(scope).operation = next(iter(methods.values()))
            allowed = ", ".join(sorted(methods))
            raise MethodNotAllowed(f"{scope['method']} is not possible here, only {allowed}.", headers={"Allow": allowed})
        await self.run(operation, path_params, scope, receive, send)

    async def run(self, operation: Operation, path_params: dict[str, str], scope: Any, receive: Any, send: Any) -> None:
        """Send a request whose operation is known through the layers below."""
        scope["path_params"] = path_params
        exchange_of(scope).operation, context = self._routes[operation.id]
        scope.setdefault("extensions", {})[ROUTING_CONTEXT] = context
        await self.app(scope, receive, send)


class AdmissionApi(RoutedAPI[Asgi]):
    """Each operation's layers, chained once: only those that the operation needs."""

    def __init__(self, *args: Any, contract: Contract, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.contract = contract
        self.add_paths()

    def make_operation(self, operation: Any) -> Asgi:
        compiled = _compiled(operation, self.contract)
        return _security_layer(compiled, _permission_layer(compiled, _validation_layer(compiled, self.next_app)))


class Admission(RoutedMiddleware[AdmissionApi]):
    """Security, then permission, then validation: who is calling, may they, and is it well-formed. In this order, so that a stranger learns
    nothing of what a request must look like."""

    api_cls = AdmissionApi


def _compiled(operation: Any, contract: Contract) -> Operation:
    return contract.operations[operation.operation_id.removeprefix(f"{HANDLERS}.")]


def _security_layer(operation: Operation, next_app: Asgi) -> Asgi:
    """Turns the request's credentials into a principal, by the functions that the document names."""
    if not operation.security:
        return next_app
    alternatives = [[_credential_check(scheme) for _, scheme in requirement.schemes] for requirement in operation.security]
    is_optional = [] in alternatives
    names = frozenset(name for requirement in operation.security for name, _ in requirement.schemes)

    async def authenticate(scope: Any, receive: Any, send: Any) -> None:
        exchange = exchange_of(scope)
        headers = exchange.headers
        identity = scope["state"]["home"].identity
        for checks in alternatives:
            principal = None
            for header, is_bearer, function in checks:
                credential = _credential(headers[header], is_bearer=is_bearer) if header in headers else None
                principal = await function(credential, exchange, identity) if credential else None
                if principal is None:
                    break
            if principal is not None:
                exchange.principal = principal
                return await next_app(scope, receive, send)
        # Whoever means to be somebody, and is not, is told so.
        if is_optional and not credentials.has_token(exchange):
            return await next_app(scope, receive, send)
        raise credentials.refuse(names, exchange)

    return authenticate


def _credential_check(scheme: Mapping[str, Any]) -> tuple[bytes, bool, Credential]:
    """(header, is it a Bearer header?, the function that checks what it carries)."""
    if scheme["type"] == "http":
        return b"authorization", True, find_function(scheme["x-bearerInfoFunc"])
    return scheme["name"].lower().encode(), False, find_function(scheme["x-apikeyInfoFunc"])


def _credential(header: bytes, *, is_bearer: bool) -> str | None:
    """What a header carries; None when that is nothing, or of another authentication scheme."""
    text = header.decode("latin-1").strip()
    if is_bearer:
        scheme, _, text = text.partition(" ")
        if scheme.lower() != "bearer":
            return None
    return text.strip() or None


def _permission_layer(operation: Operation, next_app: Asgi) -> Asgi:
    """Refuses a principal that does not hold the operation's permission, before anything else of the request is looked at."""
    permission = operation.permission
    if permission is None:
        return next_app

    async def enforce(scope: Any, receive: Any, send: Any) -> None:
        exchange = exchange_of(scope)
        principal = exchange.principal
        if principal is None or principal.decide(permission) != "granted":
            exchange.principal = await scope["state"]["home"].identity.require(principal, permission) if principal else None
            if exchange.principal is None:
                raise credentials.refuse(frozenset(), exchange)
        await next_app(scope, receive, send)

    return enforce


def _validation_layer(operation: Operation, next_app: Asgi) -> Asgi:
    """Decodes and validates parameters and body; what is left are the handler's arguments."""
    if not operation.parameters.names and not operation.bodies:
        return next_app

    async def validate(scope: Any, receive: Any, send: Any) -> None:
        exchange = exchange_of(scope)
        if operation.parameters.names:
            exchange.arguments = operation.parameters.decode(scope["path_params"], scope["query_string"], exchange.headers)
        if not operation.bodies:
            return await next_app(scope, receive, send)
        body, files, form = await read_request_body(operation, exchange.headers, receive)
        try:
            if body is not ABSENT:
                exchange.arguments["body"] = body
            exchange.arguments["files"] = files
            await next_app(scope, receive, send)
        finally:
            if form is not None:
                await form.close()

    return validate


class DispatchApi(AsyncApi):
    """Connexion's own API object, which resolves operationIds to handlers; each operation is bound once."""

    def __init__(self, *args: Any, contract: Contract, is_checked: bool, **kwargs: Any) -> None:
        self.contract = contract
        self.is_checked = is_checked
        self.mcp = McpEndpoint(contract)
        super().__init__(*args, **kwargs)

    def make_operation(self, operation: Any) -> Any:
        compiled = _compiled(operation, self.contract)
        call = bind_handler(operation.function, compiled, self.contract)
        return _dispatch_layer(call, compiled, self.mcp, is_checked=self.is_checked)


class Dispatch(AsyncASGIApp):
    """Calls the handler and sends what it returns."""

    api_cls = DispatchApi


def _dispatch_layer(call: BoundHandler, operation: Operation, mcp: McpEndpoint, *, is_checked: bool) -> Asgi:
    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        exchange = exchange_of(scope)
        result = await _while_client_waits(call(scope["state"]["home"], exchange), receive)
        if isinstance(result, McpMessage):
            run = scope["extensions"][ROUTING_CONTEXT][RUN]
            result = await _while_client_waits(mcp.answer(result.content, scope, run), receive)
        if isinstance(result, EventStream):
            await send_events(result, operation, exchange.request_id, receive, send, is_checked=is_checked)
        else:
            await send_reply(result, operation, send, is_checked=is_checked)

    return dispatch


async def _while_client_waits(answering: Coroutine[Any, Any, Any], receive: Any) -> Any:
    """The handler's result. One that runs long is cancelled when its client leaves; raises ClientLeft then."""
    try:
        # Many handlers never wait for anything; those are done here, without a watch.
        waits_for = answering.send(None)
    except StopIteration as done:
        return done.value
    watch = _LeaveWatch(receive)
    try:
        return await _resume(answering, waits_for)
    except asyncio.CancelledError:
        if watch.has_left:
            raise ClientLeft from None
        raise
    finally:
        watch.stop()


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """Await the rest of a coroutine that has begun and waits for something."""
    step: Callable[[Any], Any]
    while True:
        step = coroutine.send
        try:
            value = yield waits_for
        except BaseException as error:  # noqa: BLE001 handed on, whatever it is
            step, value = coroutine.throw, error
        try:
            waits_for = step(value)
        except StopIteration as done:
            return done.value


class _LeaveWatch:
    """Cancels a long-running handler when its client leaves. Costs one timer for the many requests that are answered at once."""

    __slots__ = ("_receive", "_task", "_timer", "_watching", "has_left")

    def __init__(self, receive: Any) -> None:
        self.has_left = False
        self._receive = receive
        self._task = asyncio.current_task()
        self._watching: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(LEAVE_WATCH_AFTER_S, self._start)

    def stop(self) -> None:
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _start(self) -> None:
        self._watching = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self.has_left = True
        if self._task is not None:
            self._task.cancel()
