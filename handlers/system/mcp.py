"""The contract's tools for clients of the Model Context Protocol."""

from typing import Any

from homeport.replies import McpMessage


async def send_message(body: dict[str, Any]) -> McpMessage:
    return McpMessage(body)
