/**
 * Every method of one release of the official JavaScript SDK, called against a running server: `node scenario.mjs MODULE SOURCE…`.
 *
 * MODULE is the release, unchanged; the SOURCEs (declarations or TypeScript) tell which methods are private, which JavaScript does not know.
 * A place and a verdict are what they are in scenario.py, whose scenarios these are, in the words of this client.
 */

import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTcpServer } from "node:net";
import { pathToFileURL } from "node:url";

const [modulePath, ...sourcePaths] = process.argv.slice(2);
const library = await import(pathToFileURL(modulePath));
const place = JSON.parse(readFileSync(0, "utf-8"));

const FUNCTIONS = "functions";
const POLL_MS = 100;
const LIMIT_MS = 10_000;
const MISSING = "01900000-0000-7000-8000-000000000000";
const EVERYTHING = (
  "activities.read activities.write agent.chat api.agents api.contracts api.task api.threads api.workspaces llm.chat llm.embed" +
  " llm.providers mcp.servers mcp.tools stt.listen tts.generate vectors.read vectors.write webhook.trigger"
).split(" ");
const HELLO = [{ role: "system", content: "You are a parrot." }, { role: "user", content: "Hello, parrot!" }];
const TEXTS = ["The tomcat sleeps on the sofa.", "Our invoices are due in May.", "Ferns need little light."];

// What the reference calls optional, and this server does not have. Each method is called all the same: it is told so in a sentence.
const NOT_SERVED = {
  database: "the configuration of a Supabase project; there is none here",
  credentials: "credentials that people keep in the desktop program",
  acpAgent: "coding agents of other vendors (ACP) that the desktop program runs",
  v1: "the Developer API of the desktop program, which is not part of Local Apps",
  desktopBrowser: "the browser of the desktop program (v1)",
  desktopRuntimeSessions: "the terminals of the desktop program (v1)",
};

const called = new Set();
const plans = new Map();

// --- which methods there are

/** The private and protected members of each class, as the sources have them. */
const hidden = new Map();
for (const path of sourcePaths) {
  const code = readFileSync(path, "utf-8").replace(/\/\*[^]*?\*\/|\/\/.*$/gm, "");
  const [, ...classes] = code.split(/^(?:export )?(?:declare )?(?:abstract )?class (?=\w)/m);
  for (const text of classes) {
    const found = text.matchAll(/\b(?:private|protected) (?:readonly |static |async |\*|get )*(\w+)/g);
    hidden.set(/^\w+/.exec(text)[0], new Set(Array.from(found, (match) => match[1])));
  }
}

/** The private members of a class; a bundler may have put a stroke before its name or a number behind it. */
const hiddenOf = (prototype) => hidden.get(prototype.constructor?.name?.replace(/^_+|\d+$/g, ""));

const isOfTheSdk = (value) => value !== null && typeof value === "object" && hiddenOf(value) !== undefined;

/** The names of all public methods that can be reached from an object of the SDK. */
function publicMethods(target, prefix = "") {
  const names = new Set();
  for (let layer = Object.getPrototypeOf(target); layer !== Object.prototype; layer = Object.getPrototypeOf(layer)) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(layer))) {
      const isHidden = name === "constructor" || name.startsWith("_") || hiddenOf(layer).has(name);
      if (typeof value === "function" && !isHidden) names.add(prefix + name);
    }
  }
  for (const [name, value] of Object.entries(target)) {
    if (isOfTheSdk(value) && !name.startsWith("_") && !hiddenOf(target).has(name)) {
      for (const each of publicMethods(value, `${prefix}${name}.`)) names.add(each);
    }
  }
  return names;
}

/** An object of the SDK that notes which of its methods are called; everything else is the SDK's own. */
function watched(target, prefix = "") {
  return new Proxy(target, {
    get(object, name) {
      const value = object[name];
      if (typeof value === "function" && !/^class\b/.test(Function.prototype.toString.call(value))) {
        return (...values) => {
          called.add(prefix + name);
          return value.apply(object, values);
        };
      }
      return isOfTheSdk(value) ? watched(value, `${prefix}${name}.`) : value;
    },
  });
}

const functions = watched({ ...library }, `${FUNCTIONS}.`);
const exported = Object.keys(library).filter((name) => typeof library[name] === "function" && !/^class\b/.test(String(library[name])));
const everyMethod = publicMethods(new library.RealtimeXSDK({ realtimex: { url: place.url, appId: MISSING, apiKey: place.key } }));
exported.forEach((name) => everyMethod.add(`${FUNCTIONS}.${name}`));
const has = (...names) => names.every((name) => [...everyMethod].some((each) => each === name || (name.endsWith(".") && each.startsWith(name))));

