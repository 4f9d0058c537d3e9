// Twelve things that an app does with Homeport, with the client that OpenAPI Generator makes from its document.
//
// HOMEPORT_URL says where the server is, RTX_APP_ID who asks: an app that was granted all that it needs but api.workspaces.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"

	"example.com/story/homeport"
)

const (
	sentence = "Can you help me find my keys?"
	timeout  = time.Minute
)

var texts = []string{"Beetroots go out in April.", "The bicycle needs a new chain."}

// story holds what all steps use.
type story struct {
	ctx    context.Context
	client *homeport.APIClient
	url    string
	appID  string
}

func ok(step string, format string, values ...any) {
	fmt.Printf("ok %s: %s\n", step, fmt.Sprintf(format, values...))
}

// must stops when a call failed; what the server said is in the error.
func must[Result any](result Result, _ *http.Response, err error) Result {
	if err != nil {
		var refusal *homeport.GenericOpenAPIError
		if errors.As(err, &refusal) {
			err = fmt.Errorf("%w: %s", err, refusal.Body())
		}
		panic(err)
	}
	return result
}

// expect stops when something is not as it has to be.
func expect(got any, want any) {
	if !reflect.DeepEqual(got, want) {
		panic(fmt.Sprintf("got %v instead of %v", got, want))
	}
}

func expectHello(text string) {
	if !strings.Contains(text, "hello") {
		panic(fmt.Sprintf("no hello in %q", text))
	}
}

func helloRequest() homeport.ChatRequest {
	text := "Say hello."
	return *homeport.NewChatRequest([]homeport.ChatMessage{*homeport.NewChatMessage("user", homeport.ChatMessageContent{String: &text})})
}

// ping says hello.
func (s story) ping() {
	pong := must(s.client.ConnectionAPI.SdkPing(s.ctx).Execute())
	expect([]string{pong.Message, pong.Mode}, []string{"pong", "production"})
	ok("ping", "%s at %s", pong.Message, pong.Timestamp.Format(time.RFC3339))
}

// activity keeps a piece of work, reads it, and finishes it.
func (s story) activity() {
	draft := homeport.NewActivityDraft(map[string]any{"type": "order", "amount": 100})
	made := must(s.client.ActivitiesAPI.ActivitiesCreateActivity(s.ctx).ActivityDraft(*draft).Execute()).Data
	read := must(s.client.ActivitiesAPI.ActivitiesGetActivity(s.ctx, made.Id).Execute()).Data
	expect([]any{read.Status, read.RawData["amount"], read.Result == nil}, []any{"pending", 100.0, true})
	changes := homeport.NewActivityChanges()
	changes.SetStatus("completed")
	done := must(s.client.ActivitiesAPI.ActivitiesUpdateActivity(s.ctx, made.Id).ActivityChanges(*changes).Execute()).Data
	expect([]any{done.Id, done.Status, done.CreatedAt}, []any{made.Id, "completed", made.CreatedAt})
	ok("activity", "%s is %s", done.Id, done.Status)
}

// chat asks a model, and waits for the whole answer.
func (s story) chat() {
	response := must(s.client.ModelsAPI.LlmCreateChat(s.ctx).ChatRequest(helloRequest()).Execute()).Response
	expectHello(response.Content)
	ok("chat", "%s/%s: %s", response.Provider, response.Model, response.Content)
}

// stream asks a model, and reads its answer piece by piece. The generated method returns when the stream has ended, so the request is made by
// hand; what is sent and what comes are generated types.
func (s story) stream() {
	body, err := json.Marshal(helloRequest())
	expect(err, nil)
	request, err := http.NewRequestWithContext(s.ctx, http.MethodPost, s.url+"/sdk/llm/chat/stream", bytes.NewReader(body))
	expect(err, nil)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-App-Id", s.appID)
	response, err := s.client.GetConfig().HTTPClient.Do(request)
	expect(err, nil)
	defer response.Body.Close()
	expect(response.StatusCode, http.StatusOK)
	pieces, text, lines := 0, "", bufio.NewScanner(response.Body)
	for lines.Scan() && lines.Text() != "data: [DONE]" {
		if strings.HasPrefix(lines.Text(), "data:") {
			var piece homeport.ChatStreamChunk
			expect(json.Unmarshal([]byte(strings.TrimPrefix(lines.Text(), "data:")), &piece), nil)
			pieces, text = pieces+1, text+piece.TextResponse
		}
	}
	expect(lines.Text(), "data: [DONE]")
	expect(pieces > 1, true)
	expectHello(text)
	ok("stream", "%d pieces: %s", pieces, text)
}

