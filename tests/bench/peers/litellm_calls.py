"""LiteLLM in process, as its documentation writes it: asked for a number of calls, it answers with their times in seconds."""

import asyncio
import json
import os
import sys
import time

from tests.bench.workers import answer_questions

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


async def call(count: int, base_url: str, model: str, messages: str) -> list[float]:
    """Make so many calls, one after the other."""
    import litellm

    question = json.loads(messages)
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await litellm.acompletion(
            model=model, messages=question, api_base=base_url, api_key="unused", temperature=0.7, max_tokens=1000, max_retries=0
        )
        times.append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer_questions(lambda count: runner.run(call(count, *sys.argv[1:])))
