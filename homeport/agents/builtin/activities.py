"""The owner's activities: what is to be done, and how far it is."""

from collections.abc import Mapping, Sequence
from typing import Any

from homeport.activities import MAX_STATUS_LENGTH, Activities, Activity
from homeport.agents.builtin.describing import output, schema, show_json
from homeport.clock import format_time
from homeport.tools import BuiltinTool, McpTool, ToolContext, ToolOutput

MAX_LISTED = 50

_LIST = McpTool(
    "list_activities",
    "List activities",
    "List the app's activities (things to be worked on), newest first, each with its id, status and data.",
    schema(
        {
            "status": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_STATUS_LENGTH,
                "description": "Only those in this status: pending, claimed, processing, completed, failed, or one of the app's own.",
            },
            "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "description": "How many; 20 when left out."},
        }
    ),
    is_read_only=True,
    is_idempotent=True,
)
_UPDATE = McpTool(
    "update_activity",
    "Update an activity",
    "Change the status of an activity, or store its result in place of the one before. Claim it before working on it, and complete it or "
    "let it fail afterwards.",
    schema(
        {
            "id": {"type": "string", "minLength": 1, "maxLength": 100, "description": "The activity's id."},
            "status": {
                "type": "string",
                "enum": ["pending", "claimed", "processing", "completed", "failed"],
                "description": "Left out, the status stays as it is.",
            },
            "result": {"description": "What came of it: any JSON value. Left out, it stays as it is."},
            "error_message": {"type": "string", "maxLength": 4000, "description": "Why it failed."},
        },
        ["id"],
    ),
    is_read_only=False,
    is_destructive=True,
    is_idempotent=True,
)


def activity_tools(activities: Activities) -> Sequence[BuiltinTool]:
    """The tools about activities."""

    async def list_activities(context: ToolContext, arguments: Mapping[str, Any]) -> ToolOutput:
        found = await activities.list(context.principal, status=arguments.get("status"), limit=arguments.get("limit", 20))
        shown = [_shape(activity) for activity in found]
        return output("\n".join(map(_show, shown)) or "There are no such activities.", {"activities": shown})

    async def update_activity(context: ToolContext, arguments: Mapping[str, Any]) -> ToolOutput:
        changes = {name: value for name, value in arguments.items() if name != "id"}
        shown = _shape(await activities.update(context.principal, arguments["id"], changes))
        return output(f"The activity is now: {_show(shown)}", {"activity": shown})

    return [BuiltinTool(_LIST, "activities.read", list_activities), BuiltinTool(_UPDATE, "activities.write", update_activity)]


def _shape(activity: Activity) -> dict[str, Any]:
    """An activity; JSON of the app's own is text here, because it is cut."""
    given = {
        "locked_by": activity.locked_by,
        "error_message": activity.error_message,
        "result": show_json(activity.result) if activity.result is not None else None,
    }
    return {
        "id": str(activity.id),
        "status": activity.status,
        "created_at": format_time(activity.created_at),
        "raw_data": show_json(activity.raw_data),
        **{name: value for name, value in given.items() if value is not None},
    }


def _show(activity: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in activity.items())
