import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import homeport.ApiClient;
import homeport.ApiException;
import homeport.api.ActivitiesApi;
import homeport.api.AgentsApi;
import homeport.api.ConnectionApi;
import homeport.api.ModelsApi;
import homeport.api.SpeechApi;
import homeport.api.TasksApi;
import homeport.api.ToolsApi;
import homeport.api.VectorsApi;
import homeport.api.WorkspacesApi;
import homeport.model.Activity;
import homeport.model.ActivityChanges;
import homeport.model.ActivityDraft;
import homeport.model.AgentAnswer;
import homeport.model.AgentMessageDraft;
import homeport.model.AgentSession;
import homeport.model.AgentSessionDraft;
import homeport.model.ChatMessage;
import homeport.model.ChatRequest;
import homeport.model.ChatResponse;
import homeport.model.ChatStreamChunk;
import homeport.model.EmbeddingRequest;
import homeport.model.EmbeddingResult;
import homeport.model.LocalAppsError;
import homeport.model.Ping;
import homeport.model.SpeechRequest;
import homeport.model.Task;
import homeport.model.TaskState;
import homeport.model.ToolExecution;
import homeport.model.ToolResult;
import homeport.model.Transcription;
import homeport.model.VectorMatch;
import homeport.model.VectorQuery;
import homeport.model.VectorRecord;
import homeport.model.VectorUpsert;
import homeport.model.WebhookEvent;
import homeport.model.WebhookPayload;
import homeport.model.WebhookResult;
import java.io.File;
import java.io.IOException;
import java.math.BigDecimal;
import java.net.URI;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/**
 * Twelve things that an app does with Homeport, with the client that OpenAPI Generator makes from its document.
 *
 * <p>HOMEPORT_URL says where the server is, RTX_APP_ID who asks: an app that was granted all that it needs but api.workspaces.
 */
public final class Story {
    private static final List<String> TEXTS = List.of("Beetroots go out in April.", "The bicycle needs a new chain.");
    private static final String SENTENCE = "Can you help me find my keys?";
    private static final Duration TIMEOUT = Duration.ofMinutes(1);

    private final String url = System.getenv("HOMEPORT_URL");
    private final String appId = System.getenv("RTX_APP_ID");
    private final ApiClient client = new ApiClient();

    private Story() {
        client.updateBaseUri(url);
        client.setReadTimeout(TIMEOUT);
        client.setRequestInterceptor(request -> request.header("X-App-Id", appId));
    }

    public static void main(String[] arguments) throws Exception {
        Story story = new Story();
        story.ping();
        story.activity();
        story.chat();
        story.stream();
        story.upsert(story.embed());
        story.query();
        story.transcribe(story.speak());
        story.tool();
        story.agent();
        story.task();
        story.refused();
    }

    private static void ok(String step, String format, Object... values) {
        System.out.println("ok " + step + ": " + String.format(format, values));
    }

    /** Stops when something is not as it has to be. */
    private static void expect(Object got, Object wanted) {
        if (!wanted.equals(got)) {
            throw new IllegalStateException("got " + got + " instead of " + wanted);
        }
    }

    private static ChatRequest hello() {
        ChatMessage message = new ChatMessage().role(ChatMessage.RoleEnum.USER).content("Say hello.");
        return new ChatRequest().addMessagesItem(message);
    }

    /** Say hello. */
    private void ping() throws ApiException {
        Ping pong = new ConnectionApi(client).sdkPing();
        expect(pong.getMode(), Ping.ModeEnum.PRODUCTION);
        ok("ping", "%s at %s", pong.getMessage(), pong.getTimestamp());
    }

    /** Keep a piece of work, read it, and finish it. */
    private void activity() throws ApiException {
        ActivitiesApi activities = new ActivitiesApi(client);
        Activity made = activities.activitiesCreateActivity(new ActivityDraft().rawData(Map.of("type", "order", "amount", 100))).getData();
        Activity read = activities.activitiesGetActivity(made.getId()).getData();
        expect(Arrays.asList(read.getStatus(), read.getRawData().get("amount"), read.getResult()), Arrays.asList("pending", 100, null));
        Activity done = activities.activitiesUpdateActivity(made.getId(), new ActivityChanges().status("completed")).getData();
        expect(List.of(done.getId(), done.getStatus(), done.getCreatedAt()), List.of(made.getId(), "completed", made.getCreatedAt()));
        ok("activity", "%s is %s", done.getId(), done.getStatus());
    }

