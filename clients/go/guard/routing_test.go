package guard

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	pathpkg "path"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// routing is one route of a map, and of a ServeMux.
type routing struct {
	method   string // empty: all
	segments []string
	rest     bool
	needs    Needs
}

func isVariable(segment string) bool { return strings.HasPrefix(segment, "{") }

func (r routing) text(prefix string) string {
	text := prefix + "/" + strings.Join(r.segments, "/")
	if r.rest {
		text = strings.TrimSuffix(text, "/") + "/**"
	}
	return strings.TrimLeft(r.method+" "+text, " ")
}

// register puts a handler into a ServeMux, below some of the segments. `**` is a path and what is below it.
func (r routing) register(mux *http.ServeMux, prefix string, segments []string, handler http.Handler) {
	pattern := strings.TrimLeft(r.method+" "+prefix+"/"+strings.Join(segments, "/"), " ")
	if r.rest {
		pattern = strings.TrimSuffix(pattern, "/")
		mux.Handle(pattern+"/{rest...}", handler)
	}
	if strings.Contains(pattern, "/") {
		mux.Handle(pattern, handler)
	}
}

func (r routing) variable() string {
	for _, segment := range slices.Backward(r.segments) {
		if isVariable(segment) {
			return strings.Trim(segment, "{}")
		}
	}
	return ""
}

var (
	routingLiterals = []string{"admin", "Admin", "a", "b", "courses"}
	routingValues   = []string{"1", "a", "admin", "ADMIN", "%C3%A9", "x.y", "m"}
)

func choose[T any](random *rand.Rand, choices ...T) T { return choices[random.IntN(len(choices))] }

// drawRoutings draws routes that go together in a map.
func drawRoutings(random *rand.Rand, prefix string) ([]routing, *Routes) {
	for {
		var routings []routing
		needs := map[string]Needs{}
		for i := range 2 + random.IntN(5) {
			one := routing{method: choose(random, "", "", "GET", "POST")}
			for place := range random.IntN(4) {
				segment := choose(random, routingLiterals...)
				if random.IntN(10) < 3 {
					segment = fmt.Sprintf("{v%d}", place)
				}
				one.segments = append(one.segments, segment)
			}
			one.rest = len(one.segments) == 0 || random.IntN(10) < 4
			switch {
			case random.IntN(10) == 0:
				one.needs.Public = true
			default:
				one.needs.Permission = fmt.Sprintf("route_%d:allowed", i)
				if variable := one.variable(); variable != "" {
					one.needs.Resource = "thing/{" + variable + "}"
				}
			}
			needs[one.text(prefix)] = one.needs
			routings = append(routings, one)
		}
		if made, err := NewRoutes(needs); err == nil && len(needs) == len(routings) {
			return routings, made
		}
	}
}

// ran is what a handler says about itself: its route, and the value that it reads as the id of the resource.
type ran struct {
	routing routing
	id      string
}

// muxOf has a handler for each route, some of them in a ServeMux of their own behind StripPrefix. Nil: a ServeMux
// does not take these patterns together.
func muxOf(random *rand.Rand, routings []routing, prefix string, report func(ran)) (mux *http.ServeMux) {
	defer func() {
		if recover() != nil {
			mux = nil
		}
	}()
	mux = http.NewServeMux()
	inner := map[string]*http.ServeMux{}
	for _, one := range routings {
		handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			report(ran{one, r.PathValue(cmp.Or(one.variable(), "none"))})
		})
		if len(one.segments) == 0 || isVariable(one.segments[0]) || len(one.segments) == 1 && !one.rest {
			one.register(mux, prefix, one.segments, handler)
			continue
		}
		first := one.segments[0]
		if _, decided := inner[first]; !decided {
			inner[first] = nil
			if random.IntN(2) == 0 {
				inner[first] = http.NewServeMux()
				mux.Handle(prefix+"/"+first+"/", http.StripPrefix(prefix+"/"+first, inner[first]))
			}
		}
		if inner[first] == nil {
			one.register(mux, prefix, one.segments, handler)
		} else {
			one.register(inner[first], "", one.segments[1:], handler)
		}
	}
	return mux
}

// changing are handlers that change the path before a guard sees it.
var changing = map[string]func(http.Handler) http.Handler{
	"nothing":  func(next http.Handler) http.Handler { return next },
	"stripped": func(next http.Handler) http.Handler { return http.StripPrefix("/m", next) },
	"cleaned": func(next http.Handler) http.Handler {
		return rewritten(next, func(u *url.URL) { u.Path, u.RawPath = pathpkg.Clean(u.Path), "" })
	},
	"decoded": func(next http.Handler) http.Handler {
		return rewritten(next, func(u *url.URL) { u.RawPath = "" })
	},
	"folded": func(next http.Handler) http.Handler {
		return rewritten(next, func(u *url.URL) { u.Path, u.RawPath = strings.ToLower(u.Path), "" })
	},
}

