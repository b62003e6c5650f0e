package guard

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// servers are a real PDP and a scripted one: clients/conformance/README.md.
type servers struct {
	PDP      string
	Scripted string
	TLS      struct{ Target, CA, Cert, Key string }
	APIKey   string `json:"api_key"`
	Tokens   map[string]string
}

var (
	startServers = sync.OnceValues(start)
	stopServers  = func() {}
)

func TestMain(m *testing.M) {
	code := m.Run()
	stopServers()
	os.Exit(code)
}

// start runs the servers until stdin is closed.
func start() (*servers, error) {
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		return nil, err
	}
	python := os.Getenv("PDP_PYTHON")
	if python == "" {
		python = filepath.Join(root, ".venv", "bin", "python")
	}
	command := exec.Command(python, "-m", "tests.conformance")
	command.Dir = root
	var said bytes.Buffer
	command.Stderr = &said
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	stopServers = func() {
		_ = input.Close()
		_ = command.Wait()
	}
	line, err := bufio.NewReader(output).ReadBytes('\n')
	made := &servers{}
	if err == nil {
		err = json.Unmarshal(line, made)
	}
	if err != nil {
		stopServers()
		return nil, fmt.Errorf("%w\n%s%s", err, line, said.Bytes())
	}
	return made, nil
}

func conformanceServers(t *testing.T) *servers {
	t.Helper()
	if os.Getenv("PDP_CONFORMANCE") == "skip" {
		t.Skip("PDP_CONFORMANCE=skip")
	}
	made, err := startServers()
	if err != nil {
		t.Fatalf("the servers of the conformance tests do not start (they need the project's Python: "+
			"`make install`, or name one as PDP_PYTHON; PDP_CONFORMANCE=skip leaves these tests out): %v", err)
	}
	return made
}

// expected is what a case expects.
type expected struct {
	Outcome     string
	HTTPStatus  int     `json:"http_status"`
	DecisionID  *string `json:"decision_id"`
	Reason      *string
	Code        *string
	Calls       *uint64
	Allowed     []bool
	Permissions []string
	Actor       *struct {
		UserID         string `json:"user_id"`
		SessionID      string `json:"session_id"`
		OrganizationID string `json:"organization_id"`
		ImpersonatorID string `json:"impersonator_id"`
	}
	Violations []struct{ Field, Description string }
	StepUp     *writtenStepUp `json:"step_up"`
}

type writtenStepUp struct {
	Factor        Factor
	MaxAgeSeconds int `json:"max_age_seconds"`
}

func (w *writtenStepUp) value() *StepUp {
	if w == nil {
		return nil
	}
	return &StepUp{Factor: w.Factor, MaxAge: time.Duration(w.MaxAgeSeconds) * time.Second}
}

type outcome struct {
	name, decisionID, reason, code string
	actor                          Actor
	violations                     []Violation
}

// came is what came of require, and of check where it allows.
func came(actor Actor, decision Decision, err error) outcome {
	switch err := err.(type) {
	case nil:
		return outcome{
			name: "allowed", decisionID: decision.DecisionID, reason: decision.Reason, actor: actor,
		}
	case *Unauthenticated:
		return outcome{name: "unauthenticated", decisionID: err.Decision.DecisionID, reason: err.Decision.Reason}
	case *Forbidden:
		return outcome{name: "forbidden", decisionID: err.Decision.DecisionID, reason: err.Decision.Reason}
	case *Unavailable:
		return outcome{name: "unavailable", reason: err.Reason, code: codeName(err.Code)}
	case *Refused:
		return outcome{
			name: "refused", reason: err.Reason, code: codeName(err.Code), violations: err.Violations,
		}
	}
	return outcome{name: fmt.Sprintf("%T", err)}
}

