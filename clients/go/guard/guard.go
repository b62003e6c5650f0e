// Package guard asks the policy decision point (PDP), in a line before the business logic:
//
//	g, err := guard.New("dns:///pdp.internal:50051", guard.WithTLS(config), guard.WithAPIKey(key))
//	actor, err := g.Require(ctx, token, "course:edit", &guard.Resource{Type: "course", ID: id})
//
// In: the request's Clerk session token, a permission, a resource, facts of the request. Out: the verified actor,
// or an error, which always means: do not continue. The errors are [Unauthenticated] (401), [Forbidden] (403),
// [Unavailable] (503: there is no answer), [Refused] (500: the question is wrong) and [RouteRefused] (403).
//
// An allow is returned only for an answer that allows, names the actor and is consistent. Zero values allow
// nothing. A call ends within its deadline, retries included. No error and no printed value contains a token or an
// API key. A guard decides nothing, reads no claim of the token and caches nothing.
package guard

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pdpapiv1 "pdp.example/go/pdpapi/v1"
)

// BatchQuestionsMax is the most questions of a batch.
const BatchQuestionsMax = 1_000

const (
	retryPauseFirst = 25 * time.Millisecond
	retryPauseMax   = time.Second
)

// Guard asks a PDP. It is safe for concurrent use; create it once per process and keep it.
type Guard struct {
	deadline   time.Duration
	cookie     string
	logger     *slog.Logger // nil: slog.Default
	connection *grpc.ClientConn
	stub       pdpapiv1.PolicyDecisionServiceClient
	queries    pdpapiv1.AccessQueryServiceClient
	closed     chan struct{}
	closeOnce  sync.Once
}

// New makes a guard for the PDP at a target: `host:port`, `dns:///host:port` (all addresses of the name take
// turns), `ipv4:10.0.0.1:50051,10.0.0.2:50051`, `ipv6:[::1]:50051`, `unix:/run/pdp.sock`. Without [WithTLS] the
// connection is in clear text, which is refused beyond loopback unless [WithInsecure] is given. New does not wait
// for a connection: the first call does.
func New(target string, options ...Option) (*Guard, error) {
	settings := settings{deadline: 250 * time.Millisecond, cookie: "__session"}
	for _, option := range options {
		option(&settings)
	}
	connection, err := connect(target, settings)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return &Guard{
		deadline:   settings.deadline,
		cookie:     settings.cookie,
		logger:     settings.logger,
		connection: connection,
		stub:       pdpapiv1.NewPolicyDecisionServiceClient(connection),
		queries:    pdpapiv1.NewAccessQueryServiceClient(connection),
		closed:     make(chan struct{}),
	}, nil
}

// Close ends the connections. Calls in flight and later calls return Unavailable.
func (g *Guard) Close() error {
	g.closeOnce.Do(func() {
		close(g.closed)
		_ = g.connection.Close() // fails only if it was closed before
	})
	return nil
}

// AskOption is an optional part of a question.
type AskOption func(*asking)

type asking struct {
	context  map[string]any
	revision uint64
}

// RequestFacts are facts of the request itself; conditions read them as `context`. They hold JSON values: nil,
// bool, string, integers to 2^53, finite floats, []any, []string and map[string]any.
func RequestFacts(facts map[string]any) AskOption {
	return func(a *asking) { a.context = facts }
}

// AtLeastRevision is the revision of a write that the answer must reflect.
func AtLeastRevision(revision uint64) AskOption {
	return func(a *asking) { a.revision = revision }
}

func askingOf(options []AskOption) asking {
	var made asking
	for _, option := range options {
		option(&made)
	}
	return made
}

// Check asks whether the bearer of token may use permission on resource (nil: the permission needs none). It
// returns allows and denials without an error: read Decision.Allowed. The error is Unavailable or Refused.
func (g *Guard) Check(
	ctx context.Context, token Token, permission string, resource *Resource, options ...AskOption,
) (Decision, error) {
	asking := askingOf(options)
	question := Question{Permission: permission, Resource: resource, Context: asking.context}
	request, err := checkRequest(token, question, asking.revision)
	if err != nil {
		return Decision{}, err
	}
	answer, err := ask(ctx, g, token, g.stub.Check, request)
	if err != nil {
		return Decision{}, err
	}
	return decisionFromCheck(answer)
}

