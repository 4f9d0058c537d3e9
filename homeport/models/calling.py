"""A call of a model: kept within its limits, tried again where that may help, and counted; and who takes over when a default fails.

Nothing here knows what is asked: a chat, a stream and an embedding are called alike.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Protocol, TypeVar

import structlog

from adapters.chat import ChatStream, Endpoint, Usage
from adapters.model_catalog import Role
from homeport.errors import AppError
from homeport.identity import Principal
from homeport.models.limits import Allowance, LimitTable
from homeport.models.places import Leave, Places
from homeport.models.usage import ModelUsage

log = structlog.get_logger(__name__)

RETRY_BASE_S = 0.2
MAX_BACKOFF_S = 5.0
# An upstream that wants to be left alone for longer is not waited for: the caller decides, or a fallback answers.
MAX_RETRY_AFTER_S = 2.0
# Failures of a default that a fallback may make good. Only a request that names no model has fallbacks, so an unknown one is not its fault.
FALLBACK_CODES = frozenset({"PROVIDER_UNAVAILABLE", "RATE_LIMIT", "LLM_ERROR", "INVALID_MODEL"})


class Counted(Protocol):
    """An answer that says what it took."""

    @property
    def usage(self) -> Usage:
        """Tokens, as the provider counted them."""


T = TypeVar("T")
Answer = TypeVar("Answer", bound=Counted | ChatStream)
# Whom to ask, and for which model.
Locate = Callable[[], Awaitable[tuple[Endpoint, str]]]
# How to ask, within so many seconds; None: as long as the transport allows.
Ask = Callable[[float | None], Awaitable[Answer]]


class Calling:
    """Calls models. ``limits`` gives the limits in force."""

    def __init__(self, limits: Callable[[], LimitTable], usage: ModelUsage) -> None:
        self._limits = limits
        self._usage = usage
        self._places = Places()

    async def call(
        self, role: Role, caller: Principal | None, endpoint: Endpoint, model: str, ask: Ask[Answer], *, timeout_s: float
    ) -> Answer:
        """The answer of one model. ``timeout_s`` is what the transport allows where no limit is set.

        Raises what ``ask`` raises, and TooManyRequests when too many calls run already.
        """
        allowance = self._limits().allow(endpoint.provider, model)
        held: list[Leave] = []
        over = partial(self._over, role, caller, endpoint, model, held, perf_counter())
        try:
            if allowance.places:
                await self._places.take(allowance.places, allowance.timeout_s or timeout_s, held)
            answer = await _ask_again(ask, endpoint, model, allowance, timeout_s)
        except BaseException as error:
            over(Usage(), error)
            raise
        if isinstance(answer, ChatStream):
            answer.when_over(over)
        else:
            over(answer.usage, None)
        return answer

    def _over(
        self,
        role: Role,
        caller: Principal | None,
        endpoint: Endpoint,
        model: str,
        held: Sequence[Leave],
        started: float,
        usage: Usage,
        error: BaseException | None,
    ) -> None:
        """Leave what is held and count the call. A caller who left is no failure of the model."""
        for leave in held:
            leave()
        self._usage.record(role, caller, endpoint, model, perf_counter() - started, usage, error if isinstance(error, AppError) else None)


async def first_that_answers(choices: Sequence[Locate], use: Callable[[Endpoint, str], Awaitable[T]]) -> T:
    """What ``use`` makes of the first of ``choices``, or of the next when it fails through no fault of the request.

    When all fail, the failure of the first is raised: it is the one that its caller knows.
    """
    failure: AppError | None = None
    for locate in choices:
        try:
            return await use(*await locate())
        except AppError as error:
            failure = failure or error
            if error.code not in FALLBACK_CODES:
                break
            if len(choices) > 1:
                log.warning("model failed; its fallbacks are tried", code=error.code, reason=error.message)
    if failure is None:
        raise ValueError("there is nobody to ask")
    raise failure


async def _ask_again(ask: Ask[Answer], endpoint: Endpoint, model: str, allowance: Allowance, timeout_s: float) -> Answer:
    """Ask, and ask again after failures that may pass, while the time for the whole lasts."""
    deadline = perf_counter() + (allowance.timeout_s or timeout_s)
    failures = 0
    while True:
        try:
            return await ask(allowance.timeout_s)
        except AppError as error:
            wait_s = retry_wait_s(error, failures)
            if wait_s is None or failures >= allowance.retries or perf_counter() + wait_s >= deadline:
                raise
            log.info("model is asked again", provider=endpoint.provider, model=model, code=error.code, wait_s=round(wait_s, 3))
        failures += 1
        await asyncio.sleep(wait_s)


def retry_wait_s(error: AppError, failures: int) -> float | None:
    """How long to wait before asking again, at random below a bound that doubles each time; None when asking again does not help."""
    if error.retry_in_s is None or error.retry_in_s > MAX_RETRY_AFTER_S:
        return None
    bound_s = min(MAX_BACKOFF_S, RETRY_BASE_S * 2**failures)
    return error.retry_in_s + random.uniform(0, bound_s)  # noqa: S311 - spreads load, guards nothing