func (e expected) compare(t *testing.T, found outcome, err error) {
	t.Helper()
	if found.name != e.Outcome || HTTPStatus(err) != e.HTTPStatus {
		t.Errorf("%s %d, not %s %d (%v)", found.name, HTTPStatus(err), e.Outcome, e.HTTPStatus, err)
	}
	for what, pair := range map[string]struct {
		want  *string
		found string
	}{
		"decision id": {e.DecisionID, found.decisionID},
		"reason":      {e.Reason, found.reason},
		"code":        {e.Code, found.code},
	} {
		if pair.want != nil && *pair.want != pair.found {
			t.Errorf("the %s is %q, not %q", what, pair.found, *pair.want)
		}
	}
	var forbidden *Forbidden
	if errors.As(err, &forbidden) {
		if found := forbidden.Decision.StepUp; !reflect.DeepEqual(found, e.StepUp.value()) {
			t.Errorf("the step up is %v, not %v", found, e.StepUp)
		}
	}
	if e.Actor != nil && Actor(*e.Actor) != found.actor {
		t.Errorf("the actor is %v, not %v", found.actor, *e.Actor)
	}
	if e.Violations != nil {
		want := []Violation{}
		for _, one := range e.Violations {
			want = append(want, Violation(one))
		}
		if !slices.Equal(want, found.violations) {
			t.Errorf("the violations are %v, not %v", found.violations, want)
		}
	}
}

func TestOutcomes(t *testing.T) {
	scripted := conformanceServers(t)
	var suite struct {
		Cases []struct {
			Name       string
			DeadlineMS int `json:"deadline_ms"`
			Questions  int
			Resources  int
			Expect     expected
		}
	}
	conformance(t, "outcomes.json", &suite)
	if len(suite.Cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range suite.Cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			deadline := 10 * time.Second
			if c.DeadlineMS != 0 {
				deadline = time.Duration(c.DeadlineMS) * time.Millisecond
			}
			g := guarding(t, scripted.Scripted, WithDeadline(deadline))
			token, run := NewToken(canary), map[string]any{"run": rand.Text()}
			var found outcome
			var err error
			if c.Resources > 0 {
				var set PermissionSet
				resources := slices.Repeat([]Resource{{Type: "case", ID: c.Name}}, c.Resources)
				set, err = g.Permissions(t.Context(), token, resources, RequestFacts(run))
				found = came(Actor{}, Decision{}, err)
				if c.Expect.Outcome == "answered" {
					c.Expect.Outcome, c.Expect.HTTPStatus = "allowed", 200
				}
				if holds := permissionsOn(t, set, &resources[0]); !slices.Equal(holds, c.Expect.Permissions) {
					t.Errorf("%v, not %v", holds, c.Expect.Permissions)
				}
			} else if c.Questions > 0 {
				var decisions []Decision
				questions := make([]Question, c.Questions)
				for i := range questions {
					questions[i] = Question{Permission: "case:" + c.Name, Context: run}
				}
				decisions, err = g.Batch(t.Context(), token, questions)
				allowed := []bool{}
				for _, one := range decisions {
					allowed = append(allowed, one.Allowed())
				}
				found = came(Actor{}, Decision{}, err)
				if c.Expect.Outcome == "answered" {
					c.Expect.Outcome, c.Expect.HTTPStatus = "allowed", 200
					if !slices.Equal(allowed, c.Expect.Allowed) {
						t.Errorf("%v, not %v", allowed, c.Expect.Allowed)
					}
				}
			} else {
				var actor Actor
				actor, err = g.Require(t.Context(), token, "case:"+c.Name, nil, RequestFacts(run))
				found = came(actor, Decision{}, err)
				if err == nil {
					// The answers are used up in order; to see the decision itself, it is asked about again.
					decision, err := g.Check(t.Context(), token, "case:"+c.Name, nil,
						RequestFacts(map[string]any{"run": rand.Text()}))
					if err != nil || !decision.Allowed() {
						t.Errorf("%v %v", decision, err)
					}
					found.decisionID, found.reason = decision.DecisionID, decision.Reason
				} else if actor != (Actor{}) {
					t.Errorf("there is an actor: %v", actor)
				}
			}
			if c.DeadlineMS != 0 && found.code == "DEADLINE_EXCEEDED" { // a slow machine
				c.Expect.Code, c.Expect.Reason, c.Expect.Calls = nil, nil, nil
			}
			c.Expect.compare(t, found, err)
			for _, shown := range []string{fmt.Sprint(err), fmt.Sprintf("%+v %#v", err, found)} {
				if strings.Contains(shown, canary) {
					t.Error("the token is in a text")
				}
			}
			if c.Expect.Calls != nil {
				patient := guarding(t, scripted.Scripted, WithDeadline(10*time.Second))
				counted, err := patient.Check(t.Context(), token, "calls:"+c.Name, nil, RequestFacts(run))
				if err != nil || counted.Revision != *c.Expect.Calls {
					t.Errorf("%d calls, not %d (%v)", counted.Revision, *c.Expect.Calls, err)
				}
			}
		})
	}
}

