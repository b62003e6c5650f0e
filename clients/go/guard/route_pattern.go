package guard

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

const (
	routeCharactersMax = 256
	nameCharactersMax  = 128
	anyMethod          = ""

	nameForm = `[a-z][a-z0-9_.-]*`
)

var (
	methodForm     = regexp.MustCompile(`^[A-Z][A-Z0-9_-]*$`)
	literalForm    = regexp.MustCompile(`^[A-Za-z0-9\-._~!$&'()+,=:@]+$`)
	variableForm   = regexp.MustCompile(`^\{([A-Za-z_][A-Za-z0-9_]*)\}$`)
	permissionForm = regexp.MustCompile(`^` + nameForm + `:` + nameForm + `$`)
	resourceForm   = regexp.MustCompile(`^(` + nameForm + `)/\{(.*)\}$`)
)

// route is a route of a map.
type route struct {
	text     string
	method   string
	segments []segment
	rest     bool // whether it ends with `**`
	slash    bool // whether it ends with a slash; the slash of `/`, which has no segments, counts
	needs    Needs
	// The type of the resource, empty for none, and the index of the segment with its id.
	resourceType  string
	resourcePlace int
	// How specific the route is: among routes that match the same path, the greatest rank applies. Per segment, 2 is
	// a literal, 1 a variable, and `**` is nothing; the 0 at the end means that the route ends there.
	rank []int
}

// segment is a literal, or a variable if the literal is empty.
type segment struct{ literal string }

// newRoute parses a route. The error is a sentence about the problem.
func newRoute(text string, needs Needs) (*route, error) {
	if utf8.RuneCountInString(text) > routeCharactersMax {
		return nil, fmt.Errorf("has more than %d characters", routeCharactersMax)
	}
	made := &route{text: text, needs: needs}
	target := text
	if space := strings.LastIndexByte(text, ' '); space >= 0 {
		made.method, target = text[:space], text[space+1:]
		if !methodForm.MatchString(made.method) {
			return nil, errors.New("must be a path such as /courses/{id}, or GET and one space before it")
		}
	}
	if !strings.HasPrefix(target, "/") {
		return nil, errors.New("its path must begin with /")
	}
	parts := strings.Split(target[1:], "/")
	last := len(parts) - 1
	made.rest, made.slash = parts[last] == "**", parts[last] == ""
	if made.rest || made.slash {
		parts = parts[:last]
	}
	variables := map[string]int{}
	for place, part := range parts {
		if variable := variableForm.FindStringSubmatch(part); variable != nil {
			if _, twice := variables[variable[1]]; twice {
				return nil, fmt.Errorf("names the variable %s twice", part)
			}
			variables[variable[1]] = place
			made.segments = append(made.segments, segment{})
			made.rank = append(made.rank, 1)
			continue
		}
		if err := checkLiteral(part); err != nil {
			return nil, err
		}
		made.segments = append(made.segments, segment{part})
		made.rank = append(made.rank, 2)
	}
	if !made.rest {
		made.rank = append(made.rank, 0)
	}
	return made, made.readNeeds(variables)
}

func checkLiteral(part string) error {
	switch {
	case part == "":
		return errors.New("has an empty segment")
	case strings.Contains(part, "*"):
		return errors.New("a * is only at the end, as **; one segment is a variable: {name}")
	case strings.HasPrefix(part, ":"):
		return fmt.Errorf("a variable is written {name}, not %s", part)
	case part == "." || part == "..":
		return errors.New("has a segment . or .., and every request for one is refused")
	case !literalForm.MatchString(part):
		return fmt.Errorf("the segment %q is neither a variable {name} nor letters, digits and "+
			"-._~!$&'()+,=:@", part)
	}
	return nil
}

func (r *route) readNeeds(variables map[string]int) error {
	needs := r.needs
	if needs.Public {
		if needs.Permission != "" || needs.Resource != "" {
			return errors.New("is public, and needs something")
		}
		return nil
	}
	if !permissionForm.MatchString(needs.Permission) || len(needs.Permission) > nameCharactersMax {
		return fmt.Errorf("%q is not a permission such as course:view", needs.Permission)
	}
	if needs.Resource == "" {
		return nil
	}
	found := resourceForm.FindStringSubmatch(needs.Resource)
	if found == nil || utf8.RuneCountInString(needs.Resource) > nameCharactersMax {
		return fmt.Errorf("%q is not a resource such as course/{id}", needs.Resource)
	}
	place, ok := variables[found[2]]
	if !ok {
		return fmt.Errorf("the path has no variable {%s}", found[2])
	}
	r.resourceType, r.resourcePlace = found[1], place
	return nil
}

// takes reports whether a route matches a path that it could match.
func (r *route) takes(read path) bool {
	if !r.rest && r.slash != read.slash {
		return false
	}
	for i, part := range r.segments {
		if part.literal != "" && part.literal != read.sent[i] {
			return false
		}
	}
	return true
}

// asks is the requirement of a request for a path that the route could match.
func (r *route) asks(read path) Asked {
	asked := Asked{Public: r.needs.Public, Permission: r.needs.Permission, ResourceType: r.resourceType}
	if r.resourceType != "" {
		asked.ResourceID = read.decoded[r.resourcePlace]
	}
	return asked
}

// asksAs reports whether both have the same requirement for every path; their variables have the same indexes.
func (r *route) asksAs(other *route) bool {
	return r.needs.Public == other.needs.Public && r.needs.Permission == other.needs.Permission &&
		r.resourceType == other.resourceType && r.resourcePlace == other.resourcePlace
}