// --- the people around it

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function admin(method, path, body, url = place.url, key = place.key) {
  const headers = { Authorization: `Bearer ${key}`, ...(body && { "Content-Type": "application/json" }) };
  const answer = await fetch(`${url}/admin/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
  const text = await answer.text();
  assert(answer.ok, `${method} ${path}: ${text}`);
  return text ? JSON.parse(text) : {};
}

async function register(granted = [], { name = "App", ...manifest } = {}) {
  const { id } = await admin("POST", "/apps", { name, ...manifest });
  for (const permission of granted) await admin("PUT", `/apps/${id}/grants/${permission}`, { state: "granted" });
  return id;
}

async function grantsOf(appId) {
  const { items } = await admin("GET", `/apps/${appId}/grants`);
  return Object.fromEntries(items.map((grant) => [grant.permission, grant.state]));
}

/** Who is asked for permissions, and decides as planned as soon as an app asks. */
async function decide(isOver) {
  for (; !isOver(); await sleep(POLL_MS)) {
    if (plans.size === 0) continue;
    const { items } = await admin("GET", "/permission-requests?state=pending&limit=200");
    for (const request of items) {
      const decision = plans.get(request.app_id);
      if (decision) await admin("POST", `/permission-requests/${request.id}/decision`, { decision });
    }
  }
}

const sdk = ({ url = place.url, appId, appName, apiKey, ...config } = {}) =>
  watched(new library.RealtimeXSDK({ realtimex: { url, appId, appName, apiKey }, ...config }));
const developer = (config) => sdk({ apiKey: place.key, ...config });
const bare = () => sdk({ url: place.bare_url, apiKey: place.bare_key });
const newApp = async (granted, manifest) => sdk({ appId: await register(granted, manifest), appName: manifest?.name ?? "App" });

// --- small things

const script = (...steps) => `script: ${JSON.stringify(steps)}`;
const sha256 = (text) => createHash("sha256").update(text).digest("hex");
const told = (words) => (error) => {
  assert.match(error.message, words);
  return true;
};
const denied = (permission) => (error) => {
  assert.deepEqual([error.constructor.name, error.permission], ["PermissionDeniedError", permission]);
  return true;
};

async function all(stream) {
  const found = [];
  for await (const each of stream) found.push(each);
  return found;
}

async function first(stream) {
  for await (const each of stream) return each;
}

async function statusOf(app, taskId, ...statuses) {
  for (const limit = Date.now() + LIMIT_MS; ; await sleep(POLL_MS)) {
    const task = await app.api.getTask(taskId);
    if (statuses.includes(task.status)) return task;
    assert(Date.now() < limit, `still ${task.status}`);
  }
}

/** How long a WAV file plays: its data has two bytes a sample. */
function durationS(buffer) {
  const view = Buffer.from(buffer);
  assert.equal(view.toString("latin1", 0, 4), "RIFF");
  return view.readUInt32LE(40) / 2 / view.readUInt32LE(24);
}

/** An app that may do everything. */
const everythingApp = await newApp(EVERYTHING);

const scenarios = [];
const scenario = (name, needs, run) => has(...needs) && scenarios.push([name, run]);

// --- connection, registration

scenario("an app and a developer connect", [], async () => {
  const app = everythingApp;
  const pong = await app.ping();
  assert.deepEqual([pong.success, pong.mode, pong.appId], [true, "production", app.appId]);
  const alone = await developer().ping();
  assert.deepEqual([alone.mode, "appId" in alone], ["development", false]);
  assert.equal((await developer({ appId: app.appId }).ping()).appId, app.appId);
  await assert.rejects(sdk({ appId: "nobody" }).ping(), told(/Connection failed: Invalid app ID: nobody/));
  await assert.rejects(sdk().ping(), told(/Connection failed: Missing required header: x-app-id/));
  await assert.rejects(sdk({ apiKey: `${place.key}x` }).ping(), told(/Connection failed: The API key is not valid/));
});

scenario("each caller has a directory", [], async () => {
  const app = everythingApp;
  const own = await app.getAppDataDir();
  assert(own.startsWith(place.data_dir));
  assert.equal(statSync(own).mode & 0o777, 0o700);
  assert.notEqual(await developer().getAppDataDir(), own);
  await assert.rejects(sdk({ appId: "nobody" }).getAppDataDir(), told(/Failed to get app data directory: Invalid app ID/));
});

scenario("an app registers and a person decides", [], async () => {
  const declared = ["llm.chat", "api.agents"];
  const appId = await register([], { permissions: declared });
  plans.set(appId, "granted");
  const careful = sdk({ appId, appName: "Careful" });
  await careful.register(declared);
  plans.delete(appId);
  assert.deepEqual(await grantsOf(appId), { "api.agents": "granted", "llm.chat": "granted" });
  await assert.rejects(sdk({ appId: MISSING }).register(declared), told(/Failed to register app: App not found/));
  // An app that says in its configuration what it needs registers as it is made.
  const other = await register();
  plans.set(other, "denied");
  sdk({ appId: other, permissions: ["tts.generate"] });
  for (const limit = Date.now() + LIMIT_MS; (await grantsOf(other))["tts.generate"] !== "denied"; await sleep(POLL_MS)) assert(Date.now() < limit);
  plans.delete(other);
});

scenario("a manifest decides where that is the policy", [], async () => {
  const { id: appId } = await admin("POST", "/apps", { name: "Declared", permissions: ["api.agents"] }, place.bare_url, place.bare_key);
  const declared = sdk({ url: place.bare_url, appId });
  await declared.register(["api.agents", "activities.read"]);
  assert.deepEqual((await declared.api.getAgents()).map((agent) => agent.slug), ["@agent"]);
  await assert.rejects(declared.activities.list(), denied("activities.read"));
});

// --- agents, workspaces, threads, activities

scenario("agents, workspaces and threads are listed", [], async () => {
  const app = everythingApp;
  for (const module of ["api", "mcp", "stt"].filter((name) => has(`${name}.`)).map((name) => app[name])) {
    const scripted = (await module.getAgents()).find((agent) => agent.slug === "scripted");
    assert.deepEqual([scripted.name, scripted.display_name, "description" in scripted], ["scripted", "Scripted", true]);
    const workspace = (await module.getWorkspaces()).find((each) => each.slug === "default");
    assert(["id", "name", "type", "created_at"].every((name) => name in workspace));
    const threads = await module.getThreads("default");
    assert(["id", "slug", "name", "created_at"].every((name) => name in threads[0]));
    await assert.rejects(module.getThreads("no/where"), told(/workspace not found/i));
    const { task_uuid: taskId } = await app.webhook.triggerAgent({ raw_data: { n: 1 } });
    const task = await module.getTask(taskId);
    assert.deepEqual([task.uuid, task.status, task.action_type, task.runs], [taskId, "pending", "SDK_TRIGGER", []]);
    await assert.rejects(module.getTask(MISSING), told(/There is no such task/));
  }
});

scenario("activities are kept, listed, changed and deleted", [], async () => {
  const app = await newApp(["activities.read", "activities.write"]);
  const content = { n: 1, text: "größer 🦜", nested: { list: [1, 2.5, null, true] } };
  const one = await app.activities.insert(content);
  assert.deepEqual([one.status, one.raw_data], ["pending", content]);
  const two = await app.activities.insert({ n: 2 });
  assert.deepEqual(await app.activities.get(one.id), one);
  const ids = async (options) => (await app.activities.list(options)).map((each) => each.id);
  assert.deepEqual(await ids(), [two.id, one.id]);
  assert.deepEqual(await ids({ limit: 1, offset: 1 }), [one.id]);
  const changed = await app.activities.update(one.id, { status: "completed", result: { ok: true } });
  assert.deepEqual([changed.status, changed.result, changed.raw_data], ["completed", { ok: true }, content]);
  assert.deepEqual(await ids({ status: "completed" }), [one.id]);
  assert.equal(await everythingApp.activities.get(one.id), null);
  assert.equal(await app.activities.delete(one.id), undefined);
  assert.equal(await app.activities.get(one.id), null);
  await assert.rejects(app.activities.update(MISSING, { status: "completed" }), told(/not found/));
  await assert.rejects(app.activities.delete(MISSING), told(/not found/));
});

// --- tasks

scenario("the webhook answers to everybody", [], async () => {
  const pong = await sdk({ appName: "Stranger" }).webhook.ping();
  assert.deepEqual([pong.success, pong.app_name, pong.message], [true, "Stranger", "pong"]);
});

scenario("an agent is triggered and does the task", [], async () => {
  const app = await newApp(["webhook.trigger", "api.task"], { name: "Order Desk" });
  const order = { raw_data: { order: 7 }, auto_run: true, agent_name: "scripted", workspace_slug: "default", thread_slug: "create_new" };
  const answer = await app.webhook.triggerAgent({ ...order, prompt: script({ say: "Shipped." }) });
  assert.deepEqual([answer.success, answer.auto_run, answer.message], [true, true, "Agent triggered"]);
  const task = await statusOf(app, answer.task_uuid, "completed", "failed");
  assert.deepEqual([task.status, task.error, task.result?.text], ["completed", null, "Shipped."]);
  assert(task.title.startsWith("[Order Desk] "));
  assert.deepEqual(task.runs.map((run) => [run.agent_name, run.workspace_slug, run.status]), [["scripted", "default", "completed"]]);
  await assert.rejects(app.webhook.triggerAgent({ raw_data: {}, auto_run: true }), told(/auto_run requires/));
  await assert.rejects(app.webhook.triggerAgent({ ...order, agent_name: "nobody" }), told(/nobody/));
});

scenario("a program reports on a task", [], async () => {
  let done;
  for (const caller of [everythingApp, developer()]) {
    const [one, two] = await Promise.all([1, 2].map(() => caller.webhook.triggerAgent({ raw_data: { type: "order" } })));
    done = one.task_uuid;
    const started = await caller.task.start(done, "m-1");
    assert.deepEqual([started.success, started.task_uuid, started.status], [true, done, "processing"]);
    assert.equal((await caller.task.complete(done, { summary: "größer" }, "m-1")).status, "completed");
    const task = await caller.api.getTask(done);
    assert.deepEqual([task.status, task.result], ["completed", { summary: "größer" }]);
    await caller.task.start(two.task_uuid);
    assert.equal((await caller.task.fail(two.task_uuid, "Connection timeout")).status, "failed");
    assert.equal((await caller.api.getTask(two.task_uuid)).error, "Connection timeout");
    await assert.rejects(caller.task.start(done), told(/is completed, and cannot become/));
    await assert.rejects(caller.task.complete(MISSING), told(/There is no such task/));
  }
  await assert.rejects((await newApp()).task.start(done), told(/PERMISSION_REQUIRED/));
});

scenario("newer clients claim, tell how far they are and cancel", ["task.progress"], async () => {
  const app = everythingApp;
  const [one, two] = (await Promise.all([1, 2].map(() => app.webhook.triggerAgent({ raw_data: {}, attempt_id: 1 })))).map((it) => it.task_uuid);
  const claimed = await app.task.claim(one, { machineId: "m-1", attemptId: 1 });
  assert.deepEqual([claimed.status, claimed.event_type, claimed.attempt_id], ["claimed", "task.claimed", "run-1"]);
  await app.task.start(one, { machineId: "m-1" });
  const progress = { percent: 40, message: "Hälfte" };
  assert.equal((await app.task.progress(one, progress, { machineId: "m-1" })).status, "processing");
  assert.deepEqual((await app.api.getTask(one)).progress, progress);
  assert.equal((await app.task.claimed(two, { machineId: "m-2" })).status, "claimed");
  assert.equal((await app.task.cancel(two, "not needed")).status, "canceled");
  assert.equal((await app.api.getTask(two)).error, "not needed");
  const event_id = `once-${one}`;
  const once = await app.webhook.triggerAgent({ raw_data: {}, event_id });
  assert.deepEqual(await app.webhook.triggerAgent({ raw_data: {}, event_id }), { ...once, deduplicated: true });
});

scenario("a signed report is taken and a forged one is not", ["task.configureContract"], async () => {
  const app = everythingApp;
  app.task.configureContract({ callbackSecret: place.secret, signCallbacksByDefault: true });
  const { task_uuid: taskId } = await app.webhook.triggerAgent({ raw_data: {} });
  assert.equal((await app.task.claim(taskId, { attemptId: "4" })).status, "claimed");
  const stranger = sdk();
  const signed = { callbackSecret: place.secret, sign: true };
  // Numbers are written as JavaScript writes them, keys in an order that is not the alphabet's.
  const numbers = [1.5, 1e-5, 0.00001234, 1e-6, 9.9e-7, 5e-324, 1e16, 123456789012345680000, 1e21, 1.7976931348623157e308, -0, -1e-5, 2 ** 53];
  for (const data of [{ z: 1, a: [null, "ü\u2028\u007f"] }, ...numbers.map((number) => ({ number })), { 2: "b", 1: "a", deep: [{ numbers }] }]) {
    assert.equal((await stranger.task.progress(taskId, data, signed)).status, "processing", JSON.stringify(data));
  }
  await assert.rejects(app.task.complete(taskId, {}, { callbackSecret: "guessed" }), told(/signature of this event is wrong/));
  await assert.rejects(stranger.task.complete(taskId, {}, { sign: false }), told(/Missing required header: x-app-id/));
  const received = {};
  const target = createServer(async (request, response) => {
    Object.assign(received, JSON.parse(Buffer.concat(await all(request)).toString()));
    response.setHeader("Connection", "close").end("{}");
  });
  await new Promise((resolve) => target.listen(0, "127.0.0.1", resolve));
  await app.task.complete(taskId, { n: 1 }, { callbackUrl: `http://127.0.0.1:${target.address().port}/`, userEmail: "a@example.com" });
  target.close();
  assert.deepEqual([received.action, received.data, received.user_email], ["complete", { result: { n: 1 } }, "a@example.com"]);
  assert.equal((await app.task.complete(taskId, { z: 1, a: 2 })).status, "completed");
});