// permissionsOn lists what holds on a resource, and nothing else may hold.
func permissionsOn(t *testing.T, set PermissionSet, resource *Resource) []string {
	t.Helper()
	text, err := set.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var list []struct{ Permission, Type, ID string }
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatal(err)
	}
	var holds []string
	for _, one := range list {
		if one.Type == resource.Type && one.ID == resource.ID && set.Holds(one.Permission, resource) {
			holds = append(holds, one.Permission)
		}
	}
	return holds
}

type writtenResource struct {
	Type, ID       string
	OrganizationID string `json:"organization_id"`
	Parent         *writtenResource
	Attributes     map[string]any
}

func (r *writtenResource) resource() *Resource {
	if r == nil {
		return nil
	}
	return &Resource{
		Type: r.Type, ID: r.ID, OrganizationID: r.OrganizationID, Parent: r.Parent.resource(),
		Attributes: r.Attributes,
	}
}

func TestDecisions(t *testing.T) {
	real := conformanceServers(t)
	var suite struct {
		Cases []struct {
			Name, Token, Permission string
			Resource                *writtenResource
			Context                 map[string]any
			Expect                  expected
		}
		Can []struct {
			Name, Token string
			Questions   []struct {
				Permission string
				Resource   *writtenResource
			}
			Holds []bool
		}
		Permissions []struct {
			Name, Token string
			Resources   []*writtenResource
			Context     map[string]any
			Holds       [][]string
		}
	}
	conformance(t, "decisions.json", &suite)
	if len(suite.Cases) == 0 || len(suite.Can) == 0 || len(suite.Permissions) == 0 {
		t.Fatal("no cases")
	}
	g := guarding(t, real.PDP, WithAPIKey(real.APIKey), patient)
	for _, c := range suite.Cases {
		t.Run(c.Name, func(t *testing.T) {
			token := NewToken(real.Tokens[c.Token])
			var options []AskOption
			if c.Context != nil {
				options = append(options, RequestFacts(c.Context))
			}
			decision, err := g.Check(t.Context(), token, c.Permission, c.Resource.resource(), options...)
			actor, required := g.Require(t.Context(), token, c.Permission, c.Resource.resource(), options...)
			if (required == nil) != decision.Allowed() || err != nil && required == nil {
				t.Errorf("check: %v %v, require: %v", decision, err, required)
			}
			c.Expect.compare(t, came(actor, decision, required), required)
			if role, ok := strings.CutPrefix(c.Permission, "role:"); ok {
				actor, err := g.RequireRole(t.Context(), token, role)
				c.Expect.compare(t, came(actor, decision, err), err)
			}
		})
	}
	for _, c := range suite.Can {
		t.Run(c.Name, func(t *testing.T) {
			questions := []Question{}
			for _, one := range c.Questions {
				questions = append(questions, Question{Permission: one.Permission, Resource: one.Resource.resource()})
			}
			set, err := g.Can(t.Context(), NewToken(real.Tokens[c.Token]), questions)
			if err != nil {
				t.Fatal(err)
			}
			holds := []bool{}
			for _, one := range questions {
				holds = append(holds, set.Holds(one.Permission, one.Resource))
			}
			if !slices.Equal(holds, c.Holds) || set.Holds("course:never-asked", nil) {
				t.Errorf("%v, not %v", holds, c.Holds)
			}
		})
	}
	for _, c := range suite.Permissions {
		t.Run(c.Name, func(t *testing.T) {
			resources := []Resource{}
			for _, one := range c.Resources {
				resources = append(resources, *one.resource())
			}
			token := NewToken(real.Tokens[c.Token])
			set, err := g.Permissions(t.Context(), token, resources, RequestFacts(c.Context))
			if err != nil {
				t.Fatal(err)
			}
			for i := range resources {
				if holds := permissionsOn(t, set, &resources[i]); !slices.Equal(holds, c.Holds[i]) {
					t.Errorf("%v, not %v", holds, c.Holds[i])
				}
			}
		})
	}
	t.Run("without the API key", func(t *testing.T) {
		_, err := guarding(t, real.PDP, patient).Require(t.Context(), NewToken(real.Tokens["admin"]), "admin:access", nil)
		if refused, ok := errors.AsType[*Refused](err); !ok || refused.Reason != "CALLER_UNAUTHENTICATED" {
			t.Errorf("%v", err)
		}
	})
}

