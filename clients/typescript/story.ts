// Twelve things that an app does with Homeport, with the types that openapi-typescript generates from its document, and openapi-fetch.
//
// HOMEPORT_URL says where the server is, RTX_APP_ID who asks: an app that was granted all that it needs but api.workspaces.

import { strict as assert } from "node:assert";
import createClient from "openapi-fetch";
import type { components, paths } from "./homeport.js";

type Schemas = components["schemas"];

const TEXTS = ["Beetroots go out in April.", "The bicycle needs a new chain."];
const SENTENCE = "Can you help me find my keys?";
const TIMEOUT_MS = 60_000;

const client = createClient<paths>({
  baseUrl: setting("HOMEPORT_URL"),
  headers: { "X-App-Id": setting("RTX_APP_ID") },
  fetch: (request) => fetch(request, { signal: AbortSignal.timeout(TIMEOUT_MS) }),
});

function setting(name: string): string {
  const value = process.env[name];
  assert(value, `${name} is not set`);
  return value;
}

function ok(step: string, said: string): void {
  console.log(`ok ${step}: ${said}`);
}

/** What a call answered; an error that was answered instead is thrown. */
function expect<Data>(answer: { data?: Data; error?: unknown; response: Response }): Data {
  if (answer.data === undefined) {
    throw new Error(`${answer.response.status}: ${JSON.stringify(answer.error)}`);
  }
  return answer.data;
}

/** Say hello. */
async function ping(): Promise<void> {
  const pong = expect(await client.GET("/sdk/ping"));
  assert.deepEqual([pong.message, pong.mode], ["pong", "production"]);
  ok("ping", `${pong.message} at ${pong.timestamp}`);
}

/** Keep a piece of work, read it, and finish it. */
async function activity(): Promise<void> {
  const made = expect(await client.POST("/activities", { body: { raw_data: { type: "order", amount: 100 } } })).data;
  const params = { path: { id: made.id } };
  const read = expect(await client.GET("/activities/{id}", { params })).data;
  assert.deepEqual([read.status, read.raw_data["amount"], read.result], ["pending", 100, null]);
  const done = expect(await client.PATCH("/activities/{id}", { params, body: { status: "completed" } })).data;
  assert.deepEqual([done.id, done.status, done.created_at], [made.id, "completed", made.created_at]);
  ok("activity", `${done.id} is ${done.status}`);
}

/** Ask a model, and wait for the whole answer. */
async function chat(): Promise<void> {
  const { response } = expect(await client.POST("/sdk/llm/chat", { body: { messages: [{ role: "user", content: "Say hello." }] } }));
  assert.match(response.content, /hello/);
  ok("chat", `${response.provider}/${response.model}: ${response.content}`);
}

/** Ask a model, and read its answer piece by piece. */
async function stream(): Promise<void> {
  const pieces: string[] = [];
  for await (const piece of piecesOf({ messages: [{ role: "user", content: "Say hello." }] })) {
    pieces.push(piece.textResponse);
  }
  assert.match(pieces.join(""), /hello/);
  assert(pieces.length > 1);
  ok("stream", `${pieces.length} pieces: ${pieces.join("")}`);
}

/** The pieces of a streamed answer. openapi-fetch hands over the stream; it has nothing that reads Server-Sent Events, so that is done here. */
async function* piecesOf(body: Schemas["ChatRequest"]): AsyncGenerator<Schemas["ChatStreamChunk"]> {
  const frames = expect(await client.POST("/sdk/llm/chat/stream", { body, parseAs: "stream" }));
  assert(frames);
  let rest = "";
  for await (const text of frames.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "data: [DONE]") {
        return;
      }
      if (line.startsWith("data:")) {
        const data: Schemas["ChatStreamChunk"] | Schemas["LocalAppsError"] = JSON.parse(line.slice("data:".length));
        if ("success" in data) {
          throw new Error(data.error);
        }
        yield data;
      }
    }
  }
  throw new Error("the stream ended without [DONE]");
}

/** Turn texts into vectors. */
async function embed(): Promise<number[][]> {
  const { embeddings, dimensions, provider, model } = expect(await client.POST("/sdk/llm/embed", { body: { input: TEXTS } }));
  assert.deepEqual(embeddings.map((each) => each.length), TEXTS.map(() => dimensions));
  ok("embed", `${embeddings.length} vectors of ${dimensions} numbers by ${provider}/${model}`);
  return embeddings;
}

