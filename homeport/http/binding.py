"""Binds a handler to its operation once, at start-up: which arguments it takes and where they come from."""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

from homeport.contract import Contract, ContractError, Operation
from homeport.http.exchange import Exchange

# What every handler may ask for by name, besides the operation's own parameters.
_GIVEN = ("home", "contract", "principal", "body", "files")

Handler = Callable[..., Coroutine[Any, Any, Any]]
BoundHandler = Callable[[Any, Exchange], Coroutine[Any, Any, Any]]


def bind_handler(handler: Handler, operation: Operation, contract: Contract) -> BoundHandler:
    """A function of (home, exchange) that calls the handler. Raises ContractError when the handler asks for what the operation has not."""
    if not inspect.iscoroutinefunction(handler):
        raise ContractError(f"{_place(handler)}: the handler of '{operation.id}' must be 'async def'")
    wanted = inspect.signature(handler).parameters
    for name, parameter in wanted.items():
        _check_parameter(handler, operation, name, parameter)
    wants_home, wants_contract, wants_principal, wants_body, wants_files = (name in wanted for name in _GIVEN)
    names = tuple(name for name in wanted if name not in _GIVEN)

    def call(home: Any, exchange: Exchange) -> Coroutine[Any, Any, Any]:
        arguments = exchange.arguments
        keywords = {name: arguments[name] for name in names if name in arguments}
        if wants_home:
            keywords["home"] = home
        if wants_contract:
            keywords["contract"] = contract
        if wants_principal:
            keywords["principal"] = exchange.principal
        if wants_body:
            keywords["body"] = arguments.get("body")
        if wants_files:
            keywords["files"] = arguments.get("files", {})
        return handler(**keywords)

    return call


def _check_parameter(handler: Handler, operation: Operation, name: str, parameter: inspect.Parameter) -> None:
    if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
        raise ContractError(f"{_place(handler)}: the handler of '{operation.id}' must name its arguments, not take '*{name}'")
    if name == "principal" and not operation.security:
        raise ContractError(f"{_place(handler)}: '{operation.id}' is public, there is no principal to ask for")
    if name in ("body", "files") and not operation.bodies:
        raise ContractError(f"{_place(handler)}: '{operation.id}' has no request body to give as '{name}'")
    if name in _GIVEN:
        return
    if name not in operation.parameters.names:
        known = ", ".join(sorted(operation.parameters.names)) or "none"
        raise ContractError(f"{_place(handler)}: '{operation.id}' has no parameter '{name}' (it has: {known})")
    if name not in operation.parameters.always_given and parameter.default is parameter.empty:
        raise ContractError(f"{_place(handler)}: '{name}' may be left out of '{operation.id}', so the handler needs a default for it")


def _place(handler: Handler) -> str:
    code = getattr(handler, "__code__", None)
    return f"{handler.__module__}:{code.co_firstlineno}" if code else repr(handler)
