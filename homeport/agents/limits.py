"""What an agent may take: every run ends, whatever its model and its tools do."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one run, which is what an agent does to answer one message.

    ``turns`` is how often the model may be asked, the last time without tools, so that it answers with what it has. ``tokens`` counts
    prompts and answers of all turns. ``time_s`` is wall time without the waits for people, ``tool_time_s`` bounds one tool call and
    ``approval_s`` one wait for a person. A tool's result is cut to ``result_chars``; ``answer_tokens`` bounds each answer of the model (None:
    the model decides).
    """

    turns: int = 16
    tokens: int = 200_000
    time_s: float = 600.0
    tool_time_s: float = 60.0
    approval_s: float = 600.0
    result_chars: int = 20_000
    answer_tokens: int | None = None
