package guard

import (
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/resolver"
)

func TestClearTextStaysOnTheLoopback(t *testing.T) {
	for _, target := range []string{
		"127.0.0.1:50051", "127.8.9.1", "localhost:50051", "localhost", "[::1]:50051", "[::1]", "::1",
		"dns:///localhost:50051", "dns:localhost:50051", "ipv4:127.0.0.1:1,127.0.0.2:2", "ipv6:[::1]:1",
		"unix:/run/pdp.sock", "unix:///run/pdp.sock", "unix-abstract:pdp",
	} {
		guarding(t, target, WithAPIKey("key"))
	}
	for _, target := range []string{
		"pdp.internal:50051", "10.0.0.1:50051", "dns:///pdp.internal:50051", "ipv4:127.0.0.1:1,10.0.0.1:2",
		"ipv6:[2001:db8::1]:1", "localhost.example.com:1", "127.0.0.1.example.com:1", "0.0.0.0:50051",
	} {
		if _, err := New(target); err == nil || !strings.Contains(err.Error(), "clear text") {
			t.Errorf("%s: %v", target, err)
		}
		guarding(t, target, WithInsecure())
		guarding(t, target, WithTLS(&tls.Config{}))
	}
}

func TestATargetThatIsNotOneIsRefused(t *testing.T) {
	for _, target := range []string{
		"", ":50051", "host:", "host:port", "xds:///localhost", "http://localhost:50051", "ipv4:localhost:1",
		"ipv4:[::1]:1", "ipv6:127.0.0.1:1", "ipv4:", "ipv4:127.0.0.1:1,", "me@localhost:1", "a:b:c",
		"dns://127.0.0.1/pdp.internal:50051", "localhost/x:1", "passthrough:///127.0.0.1:1", "a,b:1",
	} {
		if _, err := New(target, WithInsecure()); err == nil {
			t.Errorf("%q was taken", target)
		}
	}
}

func TestOptionsThatDoNotHoldAreRefused(t *testing.T) {
	for _, option := range []Option{WithDeadline(0), WithDeadline(-1), WithTLS(nil), WithCookie("")} {
		if _, err := New("localhost:1", option); err == nil {
			t.Error("it was taken")
		}
	}
	for _, key := range []string{"", "two words", "line\nbreak", "ü", "k\x00k", strings.Repeat("k", 4097)} {
		_, err := New("localhost:1", WithAPIKey(key))
		if err == nil || key != "" && strings.Contains(err.Error(), key) {
			t.Errorf("%v", err)
		}
	}
	missing := filepath.Join(t.TempDir(), "missing")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, files := range [][3]string{
		{missing, "", ""}, {empty, "", ""}, {"", empty, ""}, {"", "", empty}, {"", empty, empty},
	} {
		if _, err := TLSFiles(files[0], files[1], files[2]); err == nil {
			t.Errorf("%v was taken", files)
		}
	}
}

