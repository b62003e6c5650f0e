package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pdpapiv1 "pdp.example/go/pdpapi/v1"
)

const canary = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"

func TestRequireGivesTheActorOfAnAllow(t *testing.T) {
	g := guarding(t, answering(t, allowAll).address, patient)
	actor, err := g.Require(t.Context(), NewToken("a.b.c"), "course:edit", &Resource{Type: "course", ID: "1"})
	if err != nil || actor != (Actor{UserID: "user_ada", SessionID: "sess_1"}) {
		t.Errorf("%v %v", actor, err)
	}
}

func TestEverythingThatWasAskedIsSent(t *testing.T) {
	server := answering(t, allowAll)
	g := guarding(t, server.address, patient)
	course := &Resource{
		Type: "course", ID: "1", OrganizationID: "org_1", Parent: &Resource{Type: "school", ID: "2"},
		Attributes: map[string]any{"seats": 3, "tags": []string{"a"}},
	}
	_, err := g.Check(t.Context(), NewToken("a.b.c"), "course:edit", course,
		RequestFacts(map[string]any{"ip": "192.0.2.1"}), AtLeastRevision(7))
	if err != nil {
		t.Fatal(err)
	}
	sent := server.requests[0]
	if sent.GetActorToken() != "a.b.c" || sent.GetPermission() != "course:edit" ||
		sent.GetResource().GetType() != "course" || sent.GetResource().GetId() != "1" ||
		sent.GetResource().GetOrganizationId() != "org_1" ||
		sent.GetResource().GetParent().GetType() != "school" || sent.GetResource().GetParent().GetId() != "2" ||
		sent.GetResource().GetAttributes().AsMap()["seats"] != 3.0 ||
		sent.GetContext().AsMap()["ip"] != "192.0.2.1" || sent.GetAtLeastRevision() != 7 {
		t.Errorf("%v", sent)
	}
}

func TestZeroValuesAllowNothing(t *testing.T) {
	if (Decision{}).Allowed() || (Decision{Effect: Allow}).Allowed() {
		t.Error("a decision without an effect or an actor allows")
	}
	if (PermissionSet{}).Holds("", nil) {
		t.Error("the zero set holds something")
	}
	if _, ok := ActorFrom(context.Background()); ok {
		t.Error("there is an actor in an empty context")
	}
	for _, err := range []error{
		&Unauthenticated{}, &Forbidden{}, &Unavailable{}, &Refused{}, &RouteRefused{}, errors.New("other"),
	} {
		if HTTPStatus(err) < 400 {
			t.Errorf("%T is %d", err, HTTPStatus(err))
		}
	}
}

// silence answers when the test has ended.
func silence(t *testing.T) func(context.Context, *pdpapiv1.CheckRequest) (*pdpapiv1.CheckResponse, error) {
	t.Helper()
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	return func(context.Context, *pdpapiv1.CheckRequest) (*pdpapiv1.CheckResponse, error) {
		<-ended
		return allow(), nil
	}
}

