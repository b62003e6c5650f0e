package guard

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	// RoutesMax is the most routes of a map.
	RoutesMax = 10_000

	routeProblemsMax = 100
	pathAmbiguous    = "ambiguous_path"
	noRoute          = "no_route"
)

// Needs is the requirement of a route: a permission, or that it is public.
type Needs struct {
	// Permission is `resource-type:action`, for example `course:view`.
	Permission string
	// Resource is `type/{variable}`: the variable of the path that has the id of the resource; empty: none.
	Resource string
	// Public lets every request pass, without a token and without an actor.
	Public bool
}

// Asked is the question of a request.
type Asked struct {
	// Public: no question. The other fields are then empty.
	Public     bool
	Permission string
	// ResourceType and ResourceID, percent-decoded once; both are empty if there is no resource.
	ResourceType, ResourceID string
}

func (a Asked) resource() *Resource {
	if a.ResourceType == "" {
		return nil
	}
	return &Resource{Type: a.ResourceType, ID: a.ResourceID}
}

// Routes is a route map: the requirements of requests, by method and path, as docs/guards.md says. It is
// immutable. Nil and the zero value refuse every request.
type Routes struct{ root node }

// RouteMapInvalid is the error of an invalid map.
type RouteMapInvalid struct{ Problems []RouteProblem }

// RouteProblem is a problem of a route, or of two conflicting routes.
type RouteProblem struct {
	Routes []string
	Text   string
}

func (e *RouteMapInvalid) Error() string {
	lines := make([]string, len(e.Problems))
	for i, problem := range e.Problems {
		quoted := make([]string, len(problem.Routes))
		for j, route := range problem.Routes {
			quoted[j] = fmt.Sprintf("%.300q", route)
		}
		lines[i] = strings.Join(quoted, " and ") + ": " + problem.Text
	}
	return "route map: " + strings.Join(lines, "; ")
}

// NewRoutes makes a map of routes, such as `GET /courses/{id}`, with their requirements. The error is
// RouteMapInvalid: a route is malformed, or two routes could match the same path and neither is more specific.
func NewRoutes(routes map[string]Needs) (*Routes, error) {
	made := &Routes{newNode()}
	var found problems
	if len(routes) > RoutesMax {
		found.add(fmt.Sprintf("a map has at most %d routes, not %d", RoutesMax, len(routes)))
		return nil, &RouteMapInvalid{found.list}
	}
	for _, text := range slices.Sorted(maps.Keys(routes)) {
		route, err := newRoute(text, routes[text])
		if err != nil {
			found.add(err.Error(), text)
			continue
		}
		made.root.add(route, &found)
	}
	made.root.conflicts(&found)
	if len(found.list) > 0 {
		return nil, &RouteMapInvalid{found.list}
	}
	return made, nil
}

// Match returns the requirement of a request. Method and path are those that were received: the path neither
// decoded nor cleaned; its query is ignored. The error is RouteRefused.
func (r *Routes) Match(method, path string) (Asked, error) {
	read, err := readPath(path)
	if err != nil {
		return Asked{}, err
	}
	if r == nil {
		return Asked{}, &RouteRefused{noRoute}
	}
	var found []candidate
	for _, ends := range r.root.couldTake(read) {
		for weight, named := range methodsOf(method) {
			for _, route := range ends[named] {
				found = append(found, candidate{route, len(methodsOf(method)) - weight})
			}
		}
	}
	var matching *candidate
	for i, candidate := range found {
		if candidate.route.takes(read) && (matching == nil || candidate.compare(*matching) > 0) {
			matching = &found[i]
		}
	}
	if matching == nil {
		return Asked{}, &RouteRefused{noRoute}
	}
	asked := matching.route.asks(read)
	for _, other := range found {
		// A program that reads the path less carefully might apply this route.
		if other.compare(*matching) >= 0 && other.route.asks(read) != asked {
			return Asked{}, &RouteRefused{pathAmbiguous}
		}
	}
	return asked, nil
}

// candidate is a route that could match a path, and how well its method fits.
type candidate struct {
	route  *route
	weight int
}

func (c candidate) compare(other candidate) int {
	if order := slices.Compare(c.route.rank, other.route.rank); order != 0 {
		return order
	}
	return c.weight - other.weight
}

// methodsOf returns the route methods that match a request, the best first.
func methodsOf(method string) []string {
	switch method {
	case "HEAD":
		return []string{"HEAD", "GET", anyMethod}
	case anyMethod:
		return []string{anyMethod}
	}
	return []string{method, anyMethod}
}

type problems struct{ list []RouteProblem }

func (p *problems) full() bool { return len(p.list) >= routeProblemsMax }

func (p *problems) add(text string, routes ...string) {
	if !p.full() {
		p.list = append(p.list, RouteProblem{routes, text})
	}
}