    /** Ask a model, and wait for the whole answer. */
    private void chat() throws ApiException {
        ChatResponse response = new ModelsApi(client).llmCreateChat(hello()).getResponse();
        expect(response.getContent().contains("hello"), true);
        ok("chat", "%s/%s: %s", response.getProvider(), response.getModel(), response.getContent());
    }

    /**
     * Ask a model, and read its answer piece by piece. The generated method returns when the stream has ended, so the request is made by hand;
     * what is sent and what comes are generated types.
     */
    private void stream() throws IOException, InterruptedException {
        ObjectMapper mapper = client.getObjectMapper();
        HttpRequest request = HttpRequest.newBuilder(URI.create(url + "/sdk/llm/chat/stream"))
                .header("Content-Type", "application/json")
                .header("X-App-Id", appId)
                .timeout(TIMEOUT)
                .POST(HttpRequest.BodyPublishers.ofByteArray(mapper.writeValueAsBytes(hello())))
                .build();
        HttpResponse<Stream<String>> response = client.getHttpClient().send(request, HttpResponse.BodyHandlers.ofLines());
        expect(response.statusCode(), 200);
        List<String> data = new ArrayList<>();
        try (Stream<String> lines = response.body()) {
            lines.filter(line -> line.startsWith("data:")).map(line -> line.substring("data:".length()).strip()).forEach(data::add);
        }
        expect(data.remove(data.size() - 1), "[DONE]");
        StringBuilder text = new StringBuilder();
        for (String each : data) {
            text.append(mapper.readValue(each, ChatStreamChunk.class).getTextResponse());
        }
        expect(data.size() > 1 && text.toString().contains("hello"), true);
        ok("stream", "%d pieces: %s", data.size(), text);
    }

    /** Turn texts into vectors. */
    private List<List<BigDecimal>> embed() throws ApiException {
        EmbeddingResult result = new ModelsApi(client).llmCreateEmbedding(new EmbeddingRequest().input(TEXTS));
        expect(result.getEmbeddings().stream().map(List::size).toList(), List.of(result.getDimensions(), result.getDimensions()));
        ok("embed", "%d vectors of %d numbers by %s/%s", TEXTS.size(), result.getDimensions(), result.getProvider(), result.getModel());
        return result.getEmbeddings();
    }

    /** Store the vectors with their texts. */
    private void upsert(List<List<BigDecimal>> vectors) throws ApiException {
        VectorUpsert body = new VectorUpsert().workspaceId("notes-java");
        for (int number = 0; number < vectors.size(); number++) {
            Map<String, Object> metadata = Map.of("text", TEXTS.get(number));
            body.addVectorsItem(new VectorRecord().id("note-" + number).vector(vectors.get(number)).metadata(metadata));
        }
        expect(new VectorsApi(client).vectorsUpsertVectors(body).getUpserted(), TEXTS.size());
        ok("upsert", "%d vectors", TEXTS.size());
    }

    /** Find the text that answers a question. */
    private void query() throws ApiException {
        VectorQuery body = new VectorQuery().text("When do I plant vegetables?").topK(1).workspaceId("notes-java");
        List<VectorMatch> found = new VectorsApi(client).vectorsQueryVectors(body).getResults();
        expect(found.size(), 1);
        expect(List.of(found.get(0).getId(), found.get(0).getMetadata().get("text")), List.of("note-0", TEXTS.get(0)));
        ok("query", "%s (%.2f)", found.get(0).getMetadata().get("text"), found.get(0).getScore());
    }