func TestACallEndsWithinItsDeadline(t *testing.T) {
	server := answering(t, silence(t))
	g := guarding(t, server.address, WithDeadline(100*time.Millisecond))
	began := time.Now()
	_, err := g.Require(t.Context(), NewToken("a.b.c"), "a:b", nil)
	unavailable, ok := errors.AsType[*Unavailable](err)
	if !ok || unavailable.Code != codes.DeadlineExceeded || unavailable.Unwrap() != nil {
		t.Errorf("%#v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if g := guarding(t, server.address); g.deadline != 250*time.Millisecond {
		t.Errorf("by default it is %v", g.deadline)
	}
}

func TestTheCallersContextEndsACallAtOnceAndIsNotAskedAgain(t *testing.T) {
	began := make(chan struct{}, 9)
	silent := silence(t)
	server := answering(t, func(
		ctx context.Context, request *pdpapiv1.CheckRequest,
	) (*pdpapiv1.CheckResponse, error) {
		began <- struct{}{}
		return silent(ctx, request)
	})
	g := guarding(t, server.address, patient)
	for _, why := range []error{context.Canceled, context.DeadlineExceeded} {
		ctx, cancel := context.WithCancel(t.Context())
		if errors.Is(why, context.DeadlineExceeded) {
			ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		}
		go func() {
			<-began
			if errors.Is(why, context.Canceled) {
				cancel()
			}
		}()
		before := server.calls()
		_, err := g.Require(ctx, NewToken("a.b.c"), "a:b", nil)
		cancel()
		if _, ok := errors.AsType[*Unavailable](err); !ok || !errors.Is(err, why) {
			t.Errorf("%v: %#v", why, err)
		}
		if calls := server.calls() - before; calls != 1 {
			t.Errorf("%v: %d calls", why, calls)
		}
	}
}

func TestWhatTheContextCarriesForOtherServicesIsNotSent(t *testing.T) {
	server := answering(t, allowAll)
	g := guarding(t, server.address, patient, WithAPIKey("key-of-this-caller"))
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer other", "x-secret", "1")
	if _, err := g.Check(ctx, NewToken("a.b.c"), "a:b", nil); err != nil {
		t.Fatal(err)
	}
	sent := server.metadata[0]
	if got := sent["authorization"]; len(got) != 1 || got[0] != "Bearer key-of-this-caller" {
		t.Errorf("%v", got)
	}
	if sent["x-secret"] != nil {
		t.Errorf("%v", sent)
	}
}

func TestWithoutAnAPIKeyNoCredentialIsSent(t *testing.T) {
	server := answering(t, allowAll)
	if _, err := guarding(t, server.address, patient).Check(t.Context(), Token{}, "a:b", nil); err != nil {
		t.Fatal(err)
	}
	if server.metadata[0]["authorization"] != nil {
		t.Errorf("%v", server.metadata[0])
	}
}

func TestAClosedGuardSaysAtOnceThatThereIsNoAnswer(t *testing.T) {
	g := guarding(t, answering(t, allowAll).address, WithDeadline(time.Minute))
	for range 2 {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err := g.Require(t.Context(), NewToken("a.b.c"), "a:b", nil)
	if _, ok := errors.AsType[*Unavailable](err); !ok {
		t.Errorf("%#v", err)
	}
}

func TestClosingEndsACallThatIsAskedAgainAndAgain(t *testing.T) {
	server := answering(t, func(context.Context, *pdpapiv1.CheckRequest) (*pdpapiv1.CheckResponse, error) {
		return nil, status.Error(codes.Unavailable, "later")
	})
	g := guarding(t, server.address, WithDeadline(time.Minute))
	ended := make(chan error)
	go func() {
		_, err := g.Require(t.Context(), NewToken("a.b.c"), "a:b", nil)
		ended <- err
	}()
	for server.calls() < 3 {
		time.Sleep(time.Millisecond)
	}
	_ = g.Close()
	if _, ok := errors.AsType[*Unavailable](<-ended); !ok {
		t.Error("it was not Unavailable")
	}
}

func TestNoErrorRepeatsTheToken(t *testing.T) {
	for _, code := range []codes.Code{codes.InvalidArgument, codes.Internal, codes.Unavailable} {
		server := answering(t, func(
			_ context.Context, request *pdpapiv1.CheckRequest,
		) (*pdpapiv1.CheckResponse, error) {
			return nil, status.Errorf(code, "no: %s, %s", request.GetActorToken(), request.GetPermission())
		})
		g := guarding(t, server.address, WithDeadline(200*time.Millisecond))
		for _, token := range []string{canary, "an opaque token of another kind"} {
			// The second time the token is passed where the permission belongs.
			for _, permission := range []string{"a:b", canary} {
				_, err := g.Require(t.Context(), NewToken(token), permission, nil)
				if err == nil {
					t.Fatal("no error")
				}
				for _, shown := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, err)} {
					if strings.Contains(shown, token) || strings.Contains(shown, canary) {
						t.Errorf("%s", shown)
					}
				}
			}
		}
	}
}

func TestATokenShowsNothingOfItself(t *testing.T) {
	token := NewToken(canary)
	type holder struct {
		Exported   Token
		unexported Token
		pointer    *Token
	}
	held := holder{token, token, &token}
	var shown strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%p"} {
		fmt.Fprintf(&shown, verb+" ", token)
		fmt.Fprintf(&shown, verb+" ", held)
		fmt.Fprintf(&shown, verb+" ", []Token{token})
	}
	text, err := json.Marshal(map[string]any{"token": token, "held": held})
	if err != nil {
		t.Error(err)
	}
	shown.Write(text)
	for _, handler := range []slog.Handler{
		slog.NewTextHandler(&shown, nil), slog.NewJSONHandler(&shown, nil),
	} {
		slog.New(handler).Info("asked", "token", token, "held", held)
	}
	fmt.Fprint(&shown, token.String(), token.GoString())
	hexed := fmt.Sprintf("%x", canary)
	for _, secret := range []string{canary, canary[10:30], hexed[10:40]} {
		if strings.Contains(shown.String(), secret) {
			t.Errorf("%s", shown.String())
		}
	}
	if token.Reveal() != canary || (Token{}).Reveal() != "" {
		t.Error("a token does not reveal itself")
	}
}

