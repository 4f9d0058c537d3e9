"""Whether the process answers."""


async def get_health() -> dict[str, str]:
    """Say that the process runs; nothing else is looked at."""
    return {"status": "ok"}