// --- the contract

scenario("the contract is what the functions of the SDK say", ["contract.getLocalAppV1"], async () => {
  const app = everythingApp;
  const contract = await app.contract.getLocalAppV1();
  assert.equal(contract.version, library.LOCAL_APP_CONTRACT_VERSION);
  assert.equal(contract.callback.event_id_header, library.CONTRACT_EVENT_ID_HEADER);
  assert.equal(contract.callback.signature_header, library.CONTRACT_SIGNATURE_HEADER);
  for (const [alias, event] of Object.entries(contract.aliases)) assert.equal(functions.normalizeContractEvent(alias.toUpperCase()), event);
  for (const event of contract.supported_events) {
    assert.equal(functions.canonicalEventToLegacyAction(event), contract.legacy_action_map[event]);
  }
  assert.equal(app.contract.getCachedCatalogHash(), contract.catalog_hash);
  const capabilities = await app.contract.listCapabilities(true);
  assert.deepEqual(capabilities, contract.capabilities);
  const scripted = capabilities.find((each) => each.capability_id === "agent.scripted");
  for (const found of [await app.contract.searchCapabilities("SCRIPTED"), await app.contract.search("SCRIPTED")]) assert.deepEqual(found, [scripted]);
  for (const found of [await app.contract.describeCapability("agent.scripted"), await app.contract.describe("agent.scripted")]) {
    assert.deepEqual(found, scripted);
  }
  await assert.rejects(app.contract.describe("agent.nobody"), told(/nobody/));
  app.contract.clearCache();
  assert.equal(app.contract.getCachedCatalogHash(), null);
  const answer = await app.contract.invoke({
    capability_id: "agent.scripted",
    args: { n: 1 },
    auto_run: true,
    agent_name: "scripted",
    workspace_slug: "default",
    prompt: script({ say: "Here." }),
  });
  assert.equal((await statusOf(app, answer.task_uuid, "completed", "failed")).result.text, "Here.");
});