// embed turns texts into vectors.
func (s story) embed() [][]float32 {
	request := homeport.NewEmbeddingRequest(homeport.EmbeddingRequestInput{ArrayOfString: &texts})
	result := must(s.client.ModelsAPI.LlmCreateEmbedding(s.ctx).EmbeddingRequest(*request).Execute())
	for _, each := range result.Embeddings {
		expect(len(each), int(result.Dimensions))
	}
	expect(len(result.Embeddings), len(texts))
	ok("embed", "%d vectors of %d numbers by %s/%s", len(result.Embeddings), result.Dimensions, result.Provider, result.Model)
	return result.Embeddings
}

// upsert stores the vectors with their texts.
func (s story) upsert(vectors [][]float32) {
	var records []homeport.VectorRecord
	for number, vector := range vectors {
		record := homeport.NewVectorRecord(fmt.Sprintf("note-%d", number), vector)
		record.SetMetadata(map[string]any{"text": texts[number]})
		records = append(records, *record)
	}
	body := homeport.NewVectorUpsert(records)
	body.SetWorkspaceId("notes-go")
	result := must(s.client.VectorsAPI.VectorsUpsertVectors(s.ctx).VectorUpsert(*body).Execute())
	expect(int(result.Upserted), len(texts))
	ok("upsert", "%d vectors", result.Upserted)
}

// query finds the text that answers a question.
func (s story) query() {
	body := homeport.NewVectorQuery()
	body.SetText("When do I plant vegetables?")
	body.SetTopK(1)
	body.SetWorkspaceId("notes-go")
	found := must(s.client.VectorsAPI.VectorsQueryVectors(s.ctx).VectorQuery(*body).Execute()).Results
	expect(len(found), 1)
	expect([]any{found[0].Id, found[0].Metadata["text"]}, []any{"note-0", texts[0]})
	ok("query", "%s (%.2f)", found[0].Metadata["text"], found[0].Score)
}

// speak has a sentence spoken; the answer is a file.
func (s story) speak() *os.File {
	body := homeport.NewSpeechRequest(sentence)
	body.SetVoice("en-us+klatt4")
	body.SetSpeed(1.15)
	body.SetFormat("wav")
	file := must(s.client.SpeechAPI.TtsCreateSpeech(s.ctx).SpeechRequest(*body).Execute())
	beginning := make([]byte, 12)
	_, err := file.ReadAt(beginning, 0)
	expect(err, nil)
	expect(string(beginning[:4])+string(beginning[8:]), "RIFFWAVE")
	size, err := file.Stat()
	expect(err, nil)
	ok("speak", "%d bytes of WAV", size.Size())
	return file
}

// transcribe has it written down again, as a file of a form. The client closes the file; it was a temporary one.
func (s story) transcribe(sound *os.File) {
	defer os.Remove(sound.Name())
	result := must(s.client.SpeechAPI.SttTranscribeAudio(s.ctx).Audio(sound).Provider("pocketsphinx").Execute())
	if !strings.Contains(strings.ToLower(result.Text), "help me") {
		panic(result.Text)
	}
	ok("transcribe", "%s (%.1f s)", result.Text, result.Duration)
}

// tool uses a tool of an MCP server.
func (s story) tool() {
	body := homeport.NewToolExecution()
	body.SetArguments(map[string]any{"timezone": "Europe/Berlin"})
	answer := must(s.client.ToolsAPI.McpExecuteTool(s.ctx, "time", "get_current_time").ToolExecution(*body).Execute())
	expect(answer.Result.IsError, false)
	ok("tool", "%s", answer.Result.Content[0]["text"])
}

