"""What agents do and have done."""

from typing import Any

from homeport.agents import Message, Run
from homeport.clock import format_time
from homeport.home import Home


async def list_runs(
    home: Home,
    state: str | None = None,
    session_id: str | None = None,
    agent: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> dict[str, Any]:
    """List runs, newest first."""
    return (await home.runs.list(state=state, session_id=session_id, agent=agent, limit=limit, cursor=cursor)).render(_run)


async def get_run(home: Home, run_id: str) -> dict[str, Any]:
    """Return one run with its messages."""
    run = await home.runs.get(run_id)
    return {"run": _run(run), "messages": [_message(message) for message in await home.runs.messages(run_id)]}


async def cancel_run(home: Home, run_id: str) -> dict[str, Any]:
    """Cancel a run."""
    return _run(await home.runs.cancel(run_id))


def _run(run: Run) -> dict[str, Any]:
    known = {
        "task_id": None if run.task_id is None else str(run.task_id),
        "provider": run.provider,
        "model": run.model,
        "error": run.error,
        "error_code": run.error_code,
    }
    return {
        "id": str(run.id),
        "session_id": str(run.session_id),
        "owner_id": str(run.owner_id),
        "agent": run.agent,
        "state": run.state,
        "turns": run.turns,
        "tool_calls": run.tool_calls,
        "prompt_tokens": run.prompt_tokens,
        "completion_tokens": run.completion_tokens,
        **{name: value for name, value in known.items() if value is not None},
        "created_at": format_time(run.created_at),
        "finished_at": format_time(run.finished_at),
    }


def _message(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "role": message.role,
        "text": message.text,
        "tool_calls": [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in message.tool_calls],
        **({"tool_call_id": message.tool_call_id} if message.tool_call_id is not None else {}),
        "created_at": format_time(message.created_at),
    }
