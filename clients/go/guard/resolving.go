package guard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/resolver"
)

const (
	lookupTimeout = 10 * time.Second
	// Names are resolved again immediately when a connection ends, but not more often than this. gRPC's own resolver
	// waits 30 s; after a rollout all known addresses may be gone by then.
	lookupPause = time.Second
	portDefault = "443"
)

// where is a parsed target.
type where struct {
	dial      string // for gRPC
	resolvers []resolver.Builder
	loopback  bool // every address is on this machine
}

func parseTarget(target string) (where, error) {
	scheme, rest, found := strings.Cut(target, ":")
	switch {
	case found && (scheme == "unix" || scheme == "unix-abstract"):
		return where{dial: target, loopback: true}, nil
	case found && (scheme == "ipv4" || scheme == "ipv6"):
		return parseAddresses(scheme, strings.TrimPrefix(rest, "///"))
	case found && scheme == "dns" && strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, "///"):
		return where{}, fmt.Errorf("%s names a DNS server, but only the system's is used: write dns:///host:port", target)
	case found && scheme == "dns":
		target = strings.TrimPrefix(rest, "///")
	case strings.Contains(target, "://"):
		return where{}, fmt.Errorf("%s is not host:port, dns:, ipv4:, ipv6:, unix: or unix-abstract:", target)
	}
	host, port, err := splitPort(target)
	if err != nil {
		return where{}, err
	}
	address := net.JoinHostPort(host, port)
	return where{
		dial:      "dns:///" + address,
		resolvers: []resolver.Builder{nameBuilder{host, port}},
		loopback:  isLoopback(address),
	}, nil
}

// parseAddresses parses `ipv4:a,b`, which gRPC for Go does not support.
func parseAddresses(scheme, list string) (where, error) {
	addresses := strings.Split(list, ",")
	endpoints := make([]resolver.Endpoint, len(addresses))
	loopback := true
	for i, address := range addresses {
		host, port, err := splitPort(address)
		if err != nil {
			return where{}, err
		}
		ip, err := netip.ParseAddr(host)
		if err != nil || ip.Is4() != (scheme == "ipv4") {
			return where{}, fmt.Errorf("%q is not an %s address", address, scheme)
		}
		// With TLS, each address proves its own identity.
		endpoints[i].Addresses = []resolver.Address{{Addr: net.JoinHostPort(host, port), ServerName: host}}
		loopback = loopback && isLoopback(host)
	}
	return where{
		dial:      scheme + ":" + list,
		resolvers: []resolver.Builder{listBuilder{scheme, endpoints}},
		loopback:  loopback,
	}, nil
}

func splitPort(address string) (host, port string, err error) {
	if ip, err := netip.ParseAddr(strings.Trim(address, "[]")); err == nil {
		return ip.String(), portDefault, nil
	}
	if !strings.Contains(address, ":") {
		address += ":" + portDefault
	}
	if host, port, err = net.SplitHostPort(address); err != nil || host == "" || port == "" {
		return "", "", fmt.Errorf("%q is not host:port", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil || strings.ContainsAny(host, "/@?#% ,") {
		return "", "", fmt.Errorf("%q is not host:port", address)
	}
	return host, port, nil
}

// listBuilder resolves to literal addresses.
type listBuilder struct {
	scheme    string
	endpoints []resolver.Endpoint
}

func (b listBuilder) Scheme() string { return b.scheme }

func (b listBuilder) Build(
	_ resolver.Target, connection resolver.ClientConn, _ resolver.BuildOptions,
) (resolver.Resolver, error) {
	return b, connection.UpdateState(resolver.State{Endpoints: b.endpoints})
}

func (listBuilder) ResolveNow(resolver.ResolveNowOptions) {}
func (listBuilder) Close()                                {}

// nameBuilder resolves a name to all of its addresses.
type nameBuilder struct{ host, port string }

func (nameBuilder) Scheme() string { return "dns" }

func (b nameBuilder) Build(
	_ resolver.Target, connection resolver.ClientConn, _ resolver.BuildOptions,
) (resolver.Resolver, error) {
	ctx, cancel := context.WithCancel(context.Background())
	made := &nameResolver{b, connection, cancel, make(chan struct{}, 1), make(chan struct{})}
	go made.run(ctx)
	return made, nil
}

type nameResolver struct {
	nameBuilder
	connection resolver.ClientConn
	cancel     context.CancelFunc
	wanted     chan struct{}
	ended      chan struct{}
}

func (r *nameResolver) ResolveNow(resolver.ResolveNowOptions) {
	select {
	case r.wanted <- struct{}{}:
	default: // already requested
	}
}

func (r *nameResolver) Close() {
	r.cancel()
	<-r.ended
}

func (r *nameResolver) run(ctx context.Context) {
	defer close(r.ended)
	for {
		state, err := r.lookUp(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = r.connection.UpdateState(state)
		} else {
			r.connection.ReportError(err)
		}
		select { // Not too often, and only on request or after a failure.
		case <-ctx.Done():
			return
		case <-time.After(lookupPause):
		}
		if err != nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-r.wanted:
		}
	}
}

func (r *nameResolver) lookUp(ctx context.Context) (resolver.State, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	hosts, err := net.DefaultResolver.LookupHost(ctx, r.host)
	if err != nil {
		return resolver.State{}, err
	}
	if len(hosts) == 0 {
		return resolver.State{}, errors.New("the name has no address")
	}
	endpoints := make([]resolver.Endpoint, len(hosts))
	for i, host := range hosts {
		endpoints[i].Addresses = []resolver.Address{{Addr: net.JoinHostPort(host, r.port)}}
	}
	return resolver.State{Endpoints: endpoints}, nil
}