    /** Have a sentence spoken; the answer is a temporary file. */
    private File speak() throws ApiException, IOException {
        SpeechRequest body = new SpeechRequest()
                .text(SENTENCE)
                .voice("en-us+klatt4")
                .speed(new BigDecimal("1.15"))
                .format(SpeechRequest.FormatEnum.WAV);
        File file = new SpeechApi(client).ttsCreateSpeech(body);
        String beginning = new String(Files.readAllBytes(file.toPath()), 0, 12, StandardCharsets.ISO_8859_1);
        expect(beginning.substring(0, 4) + beginning.substring(8), "RIFFWAVE");
        ok("speak", "%d bytes of WAV", file.length());
        return file;
    }

    /** Have it written down again, as a file of a form. */
    private void transcribe(File sound) throws ApiException, IOException {
        Transcription result = new SpeechApi(client).sttTranscribeAudio(sound, "pocketsphinx", null, null);
        Files.delete(sound.toPath());
        expect(result.getText().toLowerCase().contains("help me"), true);
        ok("transcribe", "%s (%.1f s)", result.getText(), result.getDuration());
    }

    /** Use a tool of an MCP server. */
    private void tool() throws ApiException {
        ToolExecution body = new ToolExecution().arguments(Map.of("timezone", "Europe/Berlin"));
        ToolResult result = new ToolsApi(client).mcpExecuteTool("time", "get_current_time", body, null).getResult();
        expect(result.getIsError(), false);
        ok("tool", "%s", result.getContent().get(0).get("text"));
    }

    /** Begin a conversation with an agent, and say something. */
    private void agent() throws ApiException {
        AgentsApi agents = new AgentsApi(client);
        AgentSession session = agents.agentSessionsCreateSession(new AgentSessionDraft()).getSession();
        expect(Arrays.asList(session.getAgent().getName(), session.getThread()), Arrays.asList("@agent", null));
        AgentMessageDraft message = new AgentMessageDraft().message("Say hello.");
        AgentAnswer answer = agents.agentSessionsSendMessage(session.getSessionId().toString(), message).getResponse();
        expect(List.of(answer.getSessionId(), answer.getMessageCount()), List.of(session.getSessionId(), 2));
        expect(answer.getText().contains("hello"), true);
        ok("agent", "%s", answer.getText());
    }

    /** Hand over work, take it as the one who does it, and report what came of it. */
    private void task() throws ApiException {
        TasksApi tasks = new TasksApi(client);
        WebhookPayload work = new WebhookPayload().rawData(Map.of("order", 7)).autoRun(false);
        WebhookResult made = tasks.webhooksReceiveEvent(new WebhookEvent().event("task.trigger").payload(work), null, null);
        String name = made.getTaskUuid().toString();
        List<TaskState> states = new ArrayList<>(List.of(made.getStatus()));
        for (String event : List.of("task.claimed", "task.started", "task.completed")) {
            WebhookPayload report = new WebhookPayload().taskUuid(name).machineId("story");
            if (event.equals("task.completed")) {
                report.putResultItem("summary", "shipped");
            }
            states.add(tasks.webhooksReceiveEvent(new WebhookEvent().event(event).payload(report), null, null).getStatus());
        }
        expect(states, List.of(TaskState.PENDING, TaskState.CLAIMED, TaskState.PROCESSING, TaskState.COMPLETED));
        Task done = tasks.tasksGetTask(name).getTask();
        expect(Arrays.asList(done.getUuid().toString(), done.getStatus(), done.getError()), Arrays.asList(name, TaskState.COMPLETED, null));
        expect(done.getResult(), Map.of("summary", "shipped"));
        ok("task", "%s", states);
    }

    /** Ask for what was never granted. The client throws the error with its body, which is the error of the document. */
    private void refused() throws JsonProcessingException {
        try {
            new WorkspacesApi(client).workspacesListWorkspaces();
        } catch (ApiException refusal) {
            LocalAppsError problem = client.getObjectMapper().readValue(refusal.getResponseBody(), LocalAppsError.class);
            expect(List.of(refusal.getCode(), problem.getCode(), problem.getPermission()), List.of(403, "PERMISSION_REQUIRED", "api.workspaces"));
            ok("refused", "%s %s", problem.getCode(), problem.getPermission());
            return;
        }
        throw new IllegalStateException("it was not refused");
    }
}
