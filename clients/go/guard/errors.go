package guard

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// refusal is implemented by all errors of a guard. Each always means: do not continue.
type refusal interface {
	error
	httpStatus() int
	// word and the decision's id are shown to strangers. They contain no reason, because WRONG_ORGANIZATION would
	// reveal that a resource exists.
	word() string
	decision() *Decision // nil: there was none
	// GRPCStatus gives the right code to a handler of a gRPC server that returns the error.
	GRPCStatus() *status.Status
}

// HTTPStatus is the status of the answer: 200 for nil, 500 for an error that is not a guard's.
func HTTPStatus(err error) int {
	if err == nil {
		return http.StatusOK
	}
	if refused := refusalOf(err); refused != nil {
		return refused.httpStatus()
	}
	return http.StatusInternalServerError
}

// refusalOf returns the guard's error that an error is or wraps; nil: none.
func refusalOf(err error) refusal {
	refused, _ := errors.AsType[refusal](err)
	return refused
}

// Unauthenticated is a denial: the token does not prove the actor's identity (401).
type Unauthenticated struct{ Decision Decision }

// Forbidden is a denial: the actor is known and not allowed (403).
type Forbidden struct{ Decision Decision }

// Unavailable means that there is no answer (503): the PDP is unreachable, did not answer in time, or sent an
// invalid answer. A retry may help. If the caller's context ended, errors.Is finds the cause.
type Unavailable struct {
	Message string
	// Code of the call; OK if an answer broke the contract.
	Code codes.Code
	// Reason is the name of an ErrorReason without its prefix, e.g. `FACTS_STALE`; empty: not given.
	Reason string
	cause  error
}

// Refused means that the PDP rejects the question (500): it is malformed, or this caller may not ask it. A retry
// does not help.
type Refused struct {
	Message string
	// Code of the call; OK if it cannot be sent.
	Code codes.Code
	// Reason is the name of an ErrorReason without its prefix, e.g. `REQUEST_INVALID`; empty: not given.
	Reason string
	// Violations are the malformed fields, if the PDP named them.
	Violations []Violation
}

// Violation is a problem of a request: the field and the reason.
type Violation struct{ Field, Description string }

// RouteRefused is a request that matches no route, or whose path is ambiguous (403).
type RouteRefused struct {
	// Reason is `no_route` or `ambiguous_path`.
	Reason string
}

func (e *Unauthenticated) Error() string { return denialText(e.Decision) }
func (e *Forbidden) Error() string       { return denialText(e.Decision) }
func (e *Unavailable) Error() string     { return failureText(e.Code, e.Reason, e.Message, nil) }
func (e *Refused) Error() string         { return failureText(e.Code, e.Reason, e.Message, e.Violations) }
func (e *RouteRefused) Error() string    { return "route refused: " + e.Reason }

// Unwrap returns the cause of the end of the caller's context, if it ended.
func (e *Unavailable) Unwrap() error { return e.cause }

func (*Unauthenticated) httpStatus() int { return http.StatusUnauthorized }
func (*Forbidden) httpStatus() int       { return http.StatusForbidden }
func (*Unavailable) httpStatus() int     { return http.StatusServiceUnavailable }
func (*Refused) httpStatus() int         { return http.StatusInternalServerError }
func (*RouteRefused) httpStatus() int    { return http.StatusForbidden }

func (*Unauthenticated) word() string { return "unauthenticated" }
func (*Forbidden) word() string       { return "forbidden" }
func (*Unavailable) word() string     { return "unavailable" }
func (*Refused) word() string         { return "internal" }
func (*RouteRefused) word() string    { return "forbidden" }

func (e *Unauthenticated) decision() *Decision { return &e.Decision }
func (e *Forbidden) decision() *Decision       { return &e.Decision }
func (*Unavailable) decision() *Decision       { return nil }
func (*Refused) decision() *Decision           { return nil }
func (*RouteRefused) decision() *Decision      { return nil }

// GRPCStatus is UNAUTHENTICATED with the decision's id.
func (e *Unauthenticated) GRPCStatus() *status.Status { return grpcStatus(codes.Unauthenticated, e) }

