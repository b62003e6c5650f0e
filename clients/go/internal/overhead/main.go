// Command overhead measures the cost of the guard beyond its stub, a question at a time, against a running server.
// It prints a line of JSON: {"raw_us_p50", "guard_us_p50", "overhead_us_p50"}.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"pdp.example/go/guard"
	pdpapiv1 "pdp.example/go/pdpapi/v1"
)

const (
	callsARound = 200
	deadline    = 5 * time.Second
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	target := flag.String("target", "", "the server, host:port")
	tokenFile := flag.String("token-file", "", "file with the actor's token")
	permission := flag.String("permission", "", "what is asked for")
	resource := flag.String("resource", "", "type/id")
	calls := flag.Int("calls", 4_000, "of each of the two")
	flag.Parse()
	text, err := os.ReadFile(*tokenFile)
	if err != nil {
		return err
	}
	token := strings.TrimSpace(string(text))
	kind, id, _ := strings.Cut(*resource, "/")

	connection, err := grpc.NewClient(*target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	stub := pdpapiv1.NewPolicyDecisionServiceClient(connection)
	request := &pdpapiv1.CheckRequest{
		ActorToken: token, Permission: *permission, Resource: &pdpapiv1.Resource{Type: kind, Id: id},
	}
	askRaw := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		defer cancel()
		answer, err := stub.Check(ctx, request)
		if err == nil && answer.GetDecision() != pdpapiv1.Decision_DECISION_ALLOW {
			err = errors.New("the question must be allowed")
		}
		return err
	}

	g, err := guard.New(*target, guard.WithDeadline(deadline))
	if err != nil {
		return err
	}
	defer g.Close()
	wrapped := guard.NewToken(token)
	askGuard := func() error {
		_, err := g.Require(context.Background(), wrapped, *permission, &guard.Resource{Type: kind, ID: id})
		return err
	}

	if err := errors.Join(askRaw(), askGuard()); err != nil {
		return err
	}
	var raw, guarded []float64
	for range max(1, *calls/callsARound) { // They take turns, so that other load on the machine affects both.
		for _, round := range []struct {
			ask   func() error
			found *[]float64
		}{{askRaw, &raw}, {askGuard, &guarded}} {
			for range callsARound {
				began := time.Now()
				if err := round.ask(); err != nil {
					return err
				}
				*round.found = append(*round.found, float64(time.Since(began).Nanoseconds())/1e3)
			}
		}
	}
	p50 := func(found []float64) float64 {
		slices.Sort(found)
		return found[len(found)/2]
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]float64{
		"raw_us_p50": p50(raw), "guard_us_p50": p50(guarded), "overhead_us_p50": p50(guarded) - p50(raw),
	})
}
