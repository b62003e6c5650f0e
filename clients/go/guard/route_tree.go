package guard

import (
	"maps"
	"slices"
)

// routeStepsMax bounds the search for conflicts in a map to seconds. No real map comes near it, and no map may
// stop a server.
const routeStepsMax = 200_000

// ends are routes that end at a node, by method. Routes of the same method differ in letter case or a slash.
type ends map[string][]*route

// node is a node of the tree of routes. It ignores letter case and a slash at the end.
type node struct {
	literals map[string]*node
	variable *node
	ends     ends
	rests    ends            // routes that continue with `**`
	methods  map[string]bool // methods of all routes that end here or below
}

func newNode() node {
	return node{literals: map[string]*node{}, ends: ends{}, rests: ends{}, methods: map[string]bool{}}
}

// add adds a route to the tree of this root, and finds its conflicts with routes at the same node.
func (n *node) add(added *route, found *problems) {
	at := n
	at.methods[added.method] = true
	for _, part := range added.segments {
		next := at.variable
		if part.literal != "" {
			next = at.literals[fold(part.literal)]
		}
		if next == nil {
			made := newNode()
			next = &made
			if part.literal != "" {
				at.literals[fold(part.literal)] = next
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

// couldTake returns the ends of the routes that match a path if letter case, escapes and a slash at the end are
// ignored.
func (n *node) couldTake(read path) []ends {
	var found []ends
	nodes := []*node{n}
	for _, segment := range read.folded {
		var below []*node
		for _, current := range nodes {
			found = append(found, current.rests)
			if next := current.literals[segment]; next != nil {
				below = append(below, next)
			}
			if current.variable != nil {
				below = append(below, current.variable)
			}
		}
		nodes = below
	}
	for _, current := range nodes {
		found = append(found, current.ends, current.rests)
	}
	return found
}

// pair is two nodes that the same path may lead to. Routes below left were more specific at first; if the pair is
// crossed, routes below the right were so at a later segment.
type pair struct {
	left, right *node
	crossed     bool
}

// conflicts finds pairs of routes that could match the same path, neither of them more specific.
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
		found.add("shares too many variables with too many other routes", pending[len(pending)-1].left.any().text)
	}
}

// judge finds the conflicts of the routes that end at a pair, and returns the pairs below it.
func (p pair) judge(found *problems) []pair {
	left, right := p.left, p.right
	meets := func(method string) bool { return len(meeting(method, right.methods)) > 0 }
	if !slices.ContainsFunc(slices.Collect(maps.Keys(left.methods)), meets) {
		return nil
	}
	if p.crossed {
		conflict([]ends{left.ends, left.rests}, []ends{right.ends, right.rests}, found)
		if len(right.rests) > 0 {
			conflict(left.below(), []ends{right.rests}, found)
		}
	}
	if len(left.rests) > 0 {
		conflict([]ends{left.rests}, right.below(), found)
	}
	var below []pair
	for segment, literal := range left.literals {
		if rightLiteral := right.literals[segment]; rightLiteral != nil {
			below = append(below, pair{literal, rightLiteral, p.crossed})
		}
	}
	lefts, rights := left.children(), values(right.literals)
	if p.crossed {
		lefts, rights = values(left.literals), right.children()
	}
	if left.variable != nil && len(rights) > 0 {
		below = append(below, pair{left.variable, merged(rights), true})
	}
	if right.variable != nil && len(lefts) > 0 {
		below = append(below, pair{merged(lefts), right.variable, p.crossed})
	}
	return below
}

// conflict finds the pairs whose methods overlap, of routes that match the same path.
func conflict(these, others []ends, found *problems) {
	for _, byMethod := range these {
		for _, other := range others {
			for method, routes := range byMethod {
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

// meeting returns the methods among others that overlap with a method. A route for GET also matches HEAD.
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
	return slices.DeleteFunc(candidates, func(name string) bool {
		_, there := others[name]
		return !there
	})
}

// merged merges several nodes into a new node.
func merged(nodes []*node) *node {
	if len(nodes) == 1 {
		return nodes[0]
	}
	whole := newNode()
	literals := map[string][]*node{}
	var variables []*node
	for _, current := range nodes {
		for method, routes := range current.ends {
			whole.ends[method] = append(whole.ends[method], routes...)
		}
		for method, routes := range current.rests {
			whole.rests[method] = append(whole.rests[method], routes...)
		}
		maps.Copy(whole.methods, current.methods)
		for segment, child := range current.literals {
			literals[segment] = append(literals[segment], child)
		}
		if current.variable != nil {
			variables = append(variables, current.variable)
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

// any returns a route that ends here or below.
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
