package guard

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	// RoutesMax is how many routes a map has at most.
	RoutesMax = 10_000

	routeProblemsMax = 100
	pathAmbiguous    = "ambiguous_path"
	noRoute          = "no_route"
)

// Needs is what a route needs: a permission, or that it is said to be public.
type Needs struct {
	// Permission is `resource-type:action`, e.g. `course:view`.
	Permission string
	// Resource is `type/{variable}`: the variable of the path that is the id of the resource; empty: none.
	Resource string
	// Public lets everybody pass, without a token and without an actor.
	Public bool
}

// Asked is what the PDP is to be asked about one request.
type Asked struct {
	// Public: nothing. The others are then empty.
	Public     bool
	Permission string
	// ResourceType and ResourceID, percent-decoded once; both are empty where there is no resource.
	ResourceType, ResourceID string
}

func (a Asked) resource() *Resource {
	if a.ResourceType == "" {
		return nil
	}
	return &Resource{Type: a.ResourceType, ID: a.ResourceID}
}

// Routes is a route map: what requests need, by method and path, as docs/guards.md says. It is immutable. Nil
// and the zero value refuse everything.
type Routes struct{ root node }

// RouteMapInvalid is a map that cannot be used.
type RouteMapInvalid struct{ Problems []RouteProblem }

// RouteProblem is what is wrong with one route, or with two that do not go together.
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

// NewRoutes makes a map of routes, `GET /courses/{id}`, and what each needs. The error is RouteMapInvalid: a route is
// not well-formed, or two could take the same path and neither is the more specific.
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

// Match is what a request needs. The method and the path are those that were received: the path neither decoded
// nor cleaned; a query is passed over. The error is RouteRefused.
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
	var standing *candidate
	for i, one := range found {
		if one.route.takes(read) && (standing == nil || one.compare(*standing) > 0) {
			standing = &found[i]
		}
	}
	if standing == nil {
		return Asked{}, &RouteRefused{noRoute}
	}
	asked := standing.route.asks(read)
	for _, other := range found {
		// For a program that reads the path with less care, this one stands.
		if other.compare(*standing) >= 0 && other.route.asks(read) != asked {
			return Asked{}, &RouteRefused{pathAmbiguous}
		}
	}
	return asked, nil
}

// candidate is a route that could take a path, and how well its method fits.
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

// methodsOf are the methods of routes that take a request, the best first.
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
