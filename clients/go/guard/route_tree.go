package guard

import (
	"maps"
	"slices"
)

// routeStepsMax bounds judging a map: seconds. No map that people write comes near; and none is to stop a server.
const routeStepsMax = 200_000

// ends are routes that end at one place, by method. Those of one method differ in letter case or a slash.
type ends map[string][]*route

// node is where routes part. Letter case does not count here, and neither does a slash at the end.
type node struct {
	literals map[string]*node
	variable *node
	ends     ends
	rests    ends            // those that go on with `**`
	methods  map[string]bool // of all routes that end here or below
}

func newNode() node {
	return node{literals: map[string]*node{}, ends: ends{}, rests: ends{}, methods: map[string]bool{}}
}

// add puts a route into the tree of this root, and finds what is wrong with it and those at the same place.
func (n *node) add(added *route, found *problems) {
	at := n
	at.methods[added.method] = true
	for _, one := range added.segments {
		next := at.variable
		if one.literal != "" {
			next = at.literals[fold(one.literal)]
		}
		if next == nil {
			made := newNode()
			next = &made
			if one.literal != "" {
				at.literals[fold(one.literal)] = next
			} else {
				at.variable = next
			}
		}
		at = next
		at.methods[added.method] = true
	}
	place := at.ends
	if added.rest {
		place = at.rests
	}
	for _, other := range place[added.method] {
		switch {
		case other.slash == added.slash && slices.Equal(other.segments, added.segments):
			found.add("name the same paths", other.text, added.text)
		case !added.asksAs(other):
			found.add("differ only in letter case or a slash, and need different things",
				other.text, added.text)
		}
	}
	place[added.method] = append(place[added.method], added)
}

// couldTake is where the routes end that take a path if letter case, escapes and a slash at the end do not count.
func (n *node) couldTake(read path) []ends {
	var found []ends
	nodes := []*node{n}
	for _, segment := range read.folded {
		var below []*node
		for _, one := range nodes {
			found = append(found, one.rests)
			if next := one.literals[segment]; next != nil {
				below = append(below, next)
			}
			if one.variable != nil {
				below = append(below, one.variable)
			}
		}
		nodes = below
	}
	for _, one := range nodes {
		found = append(found, one.ends, one.rests)
	}
	return found
}

// pair is two nodes that one path may lead to. What is below one was more specific at first; where it is
// crossed, what is below the other was so further on.
type pair struct {
	one, other *node
	crossed    bool
}

// conflicts finds pairs of routes that could take one path while neither is the more specific.
func (n *node) conflicts(found *problems) {
	var pending []pair
	nodes := []*node{n}
	for len(nodes) > 0 {
		at := nodes[len(nodes)-1]
		nodes = append(nodes[:len(nodes)-1], at.children()...)
		if at.variable != nil && len(at.literals) > 0 {
			pending = append(pending, pair{merged(values(at.literals)), at.variable, false})
		}
	}
	for range routeStepsMax {
		if len(pending) == 0 || found.full() {
			return
		}
		last := len(pending) - 1
		next := pending[last]
		pending = append(pending[:last], next.judge(found)...)
	}
	if len(pending) > 0 {
		found.add("shares too many variables with too many other routes", pending[len(pending)-1].one.any().text)
	}
}

// judge finds the conflicts of what ends at a pair, and gives the pairs below.
func (p pair) judge(found *problems) []pair {
	one, other := p.one, p.other
	meets := func(method string) bool { return len(meeting(method, other.methods)) > 0 }
	if !slices.ContainsFunc(slices.Collect(maps.Keys(one.methods)), meets) {
		return nil
	}
	if p.crossed {
		conflict([]ends{one.ends, one.rests}, []ends{other.ends, other.rests}, found)
		if len(other.rests) > 0 {
			conflict(one.below(), []ends{other.rests}, found)
		}
	}
	if len(one.rests) > 0 {
		conflict([]ends{one.rests}, other.below(), found)
	}
	var below []pair
	for segment, literal := range one.literals {
		if otherLiteral := other.literals[segment]; otherLiteral != nil {
			below = append(below, pair{literal, otherLiteral, p.crossed})
		}
	}
	ones, others := one.children(), values(other.literals)
	if p.crossed {
		ones, others = values(one.literals), other.children()
	}
	if one.variable != nil && len(others) > 0 {
		below = append(below, pair{one.variable, merged(others), true})
	}
	if other.variable != nil && len(ones) > 0 {
		below = append(below, pair{merged(ones), other.variable, p.crossed})
	}
	return below
}

// conflict finds the pairs of routes, which take one path, of methods that meet.
func conflict(these, others []ends, found *problems) {
	for _, one := range these {
		for _, other := range others {
			for method, routes := range one {
				for _, otherMethod := range meeting(method, other) {
					for _, first := range routes {
						for _, second := range other[otherMethod] {
							if found.full() {
								return
							}
							found.add("could take the same path, and neither is the more specific",
								first.text, second.text)
						}
					}
				}
			}
		}
	}
}

// meeting is which of the other methods may be of one request with a method. A route for GET is for HEAD too.
func meeting[V any](method string, others map[string]V) []string {
	if method == anyMethod {
		return slices.Collect(maps.Keys(others))
	}
	candidates := []string{method, anyMethod}
	switch method {
	case "GET":
		candidates = append(candidates, "HEAD")
	case "HEAD":
		candidates = append(candidates, "GET")
	}
	return slices.DeleteFunc(candidates, func(one string) bool {
		_, there := others[one]
		return !there
	})
}

// merged is one node for several.
func merged(nodes []*node) *node {
	if len(nodes) == 1 {
		return nodes[0]
	}
	whole := newNode()
	literals := map[string][]*node{}
	var variables []*node
	for _, one := range nodes {
		for method, routes := range one.ends {
			whole.ends[method] = append(whole.ends[method], routes...)
		}
		for method, routes := range one.rests {
			whole.rests[method] = append(whole.rests[method], routes...)
		}
		maps.Copy(whole.methods, one.methods)
		for segment, child := range one.literals {
			literals[segment] = append(literals[segment], child)
		}
		if one.variable != nil {
			variables = append(variables, one.variable)
		}
	}
	for segment, some := range literals {
		whole.literals[segment] = merged(some)
	}
	if len(variables) > 0 {
		whole.variable = merged(variables)
	}
	return &whole
}

func (n *node) children() []*node {
	children := values(n.literals)
	if n.variable != nil {
		children = append(children, n.variable)
	}
	return children
}

// below are the ends of all nodes under this one.
func (n *node) below() []ends {
	var found []ends
	for _, child := range n.children() {
		found = append(found, child.ends, child.rests)
		found = append(found, child.below()...)
	}
	return found
}

// any is some route that ends here or below.
func (n *node) any() *route {
	for _, routes := range n.ends {
		return routes[0]
	}
	for _, routes := range n.rests {
		return routes[0]
	}
	return n.children()[0].any()
}

func values(nodes map[string]*node) []*node { return slices.Collect(maps.Values(nodes)) }