scenario("what is signed is what the reference says", ["functions.signContractEvent"], async () => {
  assert.deepEqual([3, "3", " "].map((attempt) => functions.normalizeAttemptId(attempt)), ["run-3", "run-3", undefined]);
  assert.deepEqual(["run-3", "x"].map((attempt) => functions.parseAttemptRunId(attempt)), [3, null]);
  const eventId = functions.createContractEventId();
  assert.match(eventId, /^[0-9a-f-]{36}$/);
  const payload = { b: "ü", a: 1 };
  const hash = sha256('{"b":"ü","a":1}');
  assert.equal(functions.hashContractPayload(payload), hash);
  const signed = { eventId, eventType: "start", taskId: MISSING, attemptId: 3, timestamp: "2026-01-01T00:00:00Z", payload };
  const message = `${eventId}.task.started.${MISSING}.run-3.2026-01-01T00:00:00Z.${hash}`;
  assert.equal(functions.buildContractSignatureMessage(signed), message);
  assert.equal(functions.signContractEvent({ ...signed, secret: "s" }), `sha256=${createHmac("sha256", "s").update(message).digest("hex")}`);
  assert.equal(functions.buildContractIdempotencyKey(signed), `${MISSING}:task.started:event:${sha256(eventId)}`);
});

scenario("a contract is read and projected in another way", ["functions.normalizeLocalAppContractV1"], async () => {
  const contract = await everythingApp.contract.getLocalAppV1();
  const normalized = functions.normalizeLocalAppContractV1({ success: true, contract });
  assert.deepEqual(normalized.supported_contract_events, contract.supported_events);
  assert.deepEqual(normalized.callback, contract.callback);
  assert.deepEqual(normalized.capabilities.map((each) => each.capability_id), contract.capabilities.map((each) => each.capability_id));
  const { input_schema: schema } = contract.capabilities[0];
  assert.deepEqual(functions.normalizeSchema(schema), schema, "a schema that is complete");
  assert.equal(functions.toStableToolName("agent.at.agent", "Order desk"), "order_desk_agent_at_agent");
});

