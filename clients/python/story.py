"""Twelve things that an app does with Homeport, with the client that openapi-python-client generates from its document.

``HOMEPORT_URL`` says where the server is, ``RTX_APP_ID`` who asks: an app that was granted all that it needs but ``api.workspaces``.
"""

import json
import os
from collections.abc import Iterator
from io import BytesIO
from typing import TypeVar

import httpx
from homeport_client import AuthenticatedClient
from homeport_client.api.activities import (
    local_apps_activities_create_activity,
    local_apps_activities_get_activity,
    local_apps_activities_update_activity,
)
from homeport_client.api.agents import local_apps_agent_sessions_create_session, local_apps_agent_sessions_send_message
from homeport_client.api.connection import local_apps_sdk_ping
from homeport_client.api.models import local_apps_llm_create_chat, local_apps_llm_create_embedding, local_apps_llm_stream_chat
from homeport_client.api.speech import local_apps_stt_transcribe_audio, local_apps_tts_create_speech
from homeport_client.api.tasks import local_apps_tasks_get_task, local_apps_webhooks_receive_event
from homeport_client.api.tools import local_apps_mcp_execute_tool
from homeport_client.api.vectors import local_apps_vectors_query_vectors, local_apps_vectors_upsert_vectors
from homeport_client.api.workspaces import local_apps_workspaces_list_workspaces
from homeport_client.models.activity_changes import ActivityChanges
from homeport_client.models.activity_draft import ActivityDraft
from homeport_client.models.activity_draft_raw_data import ActivityDraftRawData
from homeport_client.models.activity_result import ActivityResult
from homeport_client.models.agent_answer_result import AgentAnswerResult
from homeport_client.models.agent_message_draft import AgentMessageDraft
from homeport_client.models.agent_session_draft import AgentSessionDraft
from homeport_client.models.agent_session_result import AgentSessionResult
from homeport_client.models.chat_message import ChatMessage
from homeport_client.models.chat_request import ChatRequest
from homeport_client.models.chat_result import ChatResult
from homeport_client.models.chat_stream_chunk import ChatStreamChunk
from homeport_client.models.embedding_request import EmbeddingRequest
from homeport_client.models.embedding_result import EmbeddingResult
from homeport_client.models.local_apps_error import LocalAppsError
from homeport_client.models.ping import Ping
from homeport_client.models.reported_result import ReportedResult
from homeport_client.models.speech_request import SpeechRequest
from homeport_client.models.task_data import TaskData
from homeport_client.models.task_outcome import TaskOutcome
from homeport_client.models.task_result import TaskResult
from homeport_client.models.tool_execution import ToolExecution
from homeport_client.models.tool_execution_arguments_type_0 import ToolExecutionArgumentsType0
from homeport_client.models.tool_execution_result import ToolExecutionResult
from homeport_client.models.transcription import Transcription
from homeport_client.models.transcription_form import TranscriptionForm
from homeport_client.models.vector_matches import VectorMatches
from homeport_client.models.vector_metadata import VectorMetadata
from homeport_client.models.vector_query import VectorQuery
from homeport_client.models.vector_record import VectorRecord
from homeport_client.models.vector_upsert import VectorUpsert
from homeport_client.models.vector_upsert_result import VectorUpsertResult
from homeport_client.models.webhook_event import WebhookEvent
from homeport_client.models.webhook_payload import WebhookPayload
from homeport_client.models.webhook_result import WebhookResult
from homeport_client.types import File

TEXTS = ["Beetroots go out in April.", "The bicycle needs a new chain."]
SENTENCE = "Can you help me find my keys?"
TIMEOUT_S = 60.0

Answer = TypeVar("Answer")


def ok(step: str, said: object) -> None:
    """Tell that a step went well."""
    print(f"ok {step}: {said}", flush=True)


def expect(kind: type[Answer], answer: object) -> Answer:
    """The answer, which must be of this kind and not an error."""
    assert isinstance(answer, kind), answer
    return answer


def ping(client: AuthenticatedClient) -> None:
    """Say hello."""
    pong = expect(Ping, local_apps_sdk_ping.sync(client=client))
    assert (pong.message, pong.mode) == ("pong", "production")
    ok("ping", f"{pong.message} at {pong.timestamp.isoformat()}")