// agent begins a conversation with an agent, and says something.
func (s story) agent() {
	draft := homeport.NewAgentSessionDraft()
	session := must(s.client.AgentsAPI.AgentSessionsCreateSession(s.ctx).AgentSessionDraft(*draft).Execute()).Session
	expect([]any{session.Agent.Name, session.Thread.IsSet() && session.Thread.Get() == nil}, []any{"@agent", true})
	message := homeport.NewAgentMessageDraft("Say hello.")
	answer := must(s.client.AgentsAPI.AgentSessionsSendMessage(s.ctx, session.SessionId).AgentMessageDraft(*message).Execute()).Response
	expect([]any{answer.SessionId, answer.MessageCount}, []any{session.SessionId, int32(2)})
	expectHello(answer.Text)
	ok("agent", "%s", answer.Text)
}

// task hands over work, takes it as the one who does it, and reports what came of it.
func (s story) task() {
	send := func(name string, payload *homeport.WebhookPayload) *homeport.WebhookResult {
		event := homeport.NewWebhookEvent(name)
		event.SetPayload(*payload)
		return must(s.client.TasksAPI.WebhooksReceiveEvent(s.ctx).WebhookEvent(*event).Execute())
	}
	work := homeport.NewWebhookPayload()
	work.SetRawData(map[string]any{"order": 7})
	work.SetAutoRun(false)
	made := send("task.trigger", work)
	states := []homeport.TaskState{made.GetStatus()}
	for _, event := range []string{"task.claimed", "task.started", "task.completed"} {
		report := homeport.NewWebhookPayload()
		report.SetTaskUuid(made.GetTaskUuid())
		report.SetMachineId("story")
		if event == "task.completed" {
			report.SetResult(map[string]any{"summary": "shipped"})
		}
		states = append(states, *send(event, report).Status)
	}
	expect(states, []homeport.TaskState{
		homeport.TASKSTATE_PENDING, homeport.TASKSTATE_CLAIMED, homeport.TASKSTATE_PROCESSING, homeport.TASKSTATE_COMPLETED,
	})
	done := must(s.client.TasksAPI.TasksGetTask(s.ctx, made.GetTaskUuid()).Execute()).Task
	expect([]any{done.Uuid, done.Status, done.Error.Get() == nil}, []any{made.GetTaskUuid(), homeport.TASKSTATE_COMPLETED, true})
	expect(done.Result, map[string]any{"summary": "shipped"})
	ok("task", "%v", states)
}

// refused asks for what was never granted: the answer is the error of the document, with its fields.
func (s story) refused() {
	_, response, err := s.client.WorkspacesAPI.WorkspacesListWorkspaces(s.ctx).Execute()
	var refusal *homeport.GenericOpenAPIError
	expect(errors.As(err, &refusal), true)
	problem, isTyped := refusal.Model().(homeport.LocalAppsError)
	expect(isTyped, true)
	expect(
		[]any{response.StatusCode, problem.Code, problem.GetPermission()},
		[]any{http.StatusForbidden, "PERMISSION_REQUIRED", "api.workspaces"},
	)
	ok("refused", "%s %s", problem.Code, problem.GetPermission())
}

func main() {
	s := story{url: os.Getenv("HOMEPORT_URL"), appID: os.Getenv("RTX_APP_ID")}
	configuration := homeport.NewConfiguration()
	configuration.Servers = homeport.ServerConfigurations{{URL: s.url}}
	configuration.HTTPClient = &http.Client{Timeout: timeout}
	s.client = homeport.NewAPIClient(configuration)
	s.ctx = context.WithValue(context.Background(), homeport.ContextAPIKeys, map[string]homeport.APIKey{"appId": {Key: s.appID}})
	s.ping()
	s.activity()
	s.chat()
	s.stream()
	s.upsert(s.embed())
	s.query()
	s.transcribe(s.speak())
	s.tool()
	s.agent()
	s.task()
	s.refused()
}