scenario("a model's tool calls become tasks", ["contractRuntime."], async () => {
  const app = everythingApp;
  const runtime = app.contractRuntime;
  assert.equal((await runtime.getContract(app.appId)).contract_version, library.LOCAL_APP_CONTRACT_VERSION);
  const tools = await runtime.getTools({ appId: app.appId, provider: "claude" });
  const tool = tools.find((each) => each.capability_id === "agent.scripted");
  assert.match(tool.tool_name, /scripted/);
  const events = [];
  const stop = runtime.onExecutionEvent((event) => events.push(event));
  const context = { appId: app.appId, userId: "u", provider: "claude" };
  const args = Object.fromEntries((tool.input_schema.required ?? []).map((name) => [name, script({ say: "Called." })]));
  const result = await runtime.executeToolCall({ tool_call_id: `call-${app.appId}`, tool_name: tool.tool_name, args }, context);
  assert.deepEqual([result.status, result.error], ["queued", undefined]);
  assert((await app.api.getTask(result.task_id)).uuid === result.task_id);
  const again = await runtime.executeToolCall({ tool_call_id: `call-${app.appId}`, tool_name: tool.tool_name, args }, context);
  assert.equal(again.task_id, result.task_id, "a tool call that is sent again is the same task");
  const unknown = await runtime.executeToolCall({ tool_call_id: "x", tool_name: "nothing", args: {} }, context);
  assert.deepEqual([unknown.status, unknown.error.retryable], ["failed", false]);
  const started = runtime.ingestExecutionEvent({ event: "task-start", task_id: result.task_id });
  assert.deepEqual([started.event_type, events.at(-1)], ["task.started", started]);
  stop();
  runtime.clearCache();
  assert.equal(runtime.ingestExecutionEvent({ event: "system.ping" }), null);
});

// --- the signed-in user

scenario("a user token is handed over", ["auth.getAccessToken"], async () => {
  const app = await newApp(["activities.write", "agent.chat"], { requires_user: true });
  assert.equal(await app.auth.getAccessToken(), null);
  await assert.rejects(app.activities.insert({}), told(/user/i));
  const synced = await app.auth.syncSupabaseToken("a.user.token");
  assert.deepEqual([synced.success, synced.hasToken], [true, true]);
  const kept = await app.auth.getAccessToken();
  assert.deepEqual([kept.token, kept.hasToken, kept.syncedAt], ["a.user.token", true, synced.syncedAt]);
  assert.deepEqual((await app.activities.insert({ n: 1 })).raw_data, { n: 1 });
  // From now on the agent module sends that token as Authorization, beside the id of the app.
  const session = await app.agent.createSession({ agent_name: "scripted" });
  assert.equal(session.agent.name, "scripted");
  await app.agent.closeSession(session.session_id);
});

// --- agents

scenario("a conversation with an agent", ["agent.createSession"], async () => {
  for (const caller of [everythingApp, developer(), developer({ appId: everythingApp.appId })]) {
    const session = await caller.agent.createSession({ agent_name: "scripted", workspace_slug: "default" });
    assert.deepEqual([session.workspace.slug, session.agent.name, session.agent.model], ["default", "scripted", "script"]);
    const answer = await caller.agent.chat(session.session_id, script({ say: "Hello." }));
    assert.deepEqual([answer.session_id, answer.text, answer.message_count], [session.session_id, "Hello.", 2]);
    const events = await all(caller.agent.streamChat(session.session_id, script({ think: "Hm.", say: "Done." })));
    assert.deepEqual(events.map((event) => event.type).filter((type) => type !== "agentThought"), ["textResponse"]);
    assert.equal(events.find((event) => event.type === "textResponse").data.textResponse, "Done.");
    assert(events.some((event) => event.type === "agentThought"));
    const info = await caller.agent.getSession(session.session_id);
    assert.deepEqual([info.session_id, info.message_count, typeof info.last_message_at], [session.session_id, 4, "string"]);
    assert.equal(await caller.agent.closeSession(session.session_id), undefined);
    await assert.rejects(caller.agent.getSession(session.session_id), told(/There is no such session/));
    await assert.rejects(caller.agent.chat(session.session_id, "Hello?"), told(/There is no such session/));
    await assert.rejects(first(caller.agent.streamChat(session.session_id, "Hello?")), told(/There is no such session/));
  }
  const app = everythingApp;
  const { session, response } = await app.agent.startChat(script({ say: "At once." }), { agent_name: "scripted" });
  assert.deepEqual([response.session_id, response.text], [session.session_id, "At once."]);
  await assert.rejects(app.agent.createSession({ agent_name: "nobody" }), told(/nobody/));
  // This module has no handling of permissions: it tells the constant.
  await assert.rejects((await newApp()).agent.createSession(), told(/PERMISSION_REQUIRED/));
});

// --- models, vectors

