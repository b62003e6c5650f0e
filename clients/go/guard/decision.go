package guard

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Resource is the resource that the actor wants to use. Values that the PDP has stored take precedence.
type Resource struct {
	// Type is a lower-case resource type, e.g. `course`.
	Type string
	// ID is the application's own id; compared byte for byte.
	ID string
	// Attributes are read by conditions as `resource.attributes`. They hold the same values as RequestFacts.
	Attributes map[string]any
	// OrganizationID is the Clerk organization that owns it, from your own database; never that of the token or of
	// the request. Used only if the PDP has not stored the resource; empty: unknown.
	OrganizationID string
	// Parent is the resource above it; only its type and id are sent.
	Parent *Resource
}

// Question is a question of a batch.
type Question struct {
	// Permission is `resource-type:action`, e.g. `course:edit`.
	Permission string
	// Resource is nil if the permission needs none.
	Resource *Resource
	// Context holds facts of the request itself, like RequestFacts.
	Context map[string]any
}

// Effect is the effect of a decision. The zero value is neither.
type Effect string

// The effects.
const (
	Allow Effect = "allow"
	Deny  Effect = "deny"
)

// DenialKind is the kind of a denial, which decides the HTTP status. An allow has none.
type DenialKind string

// The kinds: 401 and 403.
const (
	KindUnauthenticated DenialKind = "unauthenticated"
	KindForbidden       DenialKind = "forbidden"
)

// Source is the source of a decision.
type Source string

const (
	// Decided by the PDP for this very question.
	Decided Source = "decided"
	// Cached was made for an equal question before, and no later change affects it.
	Cached Source = "cached"
	// StayedOpen is like Cached, from a sidecar without a connection to the PDP, in the fail-open window that is
	// configured for this permission.
	StayedOpen Source = "stayed_open"
)

// Actor is the actor of the token, as the PDP has verified it. The zero value is no actor; no successful call of a
// guard returns it.
type Actor struct {
	UserID    string
	SessionID string
	// OrganizationID is the active Clerk organization; empty: none.
	OrganizationID string
	// ImpersonatorID is the user who impersonates the actor; empty: none.
	ImpersonatorID string
}

// Decision is the PDP's answer. The zero value allows nothing.
type Decision struct {
	Effect Effect
	// Reason is the name of a DecisionReason without its prefix, for example `TOKEN_EXPIRED`; the number of a reason
	// that only a newer client knows.
	Reason string
	// Message is the reason as a sentence for people. Its wording may change.
	Message string
	// DenialKind is empty for an allow.
	DenialKind DenialKind
	// Actor is nil if the token was refused.
	Actor *Actor
	// DecisionID is the id of the decision in the audit log.
	DecisionID string
	// RuleID is the rule that decided, GrantID the grant through which it applies; empty: none.
	RuleID, GrantID string
	// Revision is the revision of the policy and facts that the decision used.
	Revision uint64
	// ReusableUntil is until when the same question has the same answer; zero: not reusable.
	ReusableUntil time.Time
	Source        Source
	// StepUp is a verification that would make a denial an allow; otherwise nil.
	StepUp *StepUp
}

// Factor names the factors to verify again, as levels of Clerk's reverification.
type Factor string

const (
	FirstFactor  Factor = "first_factor"
	SecondFactor Factor = "second_factor"
	MultiFactor  Factor = "multi_factor"
)

// StepUp is a verification that would make a denial an allow.
type StepUp struct {
	Factor Factor
	// MaxAge is the greatest age of the verification when the question is asked again.
	MaxAge time.Duration
}

// Allowed reports whether the actor is allowed.
func (d Decision) Allowed() bool { return d.Effect == Allow && d.Actor != nil }

// PermissionSet holds the allowed permissions among those that Can or Permissions asked for. The zero value is
// empty.
type PermissionSet struct{ holds map[held]bool }

type held struct {
	permission string
	resource   bool // whether there is one
	kind, id   string
}

// Holds reports whether the permission holds on a resource with this type and id (nil: without a resource). A
// permission that was not asked for does not hold.
func (s PermissionSet) Holds(permission string, resource *Resource) bool {
	return s.holds[heldOf(permission, resource)]
}

// MarshalJSON writes the allowed permissions for a front end: a list of {"permission"} and, if there is a
// resource, "type" and "id".
func (s PermissionSet) MarshalJSON() ([]byte, error) {
	list := []map[string]string{}
	for key, holds := range s.holds {
		switch {
		case holds && key.resource:
			list = append(list, map[string]string{
				"permission": key.permission, "type": key.kind, "id": key.id,
			})
		case holds:
			list = append(list, map[string]string{"permission": key.permission})
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
