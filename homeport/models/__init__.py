"""Models: which providers are configured, and chatting with them."""

from adapters.chat import ChatResult, ChatStream, Delta, Finish, Silence, StreamEvent, Usage
from homeport.models.models import Models
from homeport.models.providers import Model, Provider, ProviderTest

__all__ = [
    "ChatResult",
    "ChatStream",
    "Delta",
    "Finish",
    "Model",
    "Models",
    "Provider",
    "ProviderTest",
    "Silence",
    "StreamEvent",
    "Usage",
]
