"""What a run tells as it goes, in the order in which it happens. The last step of a run that succeeds is its Answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

BlockType = Literal["toolUse", "files", "image", "json", "text"]


@dataclass(frozen=True, slots=True)
class Thought:
    """What the model reasons, or what is being done with a tool: a sentence for people."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next piece of what the model says, for those who asked for pieces; the Answer repeats the whole of the last turn."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Block:
    """Rich content: a tool that was used, files that were written, an image, JSON data."""

    data_type: BlockType
    data: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing happened for a while, but the run goes on: keep the client's connection warm."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent says in the end. ``message_count`` is that of the session, this answer included."""

    run_id: UUID
    session_id: UUID
    text: str = field(repr=False)
    thoughts: tuple[str, ...] = field(repr=False)
    blocks: tuple[Block, ...] = field(repr=False)
    message_count: int
    provider: str
    model: str


Step = Thought | Chunk | Block | Silence | Answer
