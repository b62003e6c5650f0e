package guard

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"
)

type actorKey struct{}

func withActor(ctx context.Context, actor Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// ActorFrom returns the actor that Middleware, Protect or an interceptor allowed. False if none of them asked, as
// on a public route.
func ActorFrom(ctx context.Context) (Actor, bool) {
	actor, ok := ctx.Value(actorKey{}).(Actor)
	return actor, ok
}

// SessionToken is the token of a request: that of its only `Authorization: Bearer` header, or, if there is no
// header of that scheme, that of the only session cookie. Empty if there is none, or more than one.
func (g *Guard) SessionToken(r *http.Request) Token {
	values := r.Header.Values("Authorization")
	if len(values) > 1 {
		return Token{}
	}
	if len(values) == 1 {
		if token, ok := bearer(values[0]); ok {
			return NewToken(token)
		}
	}
	return NewToken(onlyCookie(r.Header.Values("Cookie"), g.cookie))
}

// bearer is the text after the scheme Bearer; false if the credentials have another scheme.
func bearer(credentials string) (string, bool) {
	credentials = strings.Trim(credentials, " \t")
	scheme, token := credentials, ""
	if space := strings.IndexAny(credentials, " \t"); space >= 0 {
		scheme, token = credentials[:space], strings.TrimLeft(credentials[space:], " \t")
	}
	return token, strings.EqualFold(scheme, "Bearer")
}

// onlyCookie is the value of the only cookie with a name. net/http ignores malformed cookies, but two cookies are
// two even if it ignores one of them.
func onlyCookie(headers []string, name string) string {
	var found []string
	for pair := range strings.SplitSeq(strings.Join(headers, ";"), ";") {
		key, value, _ := strings.Cut(pair, "=")
		if strings.Trim(key, " \t") == name {
			found = append(found, strings.Trim(value, " \t"))
		}
	}
	if len(found) != 1 {
		return ""
	}
	return found[0]
}

// Middleware lets requests pass as a route map says, and answers all others. It must run where the path is still
// the received one: StripPrefix and the like belong inside.
func (g *Guard) Middleware(routes *Routes) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked, err := matchRequest(routes, r)
			switch {
			case err != nil:
				g.refuse(w, r, err)
			case asked.Public:
				next.ServeHTTP(w, r)
			default:
				g.letPass(w, r, next, asked.Permission, asked.resource())
			}
		})
	}
}

// Protect lets requests pass whose actor has a permission, on the resource that a function finds in the request
// (nil: the permission needs none). Inside of an http.ServeMux, the function can use r.PathValue.
func (g *Guard) Protect(
	permission string, resource func(*http.Request) Resource,
) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var found *Resource
			if resource != nil {
				value := resource(r)
				found = &value
			}
			g.letPass(w, r, next, permission, found)
		})
	}
}

func (g *Guard) letPass(
	w http.ResponseWriter, r *http.Request, next http.Handler, permission string, resource *Resource,
) {
	actor, err := g.Require(r.Context(), g.SessionToken(r), permission, resource)
	if err != nil {
		g.refuse(w, r, err)
		return
	}
	next.ServeHTTP(w, r.WithContext(withActor(r.Context(), actor)))
}

// matchRequest reads the request target as it was received: net/http's own URL is decoded. If the URL was changed
// since, the handler would read another path than the checked one.
func matchRequest(routes *Routes, r *http.Request) (Asked, error) {
	received, err := url.ParseRequestURI(r.RequestURI)
	if err != nil || received.Path != r.URL.Path || received.EscapedPath() != r.URL.EscapedPath() {
		return Asked{}, &RouteRefused{pathAmbiguous}
	}
	return routes.Match(r.Method, r.RequestURI)
}

// Refuse answers a request according to an error of a guard: 401, 403, 503, or 500 for any other. The body
// contains no reason, because WRONG_ORGANIZATION would reveal to a stranger that a resource exists. If there was
// no decision, the reason is logged to [slog.Default].
func Refuse(w http.ResponseWriter, err error) {
	logRefusal(context.Background(), slog.Default(), err)
	writeRefusal(w, err)
}

func (g *Guard) refuse(w http.ResponseWriter, r *http.Request, err error) {
	target := r.RequestURI
	if target == "" { // not a request of a server
		target = r.URL.EscapedPath()
	}
	g.logRefusal(r.Context(), err, r.Method, target)
	writeRefusal(w, err)
}

func writeRefusal(w http.ResponseWriter, err error) {
	body := struct {
		Error      string          `json:"error"`
		DecisionID *string         `json:"decision_id,omitempty"`
		ClerkError *reverification `json:"clerk_error,omitempty"`
	}{Error: "internal"}
	status, challenge := http.StatusInternalServerError, ""
	if refused := refusalOf(err); refused != nil {
		status, body.Error = refused.httpStatus(), refused.word()
		if decision := refused.decision(); decision != nil {
			body.DecisionID = &decision.DecisionID
			if stepUp := decision.StepUp; stepUp != nil {
				challenge, body.ClerkError = challengeOf(stepUp), reverificationOf(stepUp)
			}
		}
	}
	header := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified"} {
		header.Del(name) // belongs to an answer that is not sent
	}
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	if challenge != "" {
		header.Set("WWW-Authenticate", challenge)
	}
	switch status {
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable:
		header.Set("Retry-After", "1")
	}
	text, _ := json.Marshal(body) // two texts
	w.WriteHeader(status)
	_, _ = w.Write(text) // fails only if the client is gone
}

// challengeOf is the value of WWW-Authenticate that requires a verification (RFC 9470, section 3).
func challengeOf(stepUp *StepUp) string {
	return fmt.Sprintf(`Bearer error="insufficient_user_authentication", acr_values="%s", max_age="%d"`,
		stepUp.Factor, int64(stepUp.MaxAge/time.Second))
}

// reverification is the body that `useReverification` of Clerk's front ends recognises as a request to verify
// again.
type reverification struct {
	Type     string `json:"type"`
	Reason   string `json:"reason"`
	Metadata struct {
		Reverification struct {
			Level        Factor `json:"level"`
			AfterMinutes int64  `json:"afterMinutes"`
		} `json:"reverification"`
	} `json:"metadata"`
}

func reverificationOf(stepUp *StepUp) *reverification {
	wish := &reverification{Type: "forbidden", Reason: "reverification-error"}
	wish.Metadata.Reverification.Level = stepUp.Factor
	wish.Metadata.Reverification.AfterMinutes = max(1, int64(stepUp.MaxAge/time.Minute))
	return wish
}