scenario("a model is asked whole and in pieces", [], async () => {
  const app = everythingApp;
  const options = { model: "echo", temperature: 1, max_tokens: 50, response_format: { type: "json_object" } };
  const { success, response } = await app.llm.chat(HELLO, options);
  assert.deepEqual([success, response.model, response.provider], [true, "echo", "openai"]);
  assert.match(response.content, /Hello, parrot!/);
  assert.equal(response.metrics.total_tokens, response.metrics.prompt_tokens + response.metrics.completion_tokens);
  const chunks = await all(app.llm.chatStream(HELLO, { model: "long-20" }));
  assert.equal(chunks.map((chunk) => chunk.textResponse).join(""), Array.from({ length: 20 }, (_, i) => `token${i} `).join(""));
  assert.deepEqual(chunks.map((chunk) => chunk.close), [...Array(chunks.length - 1).fill(false), true]);
  assert.equal(new Set(chunks.map((chunk) => chunk.uuid)).size, 1);
});

scenario("a model that fails is told in the words of the SDK", [], async () => {
  const app = everythingApp;
  await assert.rejects(app.llm.chat(HELLO, { model: "no-such-model" }), told(/no-such-model/));
  await assert.rejects(app.llm.chat(HELLO, { provider: "nobody" }), told(/nobody/));
  await assert.rejects(app.llm.chat(HELLO, { model: "503" }), told(/^The model provider 'openai' has trouble \(status 503\)/));
  await assert.rejects(first(app.llm.chatStream(HELLO, { model: "no-such-model" })), told(/no-such-model/));
  await assert.rejects(app.llm.chat(HELLO, { model: "die" }), (error) => error.constructor.name === "LLMProviderError");
  const stream = app.llm.chatStream(HELLO, { model: "die" });
  assert.equal((await stream.next()).value.textResponse, "Once");
  await assert.rejects(stream.next(), (error) => error.code === "LLM_STREAM_ERROR");
});

scenario("without a provider the SDK is told what to do", [], async () => {
  const alone = bare();
  await assert.rejects(alone.llm.chat(HELLO), told(/model|provider/i));
  await assert.rejects(first(alone.llm.chatStream(HELLO)), told(/model|provider/i));
  assert.deepEqual((await alone.llm.chatProviders()).providers, []);
  assert.deepEqual((await alone.llm.embedProviders()).providers.map((each) => each.provider), ["native"]);
  assert.equal((await alone.llm.embed("Hello")).dimensions, 384);
});

scenario("providers are listed", [], async () => {
  const app = everythingApp;
  const chat = await app.llm.chatProviders();
  assert.deepEqual([chat.success, chat.providers.map((each) => each.provider)], [true, ["openai"]]);
  assert(chat.providers[0].models.some((model) => model.id === "echo"));
  const embed = await app.llm.embedProviders();
  assert.deepEqual(embed.providers.map((each) => [each.provider, each.models.map((model) => model.id)]), [
    ["native", ["all-MiniLM-L6-v2"]],
    ["openai", ["text-embedding-3-small"]],
  ]);
});

scenario("texts are embedded, stored and found", [], async () => {
  const app = everythingApp;
  const answer = await app.llm.embed(["A dog barks.", "A hound is barking."]);
  assert.deepEqual([answer.success, answer.provider, answer.model, answer.dimensions], [true, "native", "all-MiniLM-L6-v2", 384]);
  assert(answer.embeddings[0].reduce((sum, value, i) => sum + value * answer.embeddings[1][i], 0) > 0.7);
  await assert.rejects(app.llm.embed("Hello", { provider: "openai", model: "no-such-model" }), told(/no-such-model/));
  const stored = await app.llm.embedAndStore({ texts: TEXTS, documentId: "d", workspaceId: "kb", idPrefix: "t" });
  assert.deepEqual([stored.success, stored.upserted, stored.namespace], [true, 3, `sdk_${app.appId}_kb`]);
  const [found] = await app.llm.search("Which plant needs light?", { topK: 1, workspaceId: "kb", filter: { documentId: "d" } });
  assert.deepEqual([found.id, found.metadata.text, found.metadata.documentId], ["t_2", TEXTS[2], "d"]);
});

scenario("vectors are kept in workspaces", [], async () => {
  const { vectors } = (await newApp(["vectors.read", "vectors.write"])).llm;
  const records = [{ id: "a", vector: [1, 0], metadata: { documentId: "d1" } }, { id: "b", vector: [0, 1] }];
  const stored = await vectors.upsert(records, { workspaceId: "ws1" });
  assert.deepEqual([stored.success, stored.upserted], [true, 2]);
  const found = await vectors.query([2, 1], { workspaceId: "ws1" });
  assert.deepEqual(found.results.map((each) => [each.id, each.score.toFixed(4)]), [["a", "0.8944"], ["b", "0.4472"]]);
  assert.deepEqual((await vectors.query([2, 1], { filter: { workspaceId: "ws1", documentId: "d1" } })).results.map((each) => each.id), ["a"]);
  await assert.rejects(vectors.upsert([{ id: "c", vector: [1] }], { workspaceId: "ws1" }), told(/2 dimensions, and this has 1/));
  assert.deepEqual((await vectors.listWorkspaces()).workspaces, ["ws1"]);
  assert.deepEqual((await vectors.delete({ deleteAll: true, workspaceId: "ws1" })).deleted, 2);
  assert.deepEqual((await vectors.query([2, 1], { workspaceId: "ws1" })).results, []);
});

scenario("a database of one's own is tried before it is used", [], async () => {
  const { vectors } = everythingApp.llm;
  assert.deepEqual((await vectors.listProviders()).providers.map((each) => [each.name, each.fields.length]), [["homeport", 0], ["pgvector", 2]]);
  const config = { databaseUrl: "postgresql://user:secret@localhost:9/x", tableName: "t" };
  await assert.rejects(vectors.registerConfig("pgvector", config), told(/HOMEPORT_PRIVATE_HOSTS/));
  assert.equal((await vectors.getConfig()).provider, "homeport");
  assert.equal((await vectors.registerConfig("homeport", {})).message, "Vector configuration registered successfully.");
});

