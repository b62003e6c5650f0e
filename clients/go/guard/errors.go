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

// refusal is what all errors of a guard are. Each always means: do not go on.
type refusal interface {
	error
	httpStatus() int
	// word and the decision's id are what a stranger is told. It says no reason, because WRONG_ORGANIZATION tells
	// a stranger that there is something.
	word() string
	decision() *Decision // nil: there was none
	// GRPCStatus makes a handler of a gRPC server that returns the error answer with the right code.
	GRPCStatus() *status.Status
}

// HTTPStatus is what a web application answers: 200 for nil, 500 for an error that is not a guard's.
func HTTPStatus(err error) int {
	if err == nil {
		return http.StatusOK
	}
	if refused := refusalOf(err); refused != nil {
		return refused.httpStatus()
	}
	return http.StatusInternalServerError
}

// refusalOf is the error of a guard that an error is or wraps; nil: none.
func refusalOf(err error) refusal {
	refused, _ := errors.AsType[refusal](err)
	return refused
}

// Unauthenticated is a denial: the token does not prove who asks (401).
type Unauthenticated struct{ Decision Decision }

// Forbidden is a denial: the actor is known and may not (403).
type Forbidden struct{ Decision Decision }

// Unavailable is that there is no answer (503): the PDP is out of reach, out of time, or what it said is no
// answer. Asking again may help. Where the caller's context ended, errors.Is finds why.
type Unavailable struct {
	Message string
	// Code of the call; OK where an answer came and broke the contract.
	Code codes.Code
	// Reason is the name of an ErrorReason without its prefix, e.g. `FACTS_STALE`; empty: not given.
	Reason string
	cause  error
}

// Refused is that the PDP does not take the question (500): it is malformed, or this caller may not ask. Asking
// again does not help.
type Refused struct {
	Message string
	// Code of the call; OK where it was not sent, because it cannot be.
	Code codes.Code
	// Reason is the name of an ErrorReason without its prefix, e.g. `REQUEST_INVALID`; empty: not given.
	Reason string
	// Violations are the fields that are wrong, where they are named.
	Violations []Violation
}

// Violation is one thing that is wrong with a request: where, and what.
type Violation struct{ Field, Description string }

// RouteRefused is a request that no route names, or whose path another program could read otherwise (403).
type RouteRefused struct {
	// Reason is `no_route` or `ambiguous_path`.
	Reason string
}

func (e *Unauthenticated) Error() string { return denialText(e.Decision) }
func (e *Forbidden) Error() string       { return denialText(e.Decision) }
func (e *Unavailable) Error() string     { return failureText(e.Code, e.Reason, e.Message, nil) }
func (e *Refused) Error() string         { return failureText(e.Code, e.Reason, e.Message, e.Violations) }
func (e *RouteRefused) Error() string    { return "route refused: " + e.Reason }

// Unwrap returns why the caller's context ended, if it did.
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

// GRPCStatus is UNAVAILABLE, without what the PDP said.
func (e *Unavailable) GRPCStatus() *status.Status { return grpcStatus(codes.Unavailable, e) }

// GRPCStatus is INTERNAL, without what the PDP said.
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
	for _, one := range violations {
		parts = append(parts, fmt.Sprintf("(%s: %s)", one.Field, one.Description))
	}
	return strings.Join(parts, " ")
}

// codeName is the name of a code as every language writes it, e.g. DEADLINE_EXCEEDED.
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
	return &Unavailable{Message: "what the PDP sent is not an answer: " + what}
}

// unsendable is a question that cannot be sent: the caller's mistake.
func unsendable(field, description string) error {
	return &Refused{Message: "the question cannot be sent", Violations: []Violation{{field, description}}}
}

// failureOf is the error for a failed call: every status code has one, and none is an allow.
func failureOf(failed *status.Status, token Token) error {
	message := withoutTokens(failed.Message(), token)
	reason, violations := detailsOf(failed, token)
	switch failed.Code() {
	case codes.ResourceExhausted:
		// It is both: a limit of the contract (asking again does not help), or a server that is full.
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

// detailsOf gives ErrorInfo's reason and BadRequest's violations. Details that are unreadable are passed over,
// because the status code alone already says that there is no answer.
func detailsOf(failed *status.Status, token Token) (string, []Violation) {
	var reason string
	var violations []Violation
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = withoutTokens(detail.GetReason(), token)
		case *errdetails.BadRequest:
			for _, one := range detail.GetFieldViolations() {
				violations = append(violations, Violation{
					withoutTokens(one.GetField(), token), withoutTokens(one.GetDescription(), token),
				})
			}
		}
	}
	return reason, violations
}

const redacted = "<token>"

var tokenShape = regexp.MustCompile(`eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?`)

// withoutTokens: a peer may repeat what it was sent, and the token must not come back in an error. A token that
// was passed as another argument by mistake is known by its shape.
func withoutTokens(text string, token Token) string {
	if secret := token.Reveal(); len(secret) > len(redacted) {
		text = strings.ReplaceAll(text, secret, redacted)
	}
	return tokenShape.ReplaceAllString(text, redacted)
}
