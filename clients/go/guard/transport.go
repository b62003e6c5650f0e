package guard

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const apiKeyBytesMax = 4096

// Option is an option of a guard.
type Option func(*settings)

type settings struct {
	deadline time.Duration
	cookie   string
	apiKey   *string
	secure   bool
	tls      *tls.Config
	insecure bool
	logger   *slog.Logger
}

// WithTLS connects with TLS; a certificate in the configuration is this caller's, for mTLS. TLSFiles makes a
// configuration from PEM files.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) { s.secure, s.tls = true, config }
}

// WithAPIKey sends the key that authenticates this caller (not the actor).
func WithAPIKey(key string) Option {
	return func(s *settings) { s.apiKey = &key }
}

// WithDeadline bounds each call as a whole, retries included; the default is 250 ms. A context may end it earlier.
func WithDeadline(deadline time.Duration) Option {
	return func(s *settings) { s.deadline = deadline }
}

// WithInsecure lets tokens and the key leave this machine in clear text, if something else encrypts them.
func WithInsecure() Option {
	return func(s *settings) { s.insecure = true }
}

// WithCookie names the cookie with the session token; the default is `__session`. Use `__session_<suffix>` if
// several Clerk applications share a domain.
func WithCookie(name string) Option {
	return func(s *settings) { s.cookie = name }
}

// TLSFiles makes a TLS configuration from PEM files: the authorities to trust (empty: the system's), and this
// caller's certificate chain and private key (both empty: none).
func TLSFiles(ca, cert, key string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("guard: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("guard: no certificate in %s", ca)
		}
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("guard: give cert and key together, or neither")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("guard: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// connect makes a connection that balances over all addresses of a target and connects at its first call.
func connect(target string, settings settings) (*grpc.ClientConn, error) {
	where, err := parseTarget(target)
	if err != nil {
		return nil, err
	}
	switch {
	case settings.deadline <= 0:
		return nil, fmt.Errorf("the deadline must be above 0, it is %v", settings.deadline)
	case settings.cookie == "":
		return nil, errors.New("the cookie must have a name")
	case settings.apiKey != nil && !isAPIKey(*settings.apiKey): // Reported without the value.
		return nil, fmt.Errorf("the API key must be 1 to %d printable ASCII characters without spaces",
			apiKeyBytesMax)
	case settings.secure && settings.tls == nil:
		return nil, errors.New("WithTLS needs a configuration")
	case !settings.secure && !settings.insecure && !where.loopback:
		return nil, fmt.Errorf("%s is beyond loopback, tokens and API keys would cross in clear text; "+
			"give WithTLS, or say WithInsecure", target)
	}
	transport := insecure.NewCredentials()
	if settings.secure {
		transport = credentials.NewTLS(settings.tls)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithResolvers(where.resolvers...),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
		// A DNS TXT record must not change how we retry or balance; the guard retries itself.
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		// An environment variable must not send tokens to a proxy.
		grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepaliveParameters),
		grpc.WithConnectParams(connectParameters),
	}
	if settings.apiKey != nil {
		options = append(options, grpc.WithPerRPCCredentials(apiKey{*settings.apiKey, settings.secure}))
	}
	return grpc.NewClient(where.dial, options...)
}

var (
	// A dead connection is detected within 35 s.
	keepaliveParameters = keepalive.ClientParameters{
		Time: 30 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true,
	}
	// gRPC's defaults of 1 s and 120 s are long compared with a deadline of 250 ms.
	connectParameters = grpc.ConnectParams{
		Backoff: backoff.Config{
			BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second,
		},
		MinConnectTimeout: 20 * time.Second,
	}
)

// apiKey is the caller's credential of each call.
type apiKey struct {
	key    string
	secure bool
}

func (a apiKey) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + a.key}, nil
}

func (a apiKey) RequireTransportSecurity() bool { return a.secure }

func isAPIKey(key string) bool {
	unprintable := func(r rune) bool { return r < '!' || r > '~' }
	return key != "" && len(key) <= apiKeyBytesMax && !strings.ContainsFunc(key, unprintable)
}

// isLoopback reports whether `host:port`, or either without a port, is on this machine.
func isLoopback(address string) bool {
	host := address
	if split, _, err := net.SplitHostPort(address); err == nil {
		host = split
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
