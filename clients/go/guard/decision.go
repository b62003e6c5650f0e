package guard

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Resource is what the actor wants to act upon. What the PDP has stored about it wins over what is said here.
type Resource struct {
	// Type is a lower-case resource type, e.g. `course`.
	Type string
	// ID is the application's own id; compared byte for byte.
	ID string
	// Attributes are read by conditions as `resource.attributes`; they hold what RequestFacts hold.
	Attributes map[string]any
	// OrganizationID is the Clerk organization that owns it, as your own database has it; never that of the token or
	// of the request. Read only where the PDP has not stored the resource; empty: not known.
	OrganizationID string
	// Parent is the resource above it; only its type and id are sent.
	Parent *Resource
}

// Question is one question of a batch.
type Question struct {
	// Permission is `resource-type:action`, e.g. `course:edit`.
	Permission string
	// Resource is nil where the permission needs none.
	Resource *Resource
	// Context holds facts of the request itself, as RequestFacts do.
	Context map[string]any
}

// Effect is what a decision is. The zero value is neither.
type Effect string

// The effects.
const (
	Allow Effect = "allow"
	Deny  Effect = "deny"
)

// DenialKind is what a guard turns a denial into. An allow has none.
type DenialKind string

// The kinds: 401 and 403.
const (
	KindUnauthenticated DenialKind = "unauthenticated"
	KindForbidden       DenialKind = "forbidden"
)

// Source is where a decision comes from.
type Source string

const (
	// Decided by the PDP for this very question.
	Decided Source = "decided"
	// Cached was given by a sidecar to an equal question before, and nothing that was told since touches it.
	Cached Source = "cached"
	// StayedOpen is as Cached, from a sidecar that is cut off and was told to let this permission stay open.
	StayedOpen Source = "stayed_open"
)

// Actor is who the token speaks for, as the PDP has verified it. The zero value is nobody, and no call of a
// guard that succeeds returns it.
type Actor struct {
	UserID    string
	SessionID string
	// OrganizationID is the active Clerk organization; empty: none.
	OrganizationID string
	// ImpersonatorID is who impersonates the user; empty: nobody.
	ImpersonatorID string
}

// Decision is the PDP's answer. The zero value allows nothing.
type Decision struct {
	Effect Effect
	// Reason is the name of a DecisionReason without its prefix, e.g. `TOKEN_EXPIRED`; the digits of one that
	// this client is too old to know.
	Reason string
	// Message is the reason as a sentence for people. Its wording may change.
	Message string
	// DenialKind is empty for an allow.
	DenialKind DenialKind
	// Actor is nil where the token was refused.
	Actor *Actor
	// DecisionID is the key to the audit log.
	DecisionID string
	// RuleID is the rule that decided, GrantID the grant through which it applies; empty: none.
	RuleID, GrantID string
	// Revision of policy and facts that was read.
	Revision uint64
	// ReusableUntil is until when the same question has the same answer; zero: not at all.
	ReusableUntil time.Time
	Source        Source
	// StepUp is a verification that would make a denial an allow; nil otherwise.
	StepUp *StepUp
}

// Factor says which factors are to be verified again, as Clerk's reverification calls them.
type Factor string

const (
	FirstFactor  Factor = "first_factor"
	SecondFactor Factor = "second_factor"
	MultiFactor  Factor = "multi_factor"
)

// StepUp is a verification that would make a denial an allow.
type StepUp struct {
	Factor Factor
	// MaxAge is how long ago it may have been when the question is asked again.
	MaxAge time.Duration
}

// Allowed says whether the actor may.
func (d Decision) Allowed() bool { return d.Effect == Allow && d.Actor != nil }

// PermissionSet says which permissions hold, of those that Can or Permissions asked for. The zero value holds nothing.
type PermissionSet struct{ holds map[held]bool }

type held struct {
	permission string
	resource   bool // whether there is one
	kind, id   string
}

// Holds says whether the permission holds on the resource (its type and id count; nil: without one). A question
// that was not asked does not hold.
func (s PermissionSet) Holds(permission string, resource *Resource) bool {
	return s.holds[heldOf(permission, resource)]
}

// MarshalJSON gives what holds, for a front end: a list of {"permission"} and, where there is a resource, "type"
// and "id".
func (s PermissionSet) MarshalJSON() ([]byte, error) {
	list := []map[string]string{}
	for one, holds := range s.holds {
		switch {
		case holds && one.resource:
			list = append(list, map[string]string{
				"permission": one.permission, "type": one.kind, "id": one.id,
			})
		case holds:
			list = append(list, map[string]string{"permission": one.permission})
		}
	}
	slices.SortFunc(list, func(a, b map[string]string) int {
		return cmp.Or(
			strings.Compare(a["permission"], b["permission"]),
			strings.Compare(a["type"], b["type"]),
			strings.Compare(a["id"], b["id"]),
		)
	})
	return json.Marshal(list)
}

func permissionSet(questions []Question, decisions []Decision) PermissionSet {
	set := PermissionSet{make(map[held]bool, len(questions))}
	for i, question := range questions {
		key := heldOf(question.Permission, question.Resource)
		before, asked := set.holds[key]
		set.holds[key] = decisions[i].Allowed() && (before || !asked)
	}
	return set
}

func heldOf(permission string, resource *Resource) held {
	if resource == nil {
		return held{permission: permission}
	}
	return held{permission, true, resource.Type, resource.ID}
}