func TestMutualTLSWithAServerInPython(t *testing.T) {
	scripted := conformanceServers(t)
	config, err := TLSFiles(scripted.TLS.CA, scripted.TLS.Cert, scripted.TLS.Key)
	if err != nil {
		t.Fatal(err)
	}
	g := guarding(t, scripted.TLS.Target, WithTLS(config), WithAPIKey(scripted.APIKey), patient)
	if _, err := g.Require(t.Context(), NewToken("a.b.c"), "case:allow", nil); err != nil {
		t.Error(err)
	}
}

// TestTokens sends the headers as they are written, so that net/http reads them as it does.
func TestTokens(t *testing.T) {
	var suite struct {
		Cases []struct {
			Name       string
			Headers    [][2]string
			CookieName string `json:"cookie_name"`
			Token      string
		}
	}
	conformance(t, "tokens.json", &suite)
	if len(suite.Cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range suite.Cases {
		t.Run(c.Name, func(t *testing.T) {
			options := []Option{}
			if c.CookieName != "" {
				options = append(options, WithCookie(c.CookieName))
			}
			g := guarding(t, "127.0.0.1:1", options...)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, g.SessionToken(r).Reveal())
			}))
			defer server.Close()
			lines := ""
			for _, header := range c.Headers {
				lines += header[0] + ": " + header[1] + "\r\n"
			}
			if _, found := send(t, server.Listener.Addr(), "GET / HTTP/1.1\r\n"+lines); found != c.Token {
				t.Errorf("%q, not %q", found, c.Token)
			}
		})
	}
}

// send writes a request as it is and gives the answer's status and body.
func send(t *testing.T, address net.Addr, head string) (int, string) {
	t.Helper()
	connection, err := net.Dial("tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := io.WriteString(connection, head+"Host: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestRefusals(t *testing.T) {
	var suite struct {
		Cases []struct {
			Outcome    string
			StepUp     *writtenStepUp `json:"step_up"`
			DecisionID string         `json:"decision_id"`
			Status     int
			GRPC       string
			Trailers   map[string]string
			Headers    map[string]string
			Body       map[string]any
		}
	}
	conformance(t, "refusals.json", &suite)
	if len(suite.Cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range suite.Cases {
		t.Run(c.Outcome, func(t *testing.T) {
			decision := Decision{DecisionID: c.DecisionID, Reason: "A_REASON", Message: "A_REASON"}
			decision.StepUp = c.StepUp.value()
			err := map[string]error{
				"unauthenticated": &Unauthenticated{decision},
				"forbidden":       &Forbidden{decision},
				"unavailable":     &Unavailable{Message: "A_REASON", Reason: "A_REASON", Code: codes.Internal},
				"refused":         &Refused{Message: "A_REASON", Reason: "A_REASON", Code: codes.NotFound},
				"route_refused":   &RouteRefused{"no_route"},
			}[c.Outcome]
			for _, err := range []error{err, fmt.Errorf("wrapped: %w", err)} {
				answer := httptest.NewRecorder()
				answer.Header().Set("Content-Length", "7")
				Refuse(answer, err)
				var body map[string]any
				if err := json.Unmarshal(answer.Body.Bytes(), &body); err != nil {
					t.Error(err)
				}
				if answer.Code != c.Status || !reflect.DeepEqual(body, c.Body) {
					t.Errorf("%d %v", answer.Code, body)
				}
				want := http.Header{}
				for name, value := range c.Headers {
					want.Set(name, value)
				}
				if !reflect.DeepEqual(answer.Header(), want) {
					t.Errorf("%v, not %v", answer.Header(), want)
				}
			}
			if c.GRPC != "" {
				given := status.Convert(err)
				if codeName(given.Code()) != c.GRPC || strings.Contains(given.Message(), "A_REASON") {
					t.Errorf("%v", given)
				}
				if found := trailersOf(err); !reflect.DeepEqual(found, metadata.New(c.Trailers)) {
					t.Errorf("the trailers are %v", found)
				}
			}
		})
	}
}
