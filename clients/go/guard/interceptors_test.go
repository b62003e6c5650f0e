package guard

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pdpapiv1 "pdp.example/go/pdpapi/v1"
)

const (
	unaryMethod  = "/pdpapi.v1.PolicyDecisionService/Check"
	batchMethod  = "/pdpapi.v1.PolicyDecisionService/BatchCheck"
	streamMethod = "/pdpapi.v1.ChangeService/Watch"
	bidiMethod   = "/test.Chat/Talk"
)

// application is a guarded server. Its services are some that are there; what they say is who called.
type application struct {
	pdpapiv1.UnimplementedPolicyDecisionServiceServer
	pdpapiv1.UnimplementedChangeServiceServer
	called atomic.Int64
}

func (a *application) Check(ctx context.Context, _ *pdpapiv1.CheckRequest) (*pdpapiv1.CheckResponse, error) {
	a.called.Add(1)
	actor, _ := ActorFrom(ctx)
	return &pdpapiv1.CheckResponse{Message: actor.UserID}, nil
}

func (a *application) Watch(
	_ *pdpapiv1.WatchRequest, stream grpc.ServerStreamingServer[pdpapiv1.WatchResponse],
) error {
	a.called.Add(1)
	actor, _ := ActorFrom(stream.Context())
	if err := stream.SetHeader(metadata.Pairs("x-actor", actor.UserID)); err != nil {
		return err
	}
	return stream.Send(&pdpapiv1.WatchResponse{})
}

// talk is a handler of a stream in both directions that answers before it has read anything.
func (a *application) talk(_ any, stream grpc.ServerStream) error {
	a.called.Add(1)
	return stream.SendMsg(&pdpapiv1.WatchResponse{})
}

// calling gives a connection to an application that is guarded by methods.
func calling(t *testing.T, g *Guard, methods map[string]Method) (*application, *grpc.ClientConn) {
	t.Helper()
	unary, stream, err := g.Interceptors(methods)
	if err != nil {
		t.Fatal(err)
	}
	made := &application{}
	server := grpc.NewServer(grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(stream))
	pdpapiv1.RegisterPolicyDecisionServiceServer(server, made)
	pdpapiv1.RegisterChangeServiceServer(server, made)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Chat",
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{
			{StreamName: "Talk", Handler: made.talk, ServerStreams: true, ClientStreams: true},
		},
	}, made)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	connection, err := grpc.NewClient(
		listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return made, connection
}

func with(t *testing.T, credentials ...string) context.Context {
	t.Helper()
	ctx := t.Context()
	for _, one := range credentials {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", one)
	}
	return ctx
}

// watch reads the whole stream and gives who the server took the caller for.
func watch(ctx context.Context, connection *grpc.ClientConn) (string, error) {
	stream, err := pdpapiv1.NewChangeServiceClient(connection).Watch(ctx, &pdpapiv1.WatchRequest{})
	if err != nil {
		return "", err
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if !errors.Is(err, io.EOF) {
		return "", err
	}
	header, err := stream.Header()
	return header.Get("x-actor")[0], err
}

func course(any) Resource { return Resource{Type: "course", ID: "1"} }

func TestUnaryMethodsAreGuardedByTheMap(t *testing.T) {
	pdp := answering(t, byPermission)
	g := guarding(t, pdp.address, patient)
	for _, c := range []struct {
		name        string
		method      Method
		credentials []string
		code        codes.Code
		actor       string
	}{
		{"allowed", Method{Permission: "a:allowed", Resource: course}, []string{"Bearer a.b.c"}, codes.OK, "user_ada"},
		{"the scheme in small letters", Method{Permission: "a:allowed"}, []string{"bearer a.b.c"}, codes.OK, "user_ada"},
		{"public", Method{Public: true}, nil, codes.OK, ""},
		{"forbidden", Method{Permission: "a:other"}, []string{"Bearer a.b.c"}, codes.PermissionDenied, ""},
		{"no token", Method{Permission: "a:allowed"}, nil, codes.Unauthenticated, ""},
		{"two tokens", Method{Permission: "a:allowed"}, []string{"Bearer a.b.c", "Bearer a.b.c"}, codes.Unauthenticated, ""},
		{"another scheme", Method{Permission: "a:allowed"}, []string{"Basic a.b.c"}, codes.Unauthenticated, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			made, connection := calling(t, g, map[string]Method{unaryMethod: c.method})
			client := pdpapiv1.NewPolicyDecisionServiceClient(connection)
			answer, err := client.Check(with(t, c.credentials...), &pdpapiv1.CheckRequest{})
			if status.Code(err) != c.code || answer.GetMessage() != c.actor {
				t.Errorf("%v %v", answer, err)
			}
			if called := made.called.Load() == 1; called != (c.code == codes.OK) {
				t.Errorf("called: %v", called)
			}
			if c.code == codes.PermissionDenied && status.Convert(err).Message() != "forbidden (decision decision-2)" {
				t.Errorf("%v", err)
			}
			_, err = client.BatchCheck(with(t, "Bearer a.b.c"), &pdpapiv1.BatchCheckRequest{})
			if status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != "forbidden" {
				t.Errorf("a method that is not named: %v", err)
			}
		})
	}
	if id := pdp.requests[0].GetResource().GetId(); id != "1" {
		t.Errorf("the resource is %q", id)
	}
}

