package guard

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// logbook is a logger whose lines a test reads.
type logbook struct {
	lock sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(some []byte) (int, error) {
	l.lock.Lock()
	defer l.lock.Unlock()
	return l.text.Write(some)
}

func (l *logbook) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(l, nil)) }

// lines are what was logged since, without time.
func (l *logbook) lines(t *testing.T) []map[string]string {
	t.Helper()
	l.lock.Lock()
	defer l.lock.Unlock()
	var lines []map[string]string
	for line := range strings.Lines(l.text.String()) {
		read := map[string]string{}
		if err := json.Unmarshal([]byte(line), &read); err != nil {
			t.Fatal(err)
		}
		delete(read, "time")
		lines = append(lines, read)
	}
	l.text.Reset()
	return lines
}

func refusedRoute(method, path, reason string) map[string]string {
	return map[string]string{
		"level": "WARN", "msg": "guard: route refused", "method": method, "path": path, "reason": reason,
	}
}

func TestWhatTheMapRefusesIsLoggedInAFormThatDoesNoHarm(t *testing.T) {
	var log logbook
	g := guarding(t, answering(t, byPermission).address, patient, WithLogger(log.logger()))
	routes := routesOf(t, map[string]Needs{
		"GET /courses/{id}": {Permission: "course:allowed", Resource: "course/{id}"},
		"/admin/**":         {Permission: "admin:access"},
		"GET /healthz":      {Public: true},
	})
	address := site(t, g.Middleware(routes), "/")
	canary := "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"
	for _, c := range []struct{ method, target, path, reason string }{
		{"GET", "/nowhere?token=secret", "/nowhere", "no_route"},
		{"DELETE", "/courses/1", "/courses/1", "no_route"},
		{"GET", "/healthz;jsessionid=secret", "/healthz", "ambiguous_path"},
		{"GET", "/x%3Ftoken=secret", "/x", "ambiguous_path"},
		{"GET", "/reset/" + canary, "/reset/<token>", "no_route"},
		{"GET", "http://user:secret@localhost/healthz", "<no path>", "ambiguous_path"},
		{"GET", "/a\\\u202e", `/a\u{5c}\u{202e}`, "ambiguous_path"},
		{"GET", "/" + strings.Repeat("x", 1_000), "/" + strings.Repeat("x", 499) + "...", "no_route"},
	} {
		if status, body := send(t, address, c.method+" "+c.target+bearerLine); status != 403 {
			t.Errorf("%s: %d %s", c.target, status, body)
		}
		want := []map[string]string{refusedRoute(c.method, c.path, c.reason)}
		if lines := log.lines(t); !reflect.DeepEqual(lines, want) {
			t.Errorf("%v, not %v", lines, want)
		}
	}
	// Denials are in the audit log of the PDP.
	send(t, address, "GET /admin/x"+bearerLine)
	send(t, address, "GET /courses/1 HTTP/1.1\r\n")
	if lines := log.lines(t); lines != nil {
		t.Errorf("%v", lines)
	}
}

func TestWhoeverAnswers503SaysWhy(t *testing.T) {
	var log logbook
	g := guarding(t, "127.0.0.1:1", WithLogger(log.logger()))
	mux := http.NewServeMux()
	mux.Handle("/own", g.Protect("a:allowed", nil)(http.NotFoundHandler()))
	address := site(t, func(http.Handler) http.Handler {
		return g.Middleware(routesOf(t, map[string]Needs{"/a": {Permission: "a:allowed"}, "/own": {Public: true}}))(mux)
	})
	for _, path := range []string{"/a", "/own"} {
		if status, body := send(t, address, "GET "+path+"?x=secret"+bearerLine); status != 503 {
			t.Errorf("%d %s", status, body)
		}
		lines := log.lines(t)
		if len(lines) != 1 || lines[0]["msg"] != "guard: no decision" || lines[0]["method"] != "GET" ||
			lines[0]["path"] != path || !strings.HasPrefix(lines[0]["error"], "UNAVAILABLE ") {
			t.Errorf("%v", lines)
		}
	}
}

func TestRefuseTellsTheDefaultLoggerWhyThereWasNoDecision(t *testing.T) {
	var log logbook
	before := slog.Default()
	slog.SetDefault(log.logger())
	t.Cleanup(func() { slog.SetDefault(before) })
	hostile := "a\nb\x1b[31m\u202e\\"
	for err, want := range map[error]map[string]string{
		&Unavailable{Message: hostile, Code: codes.Unknown}: {
			"level": "WARN", "msg": "guard: no decision", "error": `UNKNOWN a\u{a}b\u{1b}[31m\u{202e}\u{5c}`,
		},
		&RouteRefused{noRoute}: {"level": "WARN", "msg": "guard: route refused", "reason": "no_route"},
		&Forbidden{}:           nil,
		context.Canceled:       nil,
	} {
		Refuse(httptest.NewRecorder(), err)
		lines := log.lines(t)
		if want == nil && lines != nil || want != nil && !reflect.DeepEqual(lines, []map[string]string{want}) {
			t.Errorf("%v: %v", err, lines)
		}
	}
	// A guard without a logger of its own uses the default one of now.
	g, err := New("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	request := httptest.NewRequest(http.MethodGet, "/x", nil)
	g.Middleware(nil)(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), request)
	if lines := log.lines(t); !reflect.DeepEqual(lines, []map[string]string{refusedRoute("GET", "/x", noRoute)}) {
		t.Errorf("%v", lines)
	}
}

func TestInterceptorsSayWhichMethodTheyRefuseAndWhy(t *testing.T) {
	var log logbook
	g := guarding(t, "127.0.0.1:1", WithLogger(log.logger()))
	unary, _, err := g.Interceptors(map[string]Method{"/a.B/Named": {Permission: "a:allowed"}})
	if err != nil {
		t.Fatal(err)
	}
	for method, want := range map[string]codes.Code{
		"/a.B/Named": codes.Unavailable, "/a.B/Unnamed": codes.PermissionDenied,
	} {
		_, err := unary(t.Context(), nil, &grpc.UnaryServerInfo{FullMethod: method}, nil)
		lines := log.lines(t)
		if status.Code(err) != want || len(lines) != 1 || lines[0]["path"] != method {
			t.Errorf("%s: %v %v", method, err, lines)
		}
	}
}