/** Store the vectors with their texts. */
async function upsert(embeddings: number[][]): Promise<void> {
  const vectors = embeddings.map((vector, number) => ({ id: `note-${number}`, vector, metadata: { text: TEXTS[number] } }));
  const { upserted } = expect(await client.POST("/sdk/llm/vectors/upsert", { body: { vectors, workspaceId: "notes-typescript" } }));
  assert.equal(upserted, TEXTS.length);
  ok("upsert", `${upserted} vectors`);
}

/** Find the text that answers a question. */
async function query(): Promise<void> {
  const body = { text: "When do I plant vegetables?", topK: 1, workspaceId: "notes-typescript" };
  const [match] = expect(await client.POST("/sdk/llm/vectors/query", { body })).results;
  assert.deepEqual([match?.id, match?.metadata["text"]], ["note-0", TEXTS[0]]);
  ok("query", `${match?.metadata["text"]} (${match?.score.toFixed(2)})`);
}

/** Have a sentence spoken. */
async function speak(): Promise<Buffer> {
  const body: Schemas["SpeechRequest"] = { text: SENTENCE, voice: "en-us+klatt4", speed: 1.15, format: "wav" };
  const sound = Buffer.from(expect(await client.POST("/sdk/tts", { body, parseAs: "arrayBuffer" })));
  assert.deepEqual([sound.toString("latin1", 0, 4), sound.toString("latin1", 8, 12)], ["RIFF", "WAVE"]);
  ok("speak", `${sound.length} bytes of WAV`);
  return sound;
}

/** Have it written down again, as base64. */
async function transcribe(sound: Buffer): Promise<void> {
  const body = { audio: sound.toString("base64"), provider: "pocketsphinx" };
  const { text, duration } = expect(await client.POST("/sdk/stt/transcribe", { body }));
  assert.match(text.toLowerCase(), /help me/);
  ok("transcribe", `${text} (${duration.toFixed(1)} s)`);
}

/** Use a tool of an MCP server. */
async function tool(): Promise<void> {
  const { result } = expect(
    await client.POST("/sdk/mcp/servers/{server}/tools/{tool}/execute", {
      params: { path: { server: "time", tool: "get_current_time" } },
      body: { arguments: { timezone: "Europe/Berlin" } },
    }),
  );
  assert.equal(result.isError, false);
  ok("tool", String(result.content[0]?.["text"]));
}

/** Begin a conversation with an agent, and say something. */
async function agent(): Promise<void> {
  const { session } = expect(await client.POST("/sdk/agent/session", { body: {} }));
  assert.deepEqual([session.agent.name, session.thread], ["@agent", null]);
  const params = { path: { session_id: session.session_id } };
  const { response } = expect(await client.POST("/sdk/agent/session/{session_id}/chat", { params, body: { message: "Say hello." } }));
  assert.deepEqual([response.session_id, response.message_count], [session.session_id, 2]);
  assert.match(response.text, /hello/);
  ok("agent", response.text);
}

/** Hand over work, take it as the one who does it, and report what came of it. */
async function task(): Promise<void> {
  const send = async (event: string, payload: Schemas["WebhookPayload"]) =>
    expect(await client.POST("/webhooks/realtimex", { body: { event, payload } }));
  const made = await send("task.trigger", { raw_data: { order: 7 }, auto_run: false });
  assert(made.task_uuid);
  const about = { task_uuid: made.task_uuid, machine_id: "story" };
  const states = [made.status];
  states.push((await send("task.claimed", about)).status);
  states.push((await send("task.started", about)).status);
  states.push((await send("task.completed", { ...about, result: { summary: "shipped" } })).status);
  assert.deepEqual(states, ["pending", "claimed", "processing", "completed"]);
  const done = expect(await client.GET("/task/{uuid}", { params: { path: { uuid: made.task_uuid } } })).task;
  assert.deepEqual([done.uuid, done.status, done.error], [made.task_uuid, "completed", null]);
  assert.deepEqual(done.result, { summary: "shipped" });
  ok("task", states.join(" → "));
}

/** Ask for what was never granted: the answer is the error of the document, with its fields. */
async function refused(): Promise<void> {
  const { error, response } = await client.GET("/workspaces");
  assert.equal(response.status, 403);
  assert.deepEqual([error?.code, error?.permission], ["PERMISSION_REQUIRED", "api.workspaces"]);
  ok("refused", `${error?.code} ${error?.permission}`);
}

await ping();
await activity();
await chat();
await stream();
await upsert(await embed());
await query();
await transcribe(await speak());
await tool();
await agent();
await task();
await refused();