func TestAGuardShowsNeitherKeyNorToken(t *testing.T) {
	g := guarding(t, "127.0.0.1:1", WithAPIKey("key-of-this-caller"))
	_, err := g.Require(t.Context(), NewToken(canary), "a:b", nil)
	for _, shown := range []string{fmt.Sprintf("%v %+v", g, g), fmt.Sprintf("%v %+v", err, err)} {
		if strings.Contains(shown, "key-of-this-caller") || strings.Contains(shown, canary) {
			t.Error(shown)
		}
	}
}

func TestATokenThatIsNoTextIsAskedAboutAsNone(t *testing.T) {
	server := answering(t, allowAll)
	g := guarding(t, server.address, patient)
	for _, token := range []Token{{}, NewToken("\xff\xfe")} {
		if _, err := g.Check(t.Context(), token, "a:b", nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, request := range server.requests {
		if request.GetActorToken() != "" {
			t.Errorf("%q", request.GetActorToken())
		}
	}
}

func TestAQuestionThatCannotBeSentIsRefusedHere(t *testing.T) {
	g := guarding(t, "127.0.0.1:1")
	ctx, token := t.Context(), Token{}
	facts := func(value any) AskOption { return RequestFacts(map[string]any{"secret": value}) }
	deep := any("x")
	for range 16 {
		deep = []any{deep}
	}
	asked := map[string]func() error{
		"permission": func() error { _, err := g.Check(ctx, token, "\xff", nil); return err },
		"id":         func() error { _, err := g.Check(ctx, token, "a:b", &Resource{ID: "\xff"}); return err },
		"no batch":   func() error { _, err := g.Batch(ctx, token, nil); return err },
		"long batch": func() error { _, err := g.Batch(ctx, token, make([]Question, 1001)); return err },
		"facts of a batch": func() error {
			_, err := g.Batch(ctx, token, make([]Question, 1), facts(1))
			return err
		},
	}
	for name, value := range map[string]any{
		"large": 1<<53 + 1, "small": -1<<53 - 1, "unsigned": uint64(1 << 63), "bytes": []byte("x"),
		"time": time.Now(), "duration": time.Second, "struct": struct{}{}, "number": json.Number("1"),
		"deep": deep, "text": "\xff", "pointer": new(int), "key": map[string]any{"\xff": 1},
		"infinite": math.Inf(1), "nan": math.NaN(), "error": io.EOF,
	} {
		asked[name] = func() error { _, err := g.Check(ctx, token, "a:b", nil, facts(value)); return err }
	}
	for name, ask := range asked {
		refused, ok := errors.AsType[*Refused](ask())
		if !ok || refused.Code != codes.OK || len(refused.Violations) != 1 || HTTPStatus(refused) != 500 {
			t.Errorf("%s: %#v", name, refused)
		}
	}
}

func TestWhatJSONKnowsIsSentExactly(t *testing.T) {
	made, err := toStruct(map[string]any{
		"null": nil, "bool": true, "text": "é", "int": -1 << 53, "uint": uint32(7), "float": float32(0.5),
		"list": []any{1, "a", nil}, "texts": []string{"a"}, "map": map[string]any{"a": map[string]any{}},
	}, "context", 1)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(made.AsMap())
	want := `{"bool":true,"float":0.5,"int":-9007199254740992,"list":[1,"a",null],"map":{"a":{}},` +
		`"null":null,"text":"é","texts":["a"],"uint":7}`
	if string(text) != want {
		t.Errorf("%s", text)
	}
}

func TestASetHoldsWhereAllQuestionsOfOneThingHold(t *testing.T) {
	one, two := &Resource{Type: "course", ID: "1"}, &Resource{Type: "course", ID: "2"}
	yes, no := Decision{Effect: Allow, Actor: &Actor{UserID: "u"}}, Decision{Effect: Deny}
	set := permissionSet(
		[]Question{{"a:b", one, nil}, {"a:b", one, nil}, {"a:b", two, nil}, {"a:b", nil, nil}, {"a:c", one, nil}},
		[]Decision{yes, no, yes, no, yes},
	)
	if set.Holds("a:b", one) || !set.Holds("a:b", two) || set.Holds("a:b", nil) || !set.Holds("a:c", one) ||
		set.Holds("a:c", two) || set.Holds("a:d", nil) || set.Holds("a:b", &Resource{}) {
		t.Errorf("%v", set)
	}
	for want, set := range map[string]PermissionSet{
		`[]`: {}, `[{"id":"2","permission":"a:b","type":"course"},{"id":"1","permission":"a:c","type":"course"}]`: set,
	} {
		if text, err := json.Marshal(set); err != nil || string(text) != want {
			t.Errorf("%s %v", text, err)
		}
	}
}