def activity(client: AuthenticatedClient) -> None:
    """Keep a piece of work, read it, and finish it."""
    draft = ActivityDraft(raw_data=ActivityDraftRawData.from_dict({"type": "order", "amount": 100}))
    made = expect(ActivityResult, local_apps_activities_create_activity.sync(client=client, body=draft)).data
    read = expect(ActivityResult, local_apps_activities_get_activity.sync(made.id, client=client)).data
    assert (read.status, read.raw_data["amount"], read.result) == ("pending", 100, None)
    changes = ActivityChanges(status="completed")
    done = expect(ActivityResult, local_apps_activities_update_activity.sync(made.id, client=client, body=changes)).data
    assert (done.id, done.status, done.created_at) == (made.id, "completed", made.created_at)
    ok("activity", f"{done.id} is {done.status}")


def chat(client: AuthenticatedClient) -> None:
    """Ask a model, and wait for the whole answer."""
    request = ChatRequest(messages=[ChatMessage(role="user", content="Say hello.")])
    response = expect(ChatResult, local_apps_llm_create_chat.sync(client=client, body=request)).response
    assert "hello" in response.content
    ok("chat", f"{response.provider}/{response.model}: {response.content}")


def stream(client: AuthenticatedClient) -> None:
    """Ask a model, and read its answer piece by piece.

    The generator makes the request and the pieces; it has nothing that reads Server-Sent Events, so the lines are read by hand.
    """
    request = ChatRequest(messages=[ChatMessage(role="user", content="Say hello.")])
    pieces = list(pieces_of(client, request))
    text = "".join(piece.text_response for piece in pieces)
    assert "hello" in text
    assert len(pieces) > 1
    ok("stream", f"{len(pieces)} pieces: {text}")


def pieces_of(client: AuthenticatedClient, request: ChatRequest) -> Iterator[ChatStreamChunk]:
    """The pieces of a streamed answer. Raises RuntimeError when it ends early."""
    with client.get_httpx_client().stream(**local_apps_llm_stream_chat._get_kwargs(body=request)) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line == "data: [DONE]":
                return
            if line.startswith("data:"):
                data = json.loads(line.removeprefix("data:"))
                if data.get("success") is False:
                    raise RuntimeError(LocalAppsError.from_dict(data).error)
                yield ChatStreamChunk.from_dict(data)
    raise RuntimeError("the stream ended without [DONE]")


def embed(client: AuthenticatedClient) -> list[list[float]]:
    """Turn texts into vectors."""
    result = expect(EmbeddingResult, local_apps_llm_create_embedding.sync(client=client, body=EmbeddingRequest(input_=TEXTS)))
    assert [len(each) for each in result.embeddings] == [result.dimensions] * len(TEXTS)
    ok("embed", f"{len(result.embeddings)} vectors of {result.dimensions} numbers by {result.provider}/{result.model}")
    return result.embeddings


def upsert(client: AuthenticatedClient, vectors: list[list[float]]) -> None:
    """Store the vectors with their texts."""
    records = [
        VectorRecord(id=f"note-{number}", vector=vector, metadata=VectorMetadata.from_dict({"text": text}))
        for number, (text, vector) in enumerate(zip(TEXTS, vectors, strict=True))
    ]
    body = VectorUpsert(vectors=records, workspace_id="notes-python")
    result = expect(VectorUpsertResult, local_apps_vectors_upsert_vectors.sync(client=client, body=body))
    assert result.upserted == len(TEXTS)
    ok("upsert", f"{result.upserted} vectors")


def query(client: AuthenticatedClient) -> None:
    """Find the text that answers a question."""
    body = VectorQuery(text="When do I plant vegetables?", top_k=1, workspace_id="notes-python")
    (match,) = expect(VectorMatches, local_apps_vectors_query_vectors.sync(client=client, body=body)).results
    assert (match.id, match.metadata["text"]) == ("note-0", TEXTS[0])
    ok("query", f"{match.metadata['text']} ({match.score:.2f})")