func TestStreamsAreGuardedBeforeTheirHandlers(t *testing.T) {
	g := guarding(t, answering(t, byPermission).address, patient)
	for _, resource := range []func(any) Resource{nil, course} {
		for permission, code := range map[string]codes.Code{
			"a:allowed": codes.OK, "a:other": codes.PermissionDenied,
		} {
			made, connection := calling(t, g, map[string]Method{
				streamMethod: {Permission: permission, Resource: resource},
				bidiMethod:   {Permission: permission, Resource: resource},
			})
			actor, err := watch(with(t, "Bearer a.b.c"), connection)
			if status.Code(err) != code || (actor == "user_ada") != (code == codes.OK) {
				t.Errorf("%s: %q %v", permission, actor, err)
			}
			if called := made.called.Load() == 1; called != (code == codes.OK) {
				t.Errorf("%s: called: %v", permission, called)
			}
			if _, err := watch(t.Context(), connection); status.Code(err) != codes.Unauthenticated {
				t.Errorf("without a token: %v", err)
			}
		}
	}
}

func TestADenialThatAVerificationWouldLiftHasItsChallenge(t *testing.T) {
	answer := func(context.Context, *pdpapiv1.CheckRequest) (*pdpapiv1.CheckResponse, error) {
		denial := deny(pdpapiv1.DenialKind_DENIAL_KIND_FORBIDDEN)
		denial.StepUp = &pdpapiv1.StepUp{
			Factor: pdpapiv1.StepUp_FACTOR_SECOND, MaxAge: durationpb.New(540 * time.Second),
		}
		return denial, nil
	}
	g := guarding(t, answering(t, answer).address, patient)
	const challenge = `Bearer error="insufficient_user_authentication", acr_values="second_factor", max_age="540"`
	for _, resource := range []func(any) Resource{nil, course} {
		made, connection := calling(t, g, map[string]Method{
			unaryMethod: {Permission: "a:b", Resource: resource}, streamMethod: {Permission: "a:b", Resource: resource},
		})
		var trailers metadata.MD
		_, err := pdpapiv1.NewPolicyDecisionServiceClient(connection).
			Check(with(t, "Bearer a.b.c"), &pdpapiv1.CheckRequest{}, grpc.Trailer(&trailers))
		if status.Code(err) != codes.PermissionDenied || !slices.Equal(trailers.Get("www-authenticate"), []string{challenge}) {
			t.Errorf("%v %v", err, trailers)
		}
		stream, err := pdpapiv1.NewChangeServiceClient(connection).
			Watch(with(t, "Bearer a.b.c"), &pdpapiv1.WatchRequest{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		if status.Code(err) != codes.PermissionDenied ||
			!slices.Equal(stream.Trailer().Get("www-authenticate"), []string{challenge}) {
			t.Errorf("%v %v", err, stream.Trailer())
		}
		if made.called.Load() != 0 {
			t.Error("it was called")
		}
	}
}

func TestAStreamOfRequestsHasNoResource(t *testing.T) {
	g := guarding(t, answering(t, byPermission).address, patient)
	for _, c := range []struct {
		methods map[string]Method
		code    codes.Code
	}{
		{map[string]Method{bidiMethod: {Permission: "a:allowed"}}, codes.OK},
		{map[string]Method{bidiMethod: {Permission: "a:other"}}, codes.PermissionDenied},
		{map[string]Method{bidiMethod: {Permission: "a:allowed", Resource: course}}, codes.Internal},
		{map[string]Method{unaryMethod: {Public: true}}, codes.PermissionDenied},
	} {
		made, connection := calling(t, g, c.methods)
		stream, err := connection.NewStream(
			with(t, "Bearer a.b.c"), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, bidiMethod)
		if err != nil {
			t.Fatal(err)
		}
		err = stream.RecvMsg(&pdpapiv1.WatchResponse{})
		if status.Code(err) != c.code || (made.called.Load() == 1) != (c.code == codes.OK) {
			t.Errorf("%v: %v", c.methods, err)
		}
	}
}

func TestAHandlerThatAnswersAnUnreadRequestSendsNothing(t *testing.T) {
	stream := &guardedStream{err: errNotRead, pass: func(any) (context.Context, error) { return nil, nil }}
	if err := stream.SendMsg(nil); status.Code(err) != codes.Internal {
		t.Errorf("%v", err)
	}
}

func TestWithoutAPDPNoMethodIsCalled(t *testing.T) {
	made, connection := calling(t, guarding(t, "127.0.0.1:1"), map[string]Method{
		unaryMethod: {Permission: "a:allowed"}, streamMethod: {Permission: "a:allowed", Resource: course},
	})
	_, err := pdpapiv1.NewPolicyDecisionServiceClient(connection).
		Check(with(t, "Bearer a.b.c"), &pdpapiv1.CheckRequest{})
	if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "unavailable" {
		t.Errorf("%v", err)
	}
	if _, err := watch(with(t, "Bearer a.b.c"), connection); status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
	if made.called.Load() != 0 {
		t.Error("it was called")
	}
}

func TestAMapOfMethodsThatDoesNotHoldIsRefused(t *testing.T) {
	g := guarding(t, "127.0.0.1:1")
	for _, methods := range []map[string]Method{
		{unaryMethod: {}},
		{unaryMethod: {Public: true, Permission: "a:b"}},
		{unaryMethod: {Public: true, Resource: course}},
		{"Check": {Permission: "a:b"}},
		{"pdpapi.v1.PolicyDecisionService/Check": {Permission: "a:b"}},
		{batchMethod + "/x": {Permission: "a:b"}},
	} {
		if _, _, err := g.Interceptors(methods); err == nil {
			t.Errorf("%v was taken", methods)
		}
	}
}