// GRPCStatus is PERMISSION_DENIED with the decision's id.
func (e *Forbidden) GRPCStatus() *status.Status { return grpcStatus(codes.PermissionDenied, e) }

// GRPCStatus is UNAVAILABLE, without the text of the PDP.
func (e *Unavailable) GRPCStatus() *status.Status { return grpcStatus(codes.Unavailable, e) }

// GRPCStatus is INTERNAL, without the text of the PDP.
func (e *Refused) GRPCStatus() *status.Status { return grpcStatus(codes.Internal, e) }

// GRPCStatus is PERMISSION_DENIED.
func (e *RouteRefused) GRPCStatus() *status.Status { return grpcStatus(codes.PermissionDenied, e) }

func grpcStatus(code codes.Code, refused refusal) *status.Status {
	word := refused.word()
	if decision := refused.decision(); decision != nil {
		word += " (decision " + decision.DecisionID + ")"
	}
	return status.New(code, word)
}

func denialText(decision Decision) string {
	return fmt.Sprintf("%s: %s (decision %s)", decision.Reason, decision.Message, decision.DecisionID)
}

func failureText(failed codes.Code, reason, message string, violations []Violation) string {
	var parts []string
	if failed != codes.OK {
		parts = append(parts, codeName(failed))
	}
	for _, part := range []string{reason, message} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	for _, violation := range violations {
		parts = append(parts, fmt.Sprintf("(%s: %s)", violation.Field, violation.Description))
	}
	return strings.Join(parts, " ")
}

// codeName is the name of a code as in the other languages, for example DEADLINE_EXCEEDED.
func codeName(failed codes.Code) string {
	if name, ok := code.Code_name[int32(failed)]; ok {
		return name
	}
	return failed.String()
}

func denied(decision Decision) error {
	if decision.DenialKind == KindUnauthenticated {
		return &Unauthenticated{decision}
	}
	return &Forbidden{decision}
}

func noAnswer(what string) error {
	return &Unavailable{Message: "the PDP sent an invalid answer: " + what}
}

// unsendable is the error for a question that cannot be sent: a mistake of the caller.
func unsendable(field, description string) error {
	return &Refused{Message: "the question cannot be sent", Violations: []Violation{{field, description}}}
}

// failureOf is the error for a failed call. Every status code has one; none is an allow.
func failureOf(failed *status.Status, token Token) error {
	message := withoutTokens(failed.Message(), token)
	reason, violations := detailsOf(failed, token)
	switch failed.Code() {
	case codes.ResourceExhausted:
		// It has two meanings: a limit of the contract (a retry does not help), or a server at capacity.
		if reason != "LIMIT_EXCEEDED" {
			break
		}
		fallthrough
	case codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.PermissionDenied,
		codes.Unauthenticated, codes.FailedPrecondition, codes.OutOfRange, codes.Unimplemented:
		return &Refused{Message: message, Code: failed.Code(), Reason: reason, Violations: violations}
	}
	return &Unavailable{Message: message, Code: failed.Code(), Reason: reason}
}

// detailsOf returns ErrorInfo's reason and BadRequest's violations. Unreadable details are ignored, because the
// status code alone shows that there is no answer.
func detailsOf(failed *status.Status, token Token) (string, []Violation) {
	var reason string
	var violations []Violation
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = withoutTokens(detail.GetReason(), token)
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				violations = append(violations, Violation{
					withoutTokens(violation.GetField(), token), withoutTokens(violation.GetDescription(), token),
				})
			}
		}
	}
	return reason, violations
}

const redacted = "<token>"

var tokenShape = regexp.MustCompile(`eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?`)

// withoutTokens removes tokens from a peer's text, which may repeat the request. A token that was passed as
// another argument by mistake is recognised by its form.
func withoutTokens(text string, token Token) string {
	if secret := token.Reveal(); len(secret) > len(redacted) {
		text = strings.ReplaceAll(text, secret, redacted)
	}
	return tokenShape.ReplaceAllString(text, redacted)
}
