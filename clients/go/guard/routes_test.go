package guard

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// conformance is a file of cases that every language runs.
func conformance(t *testing.T, name string, cases any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "conformance", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, cases); err != nil {
		t.Fatal(err)
	}
}

// writtenNeeds is what a route needs, as the cases write it.
type writtenNeeds struct{ Needs }

func (n *writtenNeeds) UnmarshalJSON(text []byte) error {
	if json.Unmarshal(text, &n.Permission) == nil {
		if n.Permission == "public" {
			n.Needs = Needs{Public: true}
		}
		return nil
	}
	written := struct {
		Permission string
		Resource   *string
	}{}
	if err := json.Unmarshal(text, &written); err != nil {
		return err
	}
	n.Permission = written.Permission
	if written.Resource != nil {
		n.Resource = *written.Resource
		if n.Resource == "" {
			n.Resource = "-" // In Go the empty text is none, so another value that is not a resource represents it here.
		}
	}
	return nil
}

func writtenRoutes(written map[string]writtenNeeds) (*Routes, error) {
	routes := map[string]Needs{}
	for text, needs := range written {
		routes[text] = needs.Needs
	}
	return NewRoutes(routes)
}

func TestARequestNeedsWhatTheMapSays(t *testing.T) {
	var suite struct {
		Maps []struct {
			Name   string
			Routes map[string]writtenNeeds
			Cases  []struct {
				Method, Path string
				Expect       any
			}
		}
		Invalid []struct {
			Name   string
			Routes map[string]writtenNeeds
		}
	}
	conformance(t, "routes.json", &suite)
	if len(suite.Maps) == 0 || len(suite.Invalid) == 0 {
		t.Fatal("no cases")
	}
	for _, one := range suite.Maps {
		t.Run(one.Name, func(t *testing.T) {
			routes, err := writtenRoutes(one.Routes)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range one.Cases {
				if found := matched(routes, c.Method, c.Path); !reflect.DeepEqual(found, c.Expect) {
					t.Errorf("%s %q: %v, not %v", c.Method, c.Path, found, c.Expect)
				}
			}
		})
	}
	for _, one := range suite.Invalid {
		t.Run("invalid: "+one.Name, func(t *testing.T) {
			_, err := writtenRoutes(one.Routes)
			if _, invalid := errors.AsType[*RouteMapInvalid](err); !invalid {
				t.Errorf("%v was taken: %v", one.Routes, err)
			}
		})
	}
}

// matched is what a case expects.
func matched(routes *Routes, method, path string) any {
	asked, err := routes.Match(method, path)
	switch {
	case err != nil:
		return "refused"
	case asked.Public:
		return "public"
	case asked.ResourceType == "":
		return map[string]any{"permission": asked.Permission}
	}
	return map[string]any{
		"permission": asked.Permission,
		"resource":   map[string]any{"type": asked.ResourceType, "id": asked.ResourceID},
	}
}

func TestNoMapAndTheZeroMapRefuseEverything(t *testing.T) {
	for _, routes := range []*Routes{nil, {}} {
		_, err := routes.Match("GET", "/")
		if refused, ok := errors.AsType[*RouteRefused](err); !ok || refused.Reason != "no_route" {
			t.Errorf("%v", err)
		}
	}
}

func TestARouteThatNeedsNothingIsRefused(t *testing.T) {
	for _, needs := range []Needs{{}, {Public: true, Permission: "a:b"}, {Resource: "a/{x}"}} {
		if _, err := NewRoutes(map[string]Needs{"/{x}": needs}); err == nil {
			t.Errorf("%+v was taken", needs)
		}
	}
}

func TestAMapSaysWhatIsWrongWithAllOfItsRoutes(t *testing.T) {
	_, err := NewRoutes(map[string]Needs{"/a/{x}": {Permission: "no"}, "b": {Public: true}})
	for _, part := range []string{`"/a/{x}": "no" is not a permission`, `"b": its path must begin with /`} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %q", part, err)
		}
	}
}

func TestAMapIsBounded(t *testing.T) {
	routes := map[string]Needs{}
	for i := range RoutesMax + 1 {
		routes[fmt.Sprintf("/%d", i)] = Needs{Public: true}
	}
	if _, err := NewRoutes(routes); err == nil {
		t.Errorf("%.100v", err)
	}
}
