package guard

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Method is the requirement of a method of a gRPC server: a permission, or that it is public.
type Method struct {
	Permission string
	// Public lets every call pass, without a token and without an actor.
	Public bool
	// Resource finds the resource in the request; nil: the permission needs none. A method whose requests are a
	// stream has no single request, so it is refused if it has this.
	Resource func(request any) Resource
}

// Interceptors guard a gRPC server by the requirement of each method, `/package.Service/Method`. A method without
// one is refused with PERMISSION_DENIED, health and reflection too. The token is that of the only `authorization`
// in the metadata, of scheme Bearer. Install both: the first is for unary methods, the second for streams.
//
// A stream of answers to a request is guarded when the request is read, before the handler is called. If it may
// outlast the actor's rights, the handler must ask again with Require.
func (g *Guard) Interceptors(
	methods map[string]Method,
) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor, error) {
	for name, method := range methods {
		if !strings.HasPrefix(name, "/") || strings.Count(name, "/") != 2 {
			return nil, nil, fmt.Errorf("guard: %q is not a method such as /package.Service/Method", name)
		}
		if method.Public == (method.Permission != "") || method.Public && method.Resource != nil {
			return nil, nil, fmt.Errorf("guard: %s must need a permission, or be public", name)
		}
	}
	methods = maps.Clone(methods)

	unary := func(
		ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
	) (any, error) {
		method, named := methods[info.FullMethod]
		if !named {
			return nil, g.refuseMethod(ctx, info.FullMethod)
		}
		ctx, err := g.passCall(ctx, info.FullMethod, method, request)
		if err != nil {
			return nil, err
		}
		return handler(ctx, request)
	}

	stream := func(
		server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
	) error {
		method, named := methods[info.FullMethod]
		if !named {
			return g.refuseMethod(stream.Context(), info.FullMethod)
		}
		if method.Resource == nil {
			ctx, err := g.passCall(stream.Context(), info.FullMethod, method, nil)
			if err != nil {
				return err
			}
			return handler(server, &guardedStream{ServerStream: stream, ctx: ctx})
		}
		if info.IsClientStream {
			return status.Error(codes.Internal, "internal")
		}
		return handler(server, &guardedStream{
			ServerStream: stream,
			ctx:          stream.Context(),
			err:          errNotRead,
			pass: func(request any) (context.Context, error) {
				return g.passCall(stream.Context(), info.FullMethod, method, request)
			},
		})
	}
	return unary, stream, nil
}

// errNotRead is the error of a handler that answers before it has read a request.
var errNotRead = status.Error(codes.Internal, "internal")

// refuseMethod is the error for a method without a requirement.
func (g *Guard) refuseMethod(ctx context.Context, name string) error {
	err := &RouteRefused{noRoute}
	g.logRefusal(ctx, err, "gRPC", name)
	return err
}

// passCall returns the context with the actor, or the error for the caller.
func (g *Guard) passCall(
	ctx context.Context, name string, method Method, request any,
) (context.Context, error) {
	if method.Public {
		return ctx, nil
	}
	var resource *Resource
	if method.Resource != nil {
		value := method.Resource(request)
		resource = &value
	}
	actor, err := g.Require(ctx, callToken(ctx), method.Permission, resource)
	if err != nil {
		g.logRefusal(ctx, err, "gRPC", name)
		// Fails only in a call that has ended, or outside of a server.
		_ = grpc.SetTrailer(ctx, trailersOf(err))
		return nil, err
	}
	return withActor(ctx, actor), nil
}

// trailersOf is the trailing metadata of a call that an error ends, by docs/guards.md.
func trailersOf(err error) metadata.MD {
	trailers := metadata.MD{}
	if refused := refusalOf(err); refused != nil && refused.decision() != nil {
		decision := refused.decision()
		trailers.Set("decision-id", decision.DecisionID)
		if decision.StepUp != nil {
			trailers.Set("www-authenticate", challengeOf(decision.StepUp))
		}
	}
	return trailers
}

func callToken(ctx context.Context) Token {
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) == 1 {
		if token, ok := bearer(values[0]); ok {
			return NewToken(token)
		}
	}
	return Token{}
}

// guardedStream holds the actor. If pass is set, it asks about the first message that is read, and sends nothing
// until that message has passed.
type guardedStream struct {
	grpc.ServerStream
	ctx  context.Context
	pass func(request any) (context.Context, error)
	err  error
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) RecvMsg(message any) error {
	if s.pass == nil && s.err != nil { // A refusal is final.
		return s.err
	}
	if err := s.ServerStream.RecvMsg(message); err != nil || s.pass == nil {
		return err
	}
	ctx, err := s.pass(message)
	s.pass, s.err = nil, err
	if err == nil {
		s.ctx = ctx
	}
	return err
}

func (s *guardedStream) SendMsg(message any) error {
	if s.err != nil {
		return s.err
	}
	return s.ServerStream.SendMsg(message)
}
