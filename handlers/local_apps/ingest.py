"""Documents to vectors in one call: /sdk/llm/vectors/ingest."""

from typing import Any

from homeport.clock import format_time
from homeport.home import Home
from homeport.identity import Principal
from homeport.jobs import Job


async def create_ingest(home: Home, principal: Principal, body: dict[str, Any]) -> dict[str, Any]:
    """Take documents in, as a job."""
    options = {name: body.get(name) for name in ("provider", "model")}
    sizes = {"size": body.get("chunkSize"), "overlap": body.get("chunkOverlap")}
    return _result(await home.ingest.enqueue(principal, body.get("workspaceId"), body["documents"], **sizes, **options))


async def get_ingest(home: Home, principal: Principal, job_id: str) -> dict[str, Any]:
    """How far a job is."""
    return _result(await home.ingest.get(principal, job_id))


async def cancel_ingest(home: Home, principal: Principal, job_id: str) -> dict[str, Any]:
    """Cancel a job."""
    return _result(await home.ingest.cancel(principal, job_id))


def _result(job: Job) -> dict[str, Any]:
    shown = {
        "id": str(job.id),
        "state": job.state,
        "done": job.done,
        "total": job.total,
        "attempts": job.attempts,
        "createdAt": format_time(job.created_at),
        "startedAt": format_time(job.started_at),
        "finishedAt": format_time(job.finished_at),
        "result": job.result,
        "error": job.error,
        "code": job.error_code,
    }
    return {"success": True, "job": {name: value for name, value in shown.items() if value is not None}}
