"""The tools that agents can be given without any MCP server. Each works strictly on behalf of the principal, with what is its owner's."""

from collections.abc import Sequence

from adapters.outbound import Outbound
from homeport.activities import Activities
from homeport.agents.builtin.activities import activity_tools
from homeport.agents.builtin.files import file_tools
from homeport.agents.builtin.vectors import vector_tools
from homeport.agents.builtin.web import web_tools
from homeport.apps import Apps
from homeport.models import Models
from homeport.tools import BuiltinTool
from homeport.vectors import Vectors

__all__ = ["builtin_tools"]


def builtin_tools(vectors: Vectors, models: Models, activities: Activities, apps: Apps, outbound: Outbound) -> Sequence[BuiltinTool]:
    """All of them, to be offered by the registry."""
    return [*vector_tools(vectors, models), *file_tools(apps), *activity_tools(activities), *web_tools(outbound)]
