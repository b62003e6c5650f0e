package guard

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
)

const (
	loggedTextMax   = 500
	loggedMethodMax = 128 // of a gRPC method too
)

// What comes after the path, also where it is written as an escape: a query may hold secrets, and so may
// `;jsessionid=`.
var afterPath = regexp.MustCompile(`(?i)[?#;]|%(?:3f|23|3b)`)

// WithLogger says why requests were refused without a decision to a logger of your own instead of
// [slog.Default]. Denials are not logged: the PDP has them in its audit log.
func WithLogger(logger *slog.Logger) Option {
	return func(s *settings) { s.logger = logger }
}

func (g *Guard) logRefusal(ctx context.Context, err error, method, target string) {
	logger := g.logger
	if logger == nil {
		logger = slog.Default() // of now: programs set it after they have made a guard
	}
	logRefusal(ctx, logger, err, slog.String("method", printable(method, loggedMethodMax)),
		slog.String("path", loggedPath(target)))
}

// logRefusal logs an error of a guard, unless it is a denial.
func logRefusal(ctx context.Context, logger *slog.Logger, err error, request ...slog.Attr) {
	var message string
	var reason slog.Attr
	switch refused := refusalOf(err).(type) {
	case *RouteRefused:
		message, reason = "guard: route refused", slog.String("reason", refused.Reason)
	case *Unavailable, *Refused:
		message, reason = "guard: no decision", slog.String("error", printable(err.Error(), loggedTextMax))
	default:
		return
	}
	logger.LogAttrs(ctx, slog.LevelWarn, message, append(request, reason)...)
}

// loggedPath is the path of a request target. A target that is no path may be a URL, and a URL may hold a
// password.
func loggedPath(target string) string {
	if !strings.HasPrefix(target, "/") {
		return "<no path>"
	}
	if end := afterPath.FindStringIndex(target); end != nil {
		target = target[:end[0]]
	}
	return printable(target, loggedTextMax)
}

// printable is a text as printable ASCII in one line: strangers write it, and a log is read in a terminal.
func printable(text string, charactersMax int) string {
	var shown strings.Builder
	for _, r := range withoutTokens(text, Token{}) {
		if r < ' ' || r > '~' || r == '\\' {
			fmt.Fprintf(&shown, `\u{%x}`, r)
		} else {
			shown.WriteRune(r)
		}
	}
	if shown.Len() > charactersMax {
		return shown.String()[:charactersMax] + "..."
	}
	return shown.String()
}