// Require returns the verified actor if they are allowed. Otherwise the error is Unauthenticated or Forbidden, or
// that of Check.
func (g *Guard) Require(
	ctx context.Context, token Token, permission string, resource *Resource, options ...AskOption,
) (Actor, error) {
	decision, err := g.Check(ctx, token, permission, resource, options...)
	if err != nil {
		return Actor{}, err
	}
	if !decision.Allowed() || decision.Actor == nil {
		return Actor{}, denied(decision)
	}
	return *decision.Actor, nil
}

// RequireRole is Require for the permission `role:<role>`, which the policy declares and gives to the role. It
// reads no claim of the token.
func (g *Guard) RequireRole(ctx context.Context, token Token, role string) (Actor, error) {
	return g.Require(ctx, token, "role:"+role, nil)
}

// Batch asks 1 to 1,000 questions of an actor. The decisions have the order of the questions and are all made at
// the same revision; read the Allowed of each. The error is that of Check. The only option is AtLeastRevision;
// each question has its own facts.
func (g *Guard) Batch(
	ctx context.Context, token Token, questions []Question, options ...AskOption,
) ([]Decision, error) {
	asking := askingOf(options)
	if asking.context != nil {
		return nil, unsendable("context", "a question of a batch has its own")
	}
	request, err := batchRequest(token, questions, asking.revision)
	if err != nil {
		return nil, err
	}
	answer, err := ask(ctx, g, token, g.stub.BatchCheck, request)
	if err != nil {
		return nil, err
	}
	return decisionsFromBatch(answer, len(questions))
}

// Can asks which of many questions are allowed, for display in a user interface: it guards nothing. A refused
// token gives the empty set. The error is that of Batch; the set is then empty.
func (g *Guard) Can(ctx context.Context, token Token, questions []Question) (PermissionSet, error) {
	if len(questions) == 0 {
		return PermissionSet{}, nil
	}
	decisions, err := g.Batch(ctx, token, questions)
	if err != nil {
		return PermissionSet{}, err
	}
	return permissionSet(questions, decisions), nil
}

// Permissions asks for all declared permissions that the actor has on each resource, for display in a user
// interface: it guards nothing. If a resource is given twice, a permission on it must hold both times. A refused
// token gives the empty set. All resources together may have at most 1,000 declared permissions of their types.
// The error is that of Check; the set is then empty.
func (g *Guard) Permissions(
	ctx context.Context, token Token, resources []Resource, options ...AskOption,
) (PermissionSet, error) {
	if len(resources) == 0 {
		return PermissionSet{}, nil
	}
	request, err := permissionsRequest(token, resources, askingOf(options))
	if err != nil {
		return PermissionSet{}, err
	}
	answer, err := ask(ctx, g, token, g.queries.ListAllowedPermissions, request)
	if err != nil {
		return PermissionSet{}, err
	}
	return permissionsFromAnswer(answer, resources)
}

// ask calls until there is an answer, a permanent error, or no time left. A retry is safe because no decision
// changes anything.
func ask[Request, Answer any](
	caller context.Context,
	g *Guard,
	token Token,
	method func(context.Context, Request, ...grpc.CallOption) (Answer, error),
	request Request,
) (Answer, error) {
	var none Answer
	// Metadata that the context carries for other services, such as credentials, is not for the PDP.
	ctx, cancel := context.WithTimeout(metadata.NewOutgoingContext(caller, nil), g.deadline)
	defer cancel()
	ends, _ := ctx.Deadline()
	longest := retryPauseFirst
	var failure *status.Status
	for {
		answer, err := method(ctx, request)
		if err == nil {
			return answer, nil
		}
		last := status.Convert(err)
		if why := ended(caller); why != nil { // The caller ended the call: no retry.
			return none, &Unavailable{Message: "the caller's context ended", Code: last.Code(), cause: why}
		}
		// If a retry ran out of time, the failure before it says more.
		if failure == nil || last.Code() != codes.DeadlineExceeded {
			failure = last
		}
		// Full jitter, so that guards that failed together do not retry together.
		pause := rand.N(longest)
		again := last.Code() == codes.Unavailable || last.Code() == codes.Canceled
		if !again || time.Now().Add(pause).After(ends) || !g.pause(ctx, pause) {
			return none, failureOf(failure, token)
		}
		longest = min(2*longest, retryPauseMax)
	}
}

// ended returns why a context has ended, even if its timer is late.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// pause waits; it returns false if the guard was closed or the time is over.
func (g *Guard) pause(ctx context.Context, pause time.Duration) bool {
	select {
	case <-g.closed: // Without this a closed guard would retry until its deadline.
		return false
	default:
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-g.closed:
	}
	return false
}