func rewritten(next http.Handler, change func(*url.URL)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		changed := r.Clone(r.Context())
		change(changed.URL)
		next.ServeHTTP(w, changed)
	})
}

// drawTarget draws a request target of one of the routes, often spoilt.
func drawTarget(random *rand.Rand, routings []routing, prefix string) string {
	one := choose(random, routings...)
	target := prefix
	if random.IntN(10) == 0 {
		target = choose(random, "", "/m", "/m/m", "/a")
	}
	for _, segment := range one.segments {
		if isVariable(segment) {
			segment = choose(random, routingValues...)
		}
		target += "/" + segment
	}
	if one.rest {
		target += choose(random, "", "/", "/a", "/admin/1", "/courses/%C3%A9/")
	}
	target = cmp.Or(target, "/")
	for range choose(random, 0, 0, 1, 1, 2) {
		target = cmp.Or(spoilt(random, target), "/")
	}
	return target
}

func spoilt(random *rand.Rand, target string) string {
	at := random.IntN(len(target))
	switch random.IntN(8) {
	case 0:
		return fmt.Sprintf("%s%%%02x%s", target[:at], target[at], target[at+1:])
	case 1:
		return target[:at] + choose(random, strings.ToUpper, strings.ToLower)(target[at:at+1]) + target[at+1:]
	case 2:
		return target + choose(random, "/", "?x=/admin", ";x", "%00", "%20", "/..", "/.", "%2f", "%3fx")
	case 3:
		last := strings.LastIndex(target, "/")
		between := choose(random, "//", "/./", "/x/../", "/%2e/", "/x/%2e%2e/", "%2f", "\\")
		return target[:max(last, 0)] + between + target[last+1:]
	case 4:
		return choose(random, "http://localhost", "//localhost", "/m", "/x/..") + target
	case 5:
		return cmp.Or(strings.TrimSuffix(target, "/"), "/")
	case 6:
		return strings.TrimPrefix(target, "/")
	}
	return target
}

// The handler that a ServeMux finds is the handler of the route that was judged, however ServeMuxes are nested and
// whatever changed the path before. `go test -fuzz` looks for more.
func FuzzTheHandlerThatRunsIsTheOneThatWasJudged(f *testing.F) {
	for seed := range uint64(150) {
		f.Add(seed)
	}
	var handled, applications atomic.Int64
	f.Cleanup(func() {
		if seeds := applications.Load(); seeds >= 150 && handled.Load() < seeds {
			f.Errorf("%d requests to %d applications came to a handler", handled.Load(), seeds)
		}
	})
	f.Fuzz(func(t *testing.T, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 0))
		pdp := answering(t, byPermission)
		g := guarding(t, pdp.address, patient)
		prefix := choose(random, "", "/m")
		var found []ran
		report := func(one ran) { found = append(found, one) }
		var routings []routing
		var routes *Routes
		var mux *http.ServeMux
		for mux == nil {
			routings, routes = drawRoutings(random, prefix)
			mux = muxOf(random, routings, prefix, report)
		}
		change := choose(random, "nothing", "nothing", "nothing", "stripped", "cleaned", "decoded", "folded")
		server := httptest.NewServer(changing[change](g.Middleware(routes)(mux)))
		defer server.Close()
		for range 20 {
			method := choose(random, "GET", "GET", "POST", "HEAD", "PUT", "CONNECT")
			target := drawTarget(random, routings, prefix)
			found = nil
			pdp.requests = nil
			if err := exchange(server.Listener.Addr(), method, target); err != nil {
				t.Fatal(err)
			}
			if len(found) == 0 {
				continue
			}
			handled.Add(1)
			needs := found[0].routing.needs
			asked := make([]Asked, 0, 1)
			for _, one := range pdp.requests {
				asked = append(asked, Asked{Permission: one.GetPermission(), ResourceID: one.GetResource().GetId()})
			}
			want := []Asked{{Permission: needs.Permission, ResourceID: found[0].id}}
			if needs.Public {
				want = nil
			}
			if len(found) > 1 || !slices.Equal(asked, want) {
				t.Errorf("%s %s of %v, path %s: %v ran, %v was judged", method, target, routings, change, found, asked)
			}
		}
		applications.Add(1)
	})
}

// exchange sends a request as it is written, and reads the answer.
func exchange(address net.Addr, method, target string) (err error) {
	connection, err := net.Dial(address.Network(), address.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	_, err = fmt.Fprintf(connection, "%s %s%sHost: localhost\r\nConnection: close\r\n\r\n", method, target, bearerLine)
	if err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(connection), &http.Request{Method: method})
	if err != nil {
		return err
	}
	return answer.Body.Close()
}