// --- speech

scenario("a text is spoken whole and in pieces", [], async () => {
  const app = everythingApp;
  const usual = durationS(await app.tts.speak("Hello world!"));
  const everything = { voice: "en-gb", model: "any", speed: 2, provider: "espeak", language: "en", num_inference_steps: 5 };
  const quick = durationS(await app.tts.speak("Hello world!", everything));
  assert(quick > 0.2 && quick < usual && usual < 3, `${quick} ${usual}`);
  const chunks = await all(app.tts.speakStream("This is one. This is two!", { voice: "default", speed: 1 }));
  assert.deepEqual(chunks.map((chunk) => [chunk.index, chunk.total, chunk.mimeType]), [[0, 2, "audio/wav"], [1, 2, "audio/wav"]]);
  assert(chunks.every((chunk) => durationS(chunk.audio) > 0.3));
  const providers = await app.tts.listProviders();
  assert(providers.some((each) => each.id === "espeak" && each.configured));
  await assert.rejects(app.tts.speak("Hello.", { voice: "nonsense-qq" }), told(/'espeak' has no voice 'nonsense-qq'/));
  await assert.rejects(first(app.tts.speakStream("Hello.", { voice: "nonsense-qq" })), told(/'espeak' has no voice 'nonsense-qq'/));
});

scenario("recognisers are listed and the microphone is listened to", ["stt.listen"], async () => {
  const app = everythingApp;
  const [provider] = await app.stt.listProviders();
  assert("id" in provider && "name" in provider.models[0]);
  if (place.has_microphone) {
    const heard = await app.stt.listen({ timeout: 200 });
    assert.deepEqual([heard.success, heard.text], [true, ""]);
  }
  await assert.rejects(bare().stt.listen({ timeout: 200 }), told(/STT listen failed: No microphone can be used/));
});

// --- tools

scenario("tools are listed and executed", ["mcp.executeTool"], async () => {
  const { mcp } = everythingApp;
  const server = place.mcp_server;
  const listed = (await mcp.getServers()).find((each) => each.name === server);
  assert.deepEqual([listed.server_type, listed.provider, listed.enabled], ["stdio", "local", true]);
  assert(!(await mcp.getServers("remote")).some((each) => each.name === server));
  const echo = (await mcp.getTools(server)).find((each) => each.name === "echo");
  assert.deepEqual(echo.input_schema.required, ["text"]);
  assert.deepEqual((await mcp.executeTool(server, "files/read", { text: "ä/b" })).content, [{ type: "text", text: "ä/b" }]);
  assert.equal((await mcp.executeTool(server, "fail")).isError, true);
  await assert.rejects(mcp.executeTool(server, "nothing"), told(/has no tool 'nothing'/));
  await assert.rejects(mcp.getTools("nothing"), told(/There is no MCP server 'nothing'/));
});

// --- what needs no server, and what is not served

scenario("a free port is found", [], async () => {
  const taken = createTcpServer();
  await new Promise((resolve) => taken.listen(0, "127.0.0.1", resolve));
  const number = taken.address().port;
  process.env.RTX_PORT = String(number);
  const { port } = sdk();
  assert.equal(port.getSuggestedPort(), number);
  assert.equal(await port.isPortAvailable(number), false);
  const free = await port.findAvailablePort(number);
  assert(free > number && free <= number + 100);
  assert((await port.getPort()) > number);
  delete process.env.RTX_PORT;
  assert.equal(sdk({ defaultPort: number }).port.getSuggestedPort(), number);
  taken.close();
});

scenario("what is not served is told in a sentence", ["v1."], async () => {
  const caller = developer();
  for (const name of [...everyMethod].filter((each) => each.split(".")[0] in NOT_SERVED)) {
    const path = name.split(".");
    const method = path.pop();
    const owner = path.reduce((object, part) => object[part], caller);
    const code = String(Object.getPrototypeOf(owner)[method]);
    const call = async () => {
      const result = owner[method]("x", code.includes("requestMultipart") ? new FormData() : {}, {});
      const answer = await (result.next ? first(result) : result);
      // The streams of v1 come as they are: fetch's own answer.
      assert(code.includes("requestRaw"), `${name} has answered`);
      throw new Error((await answer.json()).error);
    };
    await assert.rejects(call, told(/^There is no operation at \/.+; \/docs lists them all\.$/));
  }
});

// --- permissions: asked for, granted, denied, remembered

