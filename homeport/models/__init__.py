"""Models: which providers are configured, chatting with them, embeddings and speech."""

from adapters.chat import ChatResult, ChatStream, ContextTooLong, Delta, Finish, Silence, StreamEvent, ToolCall, ToolChoice, ToolSpec, Usage
from adapters.embedding import EmbeddingResult
from adapters.model_catalog import Role
from adapters.speech import SpeechResult
from homeport.models.limits import Limits
from homeport.models.models import Models
from homeport.models.providers import Model, Provider, ProviderTest
from homeport.models.registry import RegisteredProvider
from homeport.models.routes import Target, parse_target
from homeport.models.speech import Speaker
from homeport.models.usage_report import GroupBy, UsageNumbers, UsageReport, UsageRow

__all__ = [
    "ChatResult",
    "ChatStream",
    "ContextTooLong",
    "Delta",
    "EmbeddingResult",
    "Finish",
    "GroupBy",
    "Limits",
    "Model",
    "Models",
    "Provider",
    "ProviderTest",
    "RegisteredProvider",
    "Role",
    "Silence",
    "Speaker",
    "SpeechResult",
    "StreamEvent",
    "Target",
    "ToolCall",
    "ToolChoice",
    "ToolSpec",
    "Usage",
    "UsageNumbers",
    "UsageReport",
    "UsageRow",
    "parse_target",
]
