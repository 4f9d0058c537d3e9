"""When and after how long a model is asked again, and which limits are in force for it."""

import pytest

from adapters.chat import Endpoint
from adapters.model_failures import bad_answer, refused, too_slow, unreachable
from homeport.errors import AppError, InvalidRequest
from homeport.models import Limits, Target, parse_target
from homeport.models.calling import MAX_BACKOFF_S, RETRY_BASE_S, retry_wait_s
from homeport.models.limits import UNLIMITED, Allowance, LimitTable

ENDPOINT = Endpoint("mine", "openai", "http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (unreachable(ENDPOINT, "refused"), 0),
        (bad_answer(ENDPOINT, "broke off"), 0),
        (too_slow(ENDPOINT, 1), 0),
        (refused(ENDPOINT, "m", 429), 0),
        (refused(ENDPOINT, "m", 429, retry_after="2"), 2),
        (refused(ENDPOINT, "m", 503, retry_after="1"), 1),
        (refused(ENDPOINT, "m", 504), 0),
    ],
)
def test_a_failure_that_may_pass_is_tried_again_after_what_the_upstream_asked_for(error: AppError, seconds: float) -> None:
    waits = [retry_wait_s(error, 0) for _ in range(100)]
    assert all(wait_s is not None and seconds <= wait_s <= seconds + RETRY_BASE_S for wait_s in waits)
    assert len(set(waits)) > 1, "at random, so that all who failed together do not come together again"
    assert all((retry_wait_s(error, 20) or 0) <= seconds + MAX_BACKOFF_S for _ in range(100))


@pytest.mark.parametrize(
    "error",
    [
        *(refused(ENDPOINT, "m", status) for status in (400, 401, 402, 403, 404, 422, 307)),
        refused(ENDPOINT, "m", 429, code="insufficient_quota"),
        refused(ENDPOINT, "m", 429, retry_after="7"),
        refused(ENDPOINT, "m", 503, retry_after="3600"),
        InvalidRequest(),
    ],
)
def test_a_failure_that_stays_or_that_takes_long_to_pass_is_not_tried_again(error: AppError) -> None:
    assert retry_wait_s(error, 0) is None


def test_a_models_own_limits_go_before_those_of_its_provider_and_both_limit_calls_at_once() -> None:
    table = LimitTable([Limits("a", timeout_s=9, retries=3, concurrency=4), Limits("a", "m/x", timeout_s=1, concurrency=2)])
    assert table.allow("a", "other") == Allowance(9, 3, ((Target("a"), 4),))
    assert table.allow("a", "m/x") == Allowance(1, 3, ((Target("a", "m/x"), 2), (Target("a"), 4)))
    assert table.allow("b", "m/x") is UNLIMITED
    assert LimitTable([Limits("a", "m", retries=0)]).allow("a", "m") == Allowance(None, 0)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("openai", Target("openai")),
        ("OpenAI/gpt-4o", Target("openai", "gpt-4o")),
        ("groq/openai/gpt-oss", Target("groq", "openai/gpt-oss")),
    ],
)
def test_a_target_is_written_as_provider_and_model(text: str, target: Target) -> None:
    assert parse_target(text) == target
    assert parse_target(str(target)) == target


@pytest.mark.parametrize("text", ["", "/", "/model", "openai/", "openai/ ", "openai/\n"])
def test_what_names_no_provider_or_no_model_is_no_target(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_target(text)