/** [method, permission, call, what has to come back, how a remembered denial looks: an error with the permission, or the words of another]. */
const RAISED = null;
const TOLD = /PERMISSION_DENIED|denied/;
const GATED = [
  ["api.getAgents", "api.agents", (app) => app.api.getAgents(), (it) => it[0].slug, RAISED],
  ["api.getWorkspaces", "api.workspaces", (app) => app.api.getWorkspaces(), (it) => it[0].slug, RAISED],
  ["api.getThreads", "api.threads", (app) => app.api.getThreads("default"), (it) => it[0].slug, RAISED],
  ["api.getTask", "api.task", (app, own) => app.api.getTask(own.task), (it) => it.status === "pending", RAISED],
  ["activities.insert", "activities.write", (app) => app.activities.insert({ n: 2 }), (it) => it.raw_data.n === 2, RAISED],
  ["activities.update", "activities.write", (app, own) => app.activities.update(own.id, { status: "x" }), (it) => it.status === "x", RAISED],
  ["activities.get", "activities.read", (app, own) => app.activities.get(own.id), (it) => it.raw_data.n === 1, RAISED],
  ["activities.list", "activities.read", (app) => app.activities.list(), (it) => it.length === 1, RAISED],
  ["webhook.triggerAgent", "webhook.trigger", (app) => app.webhook.triggerAgent({ raw_data: {} }), (it) => it.task_uuid, RAISED],
  ["llm.chat", "llm.chat", (app) => app.llm.chat(HELLO), (it) => it.response.content, TOLD],
  ["llm.chatStream", "llm.chat", (app) => first(app.llm.chatStream(HELLO)), (it) => it.textResponse, TOLD],
  ["llm.embed", "llm.embed", (app) => app.llm.embed("Hi"), (it) => it.dimensions === 384, TOLD],
  ["llm.chatProviders", "llm.providers", (app) => app.llm.chatProviders(), (it) => it.providers.length, TOLD],
  ["llm.embedProviders", "llm.providers", (app) => app.llm.embedProviders(), (it) => it.providers.length, TOLD],
  ["llm.vectors.upsert", "vectors.write", (app) => app.llm.vectors.upsert([{ id: "a", vector: [1] }]), (it) => it.upserted === 1, TOLD],
  ["llm.vectors.query", "vectors.read", (app) => app.llm.vectors.query([1]), (it) => it.success, TOLD],
  ["llm.vectors.delete", "vectors.write", (app) => app.llm.vectors.delete({ deleteAll: true }), (it) => it.success, TOLD],
  ["llm.vectors.listWorkspaces", "vectors.read", (app) => app.llm.vectors.listWorkspaces(), (it) => it.success, TOLD],
  ["llm.vectors.getConfig", "vectors.read", (app) => app.llm.vectors.getConfig(), (it) => it.provider === "homeport", TOLD],
  ["llm.vectors.registerConfig", "vectors.write", (app) => app.llm.vectors.registerConfig("homeport", {}), (it) => it.success, TOLD],
  ["tts.speak", "tts.generate", (app) => app.tts.speak("Hi."), (it) => durationS(it) > 0.1, TOLD],
  ["tts.speakStream", "tts.generate", (app) => first(app.tts.speakStream("Hi.")), (it) => it.total === 1, TOLD],
  ["mcp.getServers", "mcp.servers", (app) => app.mcp.getServers(), (it) => it[0].name, RAISED],
  ["mcp.getTools", "mcp.tools", (app) => app.mcp.getTools(place.mcp_server), (it) => it[0].name, RAISED],
  ["mcp.executeTool", "mcp.tools", (app) => app.mcp.executeTool(place.mcp_server, "structured"), (it) => it.structuredContent, RAISED],
  ["contract.getLocalAppV1", "api.contracts", (app) => app.contract.getLocalAppV1(true), (it) => it.capabilities, RAISED],
  ["contract.listCapabilities", "api.contracts", (app) => app.contract.listCapabilities(true), (it) => it.length, RAISED],
  ["contract.search", "api.contracts", (app) => app.contract.search("agent"), (it) => it.length, RAISED],
  ["contract.describe", "api.contracts", (app) => app.contract.describe("agent.scripted"), (it) => it.name, RAISED],
  ["contract.invoke", "webhook.trigger", (app) => app.contract.invoke({ capability_id: "agent.scripted" }), (it) => it.task_uuid, RAISED],
];

async function ask([method, permission, call, isRight, remembered]) {
  const app = await newApp();
  const { appId } = app;
  const owner = developer({ appId });
  const own = {};
  if (method.startsWith("activities.")) own.id = (await owner.activities.insert({ n: 1 })).id;
  if (method === "api.getTask") own.task = (await owner.webhook.triggerAgent({ raw_data: {} })).task_uuid;

  plans.set(appId, "granted");
  assert(isRight(await call(app, own)));

  await admin("DELETE", `/apps/${appId}/grants/${permission}`);
  plans.set(appId, "denied");
  await assert.rejects(call(app, own), denied(permission));
  assert.deepEqual(await grantsOf(appId), { [permission]: "denied" });

  plans.delete(appId);
  await assert.rejects(call(app, own), remembered === RAISED ? denied(permission) : told(remembered));
}

scenario("every call that needs a permission asks for it", [], async () => {
  await Promise.all(
    GATED.filter(([method]) => has(method)).map((gated) =>
      ask(gated).catch((error) => {
        throw new Error(`${gated[0]}: ${error.stack}`);
      }),
    ),
  );
});

scenario("listening is asked for too", ["stt.listen"], async () => {
  const app = await newApp();
  plans.set(app.appId, "denied");
  await assert.rejects(app.stt.listen({ timeout: 200 }), told(/STT listen failed/));
  assert.deepEqual(await grantsOf(app.appId), { "stt.listen": "denied" });
});

// --- the run

const failures = {};
let isOver = false;
const deciding = decide(() => isOver);
for (const [name, run] of scenarios) {
  try {
    await run();
  } catch (error) {
    failures[name] = `${name}: ${error.stack}`.slice(0, 4000);
  }
}
isOver = true;
await deciding;
writeFileSync(
  place.verdict,
  JSON.stringify({
    version: JSON.parse(readFileSync(new URL("../package.json", pathToFileURL(modulePath)), "utf-8")).version,
    file: modulePath,
    public: [...everyMethod].sort(),
    called: [...called].sort(),
    not_served: NOT_SERVED,
    failures,
  }),
);
process.exit();