func TestMutualTLSWithAnAPIKey(t *testing.T) {
	trusted, stranger := newAuthority(t), newAuthority(t)
	server := answering(t, allowAll, trusted.serving(t))
	_, port, _ := net.SplitHostPort(server.address)
	deadline := 10 * time.Second
	connect := func(ca, cert *authority, target string) error {
		certFile, keyFile := "", ""
		if cert != nil {
			certFile, keyFile = cert.files(t, "caller")
		}
		config, err := TLSFiles(ca.path("ca.pem"), certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		g := guarding(t, target, WithTLS(config), WithAPIKey("key"), WithDeadline(deadline))
		_, err = g.Require(t.Context(), NewToken("a.b.c"), "a:b", nil)
		return err
	}
	for _, target := range []string{
		"localhost:" + port, "127.0.0.1:" + port, "ipv4:127.0.0.1:" + port + ",127.0.0.1:" + port,
	} {
		if err := connect(trusted, trusted, target); err != nil {
			t.Errorf("%s: %v", target, err)
		}
	}
	before := server.calls()
	deadline = 200 * time.Millisecond
	for name, err := range map[string]error{
		"another authority":        connect(stranger, trusted, "localhost:"+port),
		"no certificate":           connect(trusted, nil, "localhost:"+port),
		"a stranger's certificate": connect(trusted, stranger, "localhost:"+port),
		"another name":             connect(trusted, trusted, "127.0.0.2:"+port),
	} {
		if HTTPStatus(err) != 503 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if server.calls() != before {
		t.Error("a token was sent")
	}
	if got := server.metadata[0]["authorization"]; len(got) != 1 || got[0] != "Bearer key" {
		t.Errorf("%v", got)
	}
}

func TestAClearTextServerGetsNoTokenOverTLS(t *testing.T) {
	server := answering(t, allowAll)
	g := guarding(t, server.address, WithTLS(&tls.Config{}), WithAPIKey("key"), WithDeadline(300*time.Millisecond))
	if _, err := g.Require(t.Context(), NewToken("a.b.c"), "a:b", nil); HTTPStatus(err) != 503 {
		t.Errorf("%v", err)
	}
	if server.calls() != 0 {
		t.Error("it was asked")
	}
}

func TestEveryAddressIsUsedAndADeadOnePassedOver(t *testing.T) {
	one, two := answering(t, allowAll), answering(t, allowAll)
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close()
	g := guarding(t, "ipv4:"+one.address+","+dead.Addr().String()+","+two.address, patient)
	for range 40 {
		if _, err := g.Require(t.Context(), NewToken("a.b.c"), "a:b", nil); err != nil {
			t.Fatal(err)
		}
	}
	if one.calls() == 0 || two.calls() == 0 {
		t.Errorf("%d and %d calls", one.calls(), two.calls())
	}
	one.server.Stop()
	for range 20 {
		if _, err := g.Require(t.Context(), NewToken("a.b.c"), "a:b", nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAGuardOutlivesItsServer(t *testing.T) {
	first := answering(t, allowAll)
	g := guarding(t, first.address, patient)
	if _, err := g.Require(t.Context(), NewToken("a.b.c"), "a:b", nil); err != nil {
		t.Fatal(err)
	}
	first.server.Stop()
	answeringOn(t, "tcp", first.address, allowAll)
	if _, err := g.Require(t.Context(), NewToken("a.b.c"), "a:b", nil); err != nil {
		t.Fatal(err)
	}
}

func TestASocketOfThisMachine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pdp.sock")
	answeringOn(t, "unix", path, allowAll)
	if _, err := guarding(t, "unix:"+path, patient).Require(t.Context(), Token{}, "a:b", nil); err != nil {
		t.Error(err)
	}
}

func TestAProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	// A host that leads nowhere, because for the loopback no proxy is used anyway.
	const target = "pdp.invalid:50051"
	if os.Getenv("GUARD_BEHIND_PROXY") != "" {
		g := guarding(t, target, WithInsecure(), WithDeadline(300*time.Millisecond))
		if _, err := g.Require(t.Context(), NewToken("a.b.c"), "a:b", nil); HTTPStatus(err) != 503 {
			t.Errorf("%v", err)
		}
		return
	}
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reached := make(chan bool, 1)
	go func() {
		connection, err := proxy.Accept()
		if err == nil {
			_ = connection.Close()
		}
		reached <- err == nil
	}()
	// The variables are read once in a process, so it is another one.
	again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	again.Env = append(os.Environ(), "GUARD_BEHIND_PROXY=1", "HTTPS_PROXY=http://"+proxy.Addr().String())
	if said, err := again.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	_ = proxy.Close()
	if <-reached {
		t.Error("it was")
	}
}

func TestDeadConnectionsAreFoundWithoutACall(t *testing.T) {
	if p := keepaliveParameters; p.Time != 30*time.Second || p.Timeout != 5*time.Second || !p.PermitWithoutStream {
		t.Errorf("%+v", p)
	}
}

func TestANameIsLookedUpAgainWhenItIsWanted(t *testing.T) {
	states := make(chan resolver.State, 9)
	made, err := nameBuilder{"127.0.0.1", "50051"}.Build(
		resolver.Target{}, resolving{states: states}, resolver.BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	for range 2 {
		select {
		case state := <-states:
			if address := state.Endpoints[0].Addresses[0].Addr; address != "127.0.0.1:50051" {
				t.Errorf("%s", address)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("it was not")
		}
		made.ResolveNow(resolver.ResolveNowOptions{})
	}
}

// resolving receives the updates of a resolver.
type resolving struct {
	resolver.ClientConn
	states chan resolver.State
}

func (r resolving) UpdateState(state resolver.State) error {
	r.states <- state
	return nil
}
