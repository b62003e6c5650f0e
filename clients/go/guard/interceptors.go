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

// Method is what a method of a gRPC server needs: a permission, or that it is said to be public.
type Method struct {
	Permission string
	// Public lets everybody pass, without a token and without an actor.
	Public bool
	// Resource finds in the request what is acted upon; nil: the permission needs none. A method whose requests
	// are a stream has no one request, and is refused where it has this.
	Resource func(request any) Resource
}

// Interceptors guard a gRPC server by what each method, `/package.Service/Method`, needs. A method that is not
// named is refused with PERMISSION_DENIED, health and reflection too. The token is that of the one `authorization`
// of the metadata, of scheme Bearer. Install both: one is for unary methods, one for streams.
//
// A stream of answers to one request is guarded when the request is read, before the handler is called. Of one
// that goes on after the actor's rights ended, the handler asks again by Require.
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

// errNotRead is for a handler that answers an unread request.
var errNotRead = status.Error(codes.Internal, "internal")

// refuseMethod is the error for a method that is not named.
func (g *Guard) refuseMethod(ctx context.Context, name string) error {
	err := &RouteRefused{noRoute}
	g.logRefusal(ctx, err, "gRPC", name)
	return err
}

// passCall gives the context with the actor, or what the caller is answered.
func (g *Guard) passCall(
	ctx context.Context, name string, method Method, request any,
) (context.Context, error) {
	if method.Public {
		return ctx, nil
	}
	var resource *Resource
	if method.Resource != nil {
		one := method.Resource(request)
		resource = &one
	}
	actor, err := g.Require(ctx, callToken(ctx), method.Permission, resource)
	if err != nil {
		g.logRefusal(ctx, err, "gRPC", name)
		return nil, err
	}
	return withActor(ctx, actor), nil
}

func callToken(ctx context.Context) Token {
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) == 1 {
		if token, ok := bearer(values[0]); ok {
			return NewToken(token)
		}
	}
	return Token{}
}

// guardedStream holds the actor and, where pass is there, asks about the first message that is read. Until it
// has passed, nothing is sent.
type guardedStream struct {
	grpc.ServerStream
	ctx  context.Context
	pass func(request any) (context.Context, error)
	err  error
}

func (s *guardedStream) Context() context.Context { return s.ctx }

func (s *guardedStream) RecvMsg(message any) error {
	if s.pass == nil && s.err != nil { // It was refused, and stays so.
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
