"""The permission that stands for one tool: what an app asks a person for where a rule says ``ask``."""

import hashlib
import re

TOOLS_PERMISSION = "mcp.tools"

# Both segments and what is before them fit into the name of a permission, whose length is bounded.
MAX_KEPT_LENGTH = 35
_HASH_LENGTH = 8
_SEGMENT = re.compile(r"[a-z0-9][a-z0-9_-]*")
_CLEANED = re.compile(rf".*-[0-9a-f]{{{_HASH_LENGTH}}}")


def tool_permission(server: str, tool: str) -> str:
    """The permission for a tool of a server: ``mcp.tools.<server>.<tool>``."""
    return f"{TOOLS_PERMISSION}.{segment(server)}.{segment(tool)}"


def segment(name: str) -> str:
    """``name`` as a part of a permission's name. One that can be a part stays as it is; any other is cleaned, and eight digits of its
    hash keep it apart from what is cleaned to the same. A name that looks like a cleaned one is cleaned, too: it must not be taken for it.
    """
    if len(name) <= MAX_KEPT_LENGTH and _SEGMENT.fullmatch(name) and not _CLEANED.fullmatch(name):
        return name
    kept = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")[:MAX_KEPT_LENGTH].rstrip("-_") or "x"
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{kept}-{digest[:_HASH_LENGTH]}"