def speak(client: AuthenticatedClient) -> bytes:
    """Have a sentence spoken."""
    body = SpeechRequest(text=SENTENCE, voice="en-us+klatt4", speed=1.15, format_="wav")
    sound = expect(File, local_apps_tts_create_speech.sync(client=client, body=body)).payload.read()
    assert (sound[:4], sound[8:12]) == (b"RIFF", b"WAVE")
    ok("speak", f"{len(sound)} bytes of WAV")
    return sound


def transcribe(client: AuthenticatedClient, sound: bytes) -> None:
    """Have it written down again, as a file of a form."""
    form = TranscriptionForm(audio=File(BytesIO(sound), "sentence.wav", "audio/wav"), provider="pocketsphinx")
    result = expect(Transcription, local_apps_stt_transcribe_audio.sync(client=client, body=form))
    assert "help me" in result.text.lower()
    ok("transcribe", f"{result.text} ({result.duration:.1f} s)")


def tool(client: AuthenticatedClient) -> None:
    """Use a tool of an MCP server."""
    body = ToolExecution(arguments=ToolExecutionArgumentsType0.from_dict({"timezone": "Europe/Berlin"}))
    answer = expect(ToolExecutionResult, local_apps_mcp_execute_tool.sync("time", "get_current_time", client=client, body=body))
    assert not answer.result.is_error
    ok("tool", answer.result.content[0]["text"])


def agent(client: AuthenticatedClient) -> None:
    """Begin a conversation with an agent, and say something."""
    made = expect(AgentSessionResult, local_apps_agent_sessions_create_session.sync(client=client, body=AgentSessionDraft())).session
    assert (made.agent.name, made.thread) == ("@agent", None)
    body = AgentMessageDraft(message="Say hello.")
    answer = expect(AgentAnswerResult, local_apps_agent_sessions_send_message.sync(str(made.session_id), client=client, body=body)).response
    assert (answer.session_id, answer.message_count) == (made.session_id, 2)
    assert "hello" in answer.text
    ok("agent", answer.text)


def task(client: AuthenticatedClient) -> None:
    """Hand over work, take it as the one who does it, and report what came of it."""

    def send(event: str, payload: WebhookPayload) -> WebhookResult:
        return expect(WebhookResult, local_apps_webhooks_receive_event.sync(client=client, body=WebhookEvent(event=event, payload=payload)))

    made = send("task.trigger", WebhookPayload(raw_data=TaskData.from_dict({"order": 7}), auto_run=False))
    name = str(made.task_uuid)
    states = [made.status]
    states.append(send("task.claimed", WebhookPayload(task_uuid=name, machine_id="story")).status)
    states.append(send("task.started", WebhookPayload(task_uuid=name, machine_id="story")).status)
    result = ReportedResult.from_dict({"summary": "shipped"})
    states.append(send("task.completed", WebhookPayload(task_uuid=name, machine_id="story", result=result)).status)
    assert states == ["pending", "claimed", "processing", "completed"]
    done = expect(TaskResult, local_apps_tasks_get_task.sync(name, client=client)).task
    assert (str(done.uuid), done.status, done.error) == (name, "completed", None)
    assert expect(TaskOutcome, done.result)["summary"] == "shipped"
    ok("task", " → ".join(str(state) for state in states))


def refused(client: AuthenticatedClient) -> None:
    """Ask for what was never granted: the answer is the error of the document, with its fields."""
    error = expect(LocalAppsError, local_apps_workspaces_list_workspaces.sync(client=client))
    assert (error.code, error.permission) == ("PERMISSION_REQUIRED", "api.workspaces")
    ok("refused", f"{error.code} {error.permission}")


def main() -> None:
    """Do all of it, in order."""
    url, app_id = os.environ["HOMEPORT_URL"], os.environ["RTX_APP_ID"]
    timeout = httpx.Timeout(TIMEOUT_S)
    with AuthenticatedClient(base_url=url, token=app_id, prefix="", auth_header_name="X-App-Id", timeout=timeout) as client:
        ping(client)
        activity(client)
        chat(client)
        stream(client)
        upsert(client, embed(client))
        query(client)
        transcribe(client, speak(client))
        tool(client)
        agent(client)
        task(client)
        refused(client)


if __name__ == "__main__":
    main()
