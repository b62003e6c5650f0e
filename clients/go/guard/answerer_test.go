package guard

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	pdpapiv1 "pdp.example/go/pdpapi/v1"
)

// answerer is a server that gives the answers that a test wants, over real connections.
type answerer struct {
	pdpapiv1.UnimplementedPolicyDecisionServiceServer
	server  *grpc.Server
	address string
	answer  func(context.Context, *pdpapiv1.CheckRequest) (*pdpapiv1.CheckResponse, error)

	lock     sync.Mutex
	metadata []metadata.MD
	requests []*pdpapiv1.CheckRequest
}

func (a *answerer) Check(
	ctx context.Context, request *pdpapiv1.CheckRequest,
) (*pdpapiv1.CheckResponse, error) {
	sent, _ := metadata.FromIncomingContext(ctx)
	a.lock.Lock()
	a.metadata = append(a.metadata, sent)
	a.requests = append(a.requests, request)
	a.lock.Unlock()
	return a.answer(ctx, request)
}

func (a *answerer) calls() int {
	a.lock.Lock()
	defer a.lock.Unlock()
	return len(a.requests)
}

func allow() *pdpapiv1.CheckResponse {
	return &pdpapiv1.CheckResponse{
		Decision:   pdpapiv1.Decision_DECISION_ALLOW,
		Reason:     pdpapiv1.DecisionReason_DECISION_REASON_ALLOWED_BY_RULE,
		Actor:      &pdpapiv1.Actor{UserId: "user_ada", SessionId: "sess_1"},
		DecisionId: "decision-1",
	}
}

func deny(kind pdpapiv1.DenialKind) *pdpapiv1.CheckResponse {
	answer := &pdpapiv1.CheckResponse{
		Decision:   pdpapiv1.Decision_DECISION_DENY,
		DenialKind: kind,
		Reason:     pdpapiv1.DecisionReason_DECISION_REASON_WRONG_ORGANIZATION,
		DecisionId: "decision-2",
	}
	if kind == pdpapiv1.DenialKind_DENIAL_KIND_FORBIDDEN {
		answer.Actor = allow().GetActor()
	}
	return answer
}

func allowAll(context.Context, *pdpapiv1.CheckRequest) (*pdpapiv1.CheckResponse, error) {
	return allow(), nil
}

// answering serves on a loopback port, or on the address of another listener.
func answering(
	t *testing.T,
	answer func(context.Context, *pdpapiv1.CheckRequest) (*pdpapiv1.CheckResponse, error),
	options ...grpc.ServerOption,
) *answerer {
	t.Helper()
	return answeringOn(t, "tcp", "127.0.0.1:0", answer, options...)
}

func answeringOn(
	t *testing.T, network, address string,
	answer func(context.Context, *pdpapiv1.CheckRequest) (*pdpapiv1.CheckResponse, error),
	options ...grpc.ServerOption,
) *answerer {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	made := &answerer{
		server: grpc.NewServer(options...), address: listener.Addr().String(), answer: answer,
	}
	pdpapiv1.RegisterPolicyDecisionServiceServer(made.server, made)
	go func() { _ = made.server.Serve(listener) }()
	t.Cleanup(made.server.Stop)
	return made
}

func guarding(t *testing.T, target string, options ...Option) *Guard {
	t.Helper()
	made, err := New(target, append([]Option{WithLogger(slog.New(slog.DiscardHandler))}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	return made
}

// patient is a deadline for tests that are not about time.
var patient = WithDeadline(10 * time.Second)

// authority signs certificates for tests.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	directory   string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	made := &authority{directory: t.TempDir()}
	made.certificate, made.key = made.sign(t, "ca", &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return made
}

// files are a certificate and its key for localhost and 127.0.0.1.
func (a *authority) files(t *testing.T, name string) (cert, key string) {
	t.Helper()
	a.sign(t, name, &x509.Certificate{
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return a.path(name + ".pem"), a.path(name + ".key")
}

func (a *authority) path(name string) string { return filepath.Join(a.directory, name) }

func (a *authority) sign(
	t *testing.T, name string, template *x509.Certificate,
) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber, _ = rand.Int(rand.Reader, big.NewInt(1<<62))
	template.Subject = pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, _ := x509.MarshalPKCS8PrivateKey(key)
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der},
		name + ".key": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(a.path(file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	certificate, _ := x509.ParseCertificate(der)
	return certificate, key
}

// serving are server options for mTLS by an authority.
func (a *authority) serving(t *testing.T) grpc.ServerOption {
	t.Helper()
	config, err := TLSFiles("", firstOf(a.files(t, "server")), a.path("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	config.ClientCAs = x509.NewCertPool()
	config.ClientCAs.AddCert(a.certificate)
	config.ClientAuth = tls.RequireAndVerifyClientCert
	return grpc.Creds(credentials.NewTLS(config))
}

func firstOf(first, _ string) string { return first }
