// Package guard is the one line before the business logic that asks the policy decision point (PDP):
//
//	g, err := guard.New("dns:///pdp.internal:50051", guard.WithTLS(config), guard.WithAPIKey(key))
//	actor, err := g.Require(ctx, token, "course:edit", &guard.Resource{Type: "course", ID: id})
//
// In: the request's Clerk session token, a permission, a resource, facts of the request. Out: the verified
// actor, or an error, which always means: do not go on. The errors are [Unauthenticated] (401),
// [Forbidden] (403), [Unavailable] (503: there is no answer), [Refused] (500: the question is wrong) and
// [RouteRefused] (403).
//
// An allow is given only for an answer that says so, names the actor and contradicts itself nowhere. Zero
// values allow nothing. A call ends within its deadline, repetitions included. No token and no API key
// stands in an error or in what printing a value shows. A guard decides nothing, reads no claim of the token
// and keeps nothing.
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

// BatchQuestionsMax is how many questions a batch has at most.
const BatchQuestionsMax = 1_000

const (
	retryPauseFirst = 25 * time.Millisecond
	retryPauseMax   = time.Second
)

// Guard asks one PDP. It is safe for concurrent use; make one per process and keep it.
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

// New makes a guard for the PDP at a target: `host:port`, `dns:///host:port` (every address behind the name is
// used in turn), `ipv4:10.0.0.1:50051,10.0.0.2:50051`, `ipv6:[::1]:50051`, `unix:/run/pdp.sock`. Without
// [WithTLS] the connection is clear text, which beyond loopback is refused unless [WithInsecure] is given.
// It waits for no connection: the first call does.
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

// Close ends the connections. Calls in flight and later ones give Unavailable.
func (g *Guard) Close() error {
	g.closeOnce.Do(func() {
		close(g.closed)
		_ = g.connection.Close() // fails only where it was closed before
	})
	return nil
}

// AskOption is something that a question says besides token, permission and resource.
type AskOption func(*asking)

type asking struct {
	context  map[string]any
	revision uint64
}

// RequestFacts are facts of the request itself, read by conditions as `context`. They hold what JSON knows:
// nil, bool, string, integers to 2^53, finite floats, []any, []string and map[string]any.
func RequestFacts(facts map[string]any) AskOption {
	return func(a *asking) { a.context = facts }
}

// AtLeastRevision asks for an answer that has seen the write that gave this revision.
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

// Check asks whether the bearer of token may use permission on resource (nil: the permission needs none). Both
// answers are returned without an error: look at Decision.Allowed. The error is Unavailable or Refused.
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

// Require returns the verified actor if they may. Otherwise the error is Unauthenticated or Forbidden, or what
// Check gives.
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

// RequireRole is Require of the permission `role:<role>`, which the policy declares and gives to the role. No
// claim of the token is read.
func (g *Guard) RequireRole(ctx context.Context, token Token, role string) (Actor, error) {
	return g.Require(ctx, token, "role:"+role, nil)
}

// Batch answers 1 to 1,000 questions of one actor, in order, all at one revision. Look at the Allowed of each.
// The error is what Check gives. Of the options it takes AtLeastRevision; each question has its own facts.
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

// Can asks which of many questions hold, for a user interface to show: it guards nothing. A refused token gives
// the empty set. The error is what Batch gives; the set is then empty.
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

// Permissions asks for all declared permissions that the actor has on each resource, for a user interface to show:
// it guards nothing. A permission holds on a resource that is given twice if it does so both times. A refused token
// gives the empty set. All resources together have at most 1,000 declared permissions of their types. The error is
// what Check gives; the set is then empty.
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

// ask calls until there is an answer, an error that will stay, or no time left. Repeating is safe because no
// decision changes anything.
func ask[Request, Answer any](
	caller context.Context,
	g *Guard,
	token Token,
	method func(context.Context, Request, ...grpc.CallOption) (Answer, error),
	request Request,
) (Answer, error) {
	var none Answer
	// What the context carries for other services (credentials among it) is not for the PDP.
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
		if why := ended(caller); why != nil { // Who ended this does not want it again.
			return none, &Unavailable{Message: "the caller's context ended", Code: last.Code(), cause: why}
		}
		// Where a repetition ran out of time, why there was one says more.
		if failure == nil || last.Code() != codes.DeadlineExceeded {
			failure = last
		}
		// Full jitter: guards that failed together do not come back together.
		pause := rand.N(longest)
		again := last.Code() == codes.Unavailable || last.Code() == codes.Canceled
		if !again || time.Now().Add(pause).After(ends) || !g.pause(ctx, pause) {
			return none, failureOf(failure, token)
		}
		longest = min(2*longest, retryPauseMax)
	}
}

// ended is why a context has ended, also where its time is over and its timer is late.
func ended(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return nil
}

// pause waits; it says no where the guard was closed or the time is over.
func (g *Guard) pause(ctx context.Context, pause time.Duration) bool {
	select {
	case <-g.closed: // Without this a guard that is closed would ask until its deadline.
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
