package guard

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	pdpapiv1 "pdp.example/go/pdpapi/v1"
)

// byPermission allows `*:allowed`, and answers other permissions by their last word.
func byPermission(_ context.Context, request *pdpapiv1.CheckRequest) (*pdpapiv1.CheckResponse, error) {
	_, action, _ := strings.Cut(request.GetPermission(), ":")
	switch {
	case request.GetActorToken() == "":
		return deny(pdpapiv1.DenialKind_DENIAL_KIND_UNAUTHENTICATED), nil
	case action == "allowed":
		return allow(), nil
	}
	return deny(pdpapiv1.DenialKind_DENIAL_KIND_FORBIDDEN), nil
}

// site is a server of net/http, its ServeMux behind what is tested.
func site(t *testing.T, protect func(http.Handler) http.Handler, patterns ...string) net.Addr {
	t.Helper()
	mux := http.NewServeMux()
	for _, pattern := range patterns {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			actor, ok := ActorFrom(r.Context())
			fmt.Fprintf(w, "%s by %q %v", pattern, actor.UserID, ok)
		})
	}
	server := httptest.NewServer(protect(mux))
	t.Cleanup(server.Close)
	return server.Listener.Addr()
}

func routesOf(t *testing.T, routes map[string]Needs) *Routes {
	t.Helper()
	made, err := NewRoutes(routes)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

const bearerLine = " HTTP/1.1\r\nAuthorization: Bearer a.b.c\r\n"

func TestTheMiddlewareLetsPassWhatTheMapLetsPass(t *testing.T) {
	server := answering(t, byPermission)
	g := guarding(t, server.address, patient)
	routes := routesOf(t, map[string]Needs{
		"GET /courses/{id}": {Permission: "course:allowed", Resource: "course/{id}"},
		"/admin/**":         {Permission: "admin:access"},
		"GET /healthz":      {Public: true},
	})
	address := site(t, g.Middleware(routes), "/courses/{id}", "/admin/", "/healthz", "/")
	for _, c := range []struct {
		head   string
		status int
		body   string
	}{
		{"GET /courses/1" + bearerLine, 200, `/courses/{id} by "user_ada" true`},
		{"GET /courses/1?x=//.." + bearerLine, 200, `/courses/{id} by "user_ada" true`},
		{"GET /courses/1 HTTP/1.1\r\nCookie: __session=a.b.c\r\n", 200, `/courses/{id} by "user_ada" true`},
		{"GET /courses/1 HTTP/1.1\r\n", 401, `{"error":"unauthenticated","decision_id":"decision-2"}`},
		{"GET /admin/x" + bearerLine, 403, `{"error":"forbidden","decision_id":"decision-2"}`},
		{"GET /healthz HTTP/1.1\r\n", 200, `/healthz by "" false`},
		{"DELETE /courses/1" + bearerLine, 403, `{"error":"forbidden"}`},
		{"GET /" + bearerLine, 403, `{"error":"forbidden"}`},
	} {
		if status, body := send(t, address, c.head); status != c.status || body != c.body {
			t.Errorf("%.40q: %d %s", c.head, status, body)
		}
	}
	if id := server.requests[0].GetResource().GetId(); id != "1" {
		t.Errorf("the resource is %q", id)
	}
}

// What ServeMux makes of a path is not what was received, so nothing that it would clean or decode arrives.
func TestNoTrickOfAPathComesToAHandlerOfAnotherRoute(t *testing.T) {
	g := guarding(t, answering(t, byPermission).address, patient)
	routes := routesOf(t, map[string]Needs{
		"/**": {Public: true}, "/admin/**": {Permission: "admin:access"},
	})
	address := site(t, g.Middleware(routes), "/admin/", "/")
	for _, path := range []string{
		"/admin", "/admin/", "/admin/x", "//admin/x", "/x/../admin/x", "/x/..//admin/x", "/./admin/x",
		"/%2e/admin/x", "/x/%2e%2e/admin/x", "/%61dmin/x", "/Admin/x", "/ADMIN", "/admin;x/y", "/admin%2fx",
		"/x%2f..%2fadmin/x", "/admin\\x", "/admin%5cx", "/admin%00/x", "/admin%20/x", "/adm%69n/",
		"http://localhost/admin/x", "http://localhost//admin/x", "//localhost/admin/x", "/admin#x", "/admin%23",
		"/%2561dmin/x", "/admin/../admin/x", "/admin?/../x", "/admın/x",
	} {
		for _, method := range []string{"GET", "POST", "CONNECT", "get"} {
			// net/http answers 400 and ServeMux would redirect (307); both call no handler.
			status, body := send(t, address, method+" "+path+bearerLine)
			if status != 403 && status != 400 || strings.Contains(body, "by") {
				t.Errorf("%s %s: %d %s", method, path, status, body)
			}
		}
	}
	if status, _ := send(t, address, "GET /other"+bearerLine); status != 200 {
		t.Errorf("%d", status)
	}
}

func TestAPathThatWasChangedBeforeTheMiddlewareIsRefused(t *testing.T) {
	g := guarding(t, "127.0.0.1:1")
	routes := routesOf(t, map[string]Needs{"/**": {Public: true}})
	inside := site(t, func(next http.Handler) http.Handler {
		return http.StripPrefix("/api", g.Middleware(routes)(next))
	}, "/")
	outside := site(t, func(next http.Handler) http.Handler {
		return g.Middleware(routes)(http.StripPrefix("/api", next))
	}, "/")
	if status, body := send(t, inside, "GET /api/x HTTP/1.1\r\n"); status != 403 {
		t.Errorf("%d %s", status, body)
	}
	if status, body := send(t, outside, "GET /api/x HTTP/1.1\r\n"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	// A request that no server has received has no path that was received.
	request, _ := http.NewRequest(http.MethodGet, "/x", nil)
	answer := httptest.NewRecorder()
	g.Middleware(routes)(http.NotFoundHandler()).ServeHTTP(answer, request)
	if answer.Code != 403 {
		t.Errorf("%d", answer.Code)
	}
}

func TestWithoutAPDPNothingButThePublicPasses(t *testing.T) {
	g := guarding(t, "127.0.0.1:1")
	routes := routesOf(t, map[string]Needs{"/a": {Permission: "a:allowed"}, "/b": {Public: true}})
	address := site(t, g.Middleware(routes), "/")
	if status, body := send(t, address, "GET /a"+bearerLine); status != 503 || body != `{"error":"unavailable"}` {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := send(t, address, "GET /b"+bearerLine); status != 200 {
		t.Errorf("%d", status)
	}
	address = site(t, g.Middleware(nil), "/")
	if status, _ := send(t, address, "GET /b"+bearerLine); status != 403 {
		t.Errorf("no map: %d", status)
	}
}

func TestProtectAsksAboutTheResourceOfTheRequest(t *testing.T) {
	server := answering(t, byPermission)
	g := guarding(t, server.address, patient)
	course := func(r *http.Request) Resource { return Resource{Type: "course", ID: r.PathValue("id")} }
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		actor, _ := ActorFrom(r.Context())
		fmt.Fprint(w, actor.UserID)
	})
	mux := http.NewServeMux()
	mux.Handle("/edit/{id}", g.Protect("course:allowed", course)(handler))
	mux.Handle("/delete/{id}", g.Protect("course:delete", course)(handler))
	mux.Handle("/list", g.Protect("course:allowed", nil)(handler))
	listening := httptest.NewServer(mux)
	defer listening.Close()
	for path, want := range map[string]int{"/edit/1": 200, "/delete/1": 403, "/list": 200} {
		if status, body := send(t, listening.Listener.Addr(), "GET "+path+bearerLine); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	for _, request := range server.requests {
		if resource := request.GetResource(); resource != nil && resource.GetId() != "1" {
			t.Errorf("%v", request)
		}
	}
}

func TestWhatIsNoErrorOfAGuardIsInternal(t *testing.T) {
	for _, err := range []error{nil, fmt.Errorf("a secret")} {
		answer := httptest.NewRecorder()
		Refuse(answer, err)
		if answer.Code != 500 || answer.Body.String() != `{"error":"internal"}` {
			t.Errorf("%d %s", answer.Code, answer.Body)
		}
	}
}

// crossOrigin is a CORS layer as packages for it are: it answers preflights by itself, and hands on all else.
func crossOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://front.example")
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			w.Header().Set("Access-Control-Allow-Methods", "PUT")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func TestACORSLayerAroundTheGuardAnswersPreflightsAndNobodyElseDoes(t *testing.T) {
	g := guarding(t, answering(t, byPermission).address, patient)
	routes := routesOf(t, map[string]Needs{"/courses/{id}": {Permission: "course:allowed"}})
	outside := site(t, func(next http.Handler) http.Handler { return crossOrigin(g.Middleware(routes)(next)) }, "/")
	inside := site(t, func(next http.Handler) http.Handler { return g.Middleware(routes)(crossOrigin(next)) }, "/")
	preflight := "Origin: https://front.example\r\nAccess-Control-Request-Method: PUT\r\n"
	options := "OPTIONS /courses/1 HTTP/1.1\r\n"
	for _, c := range []struct {
		address net.Addr
		head    string
		status  int
	}{
		{outside, options + preflight, 204},
		// An OPTIONS handler of the application stays guarded, and so does everything behind a guard.
		{outside, options, 401},
		{outside, options + "Authorization: Bearer a.b.c\r\n", 200},
		{inside, options + preflight, 401},
		{inside, options, 401},
	} {
		if status, body := send(t, c.address, c.head); status != c.status || status == 204 && body != "" {
			t.Errorf("%q: %d %s", c.head, status, body)
		}
	}
	// A browser shows a refusal to its front end only with the header of the CORS layer.
	request, _ := http.NewRequest(http.MethodGet, "http://"+outside.String()+"/courses/1", nil)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != 401 || answer.Header.Get("Access-Control-Allow-Origin") != "https://front.example" {
		t.Errorf("%d %v", answer.StatusCode, answer.Header)
	}
}
