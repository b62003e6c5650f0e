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
	loggedMethodMax = 128 // also of a gRPC method
)

// The part after the path, also if it is escaped: a query may contain secrets, and so may `;jsessionid=`.
var afterPath = regexp.MustCompile(`(?i)[?#;]|%(?:3f|23|3b)`)

// WithLogger sets the logger of requests that were refused without a decision, instead of [slog.Default]. Denials
// are not logged: the PDP has them in its audit log.
func WithLogger(logger *slog.Logger) Option {
	return func(s *settings) { s.logger = logger }
}

func (g *Guard) logRefusal(ctx context.Context, err error, method, target string) {
	logger := g.logger
	if logger == nil {
		logger = slog.Default() // read now: programs set it after they have made a guard
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

// loggedPath is the path of a request target. A target that is not a path may be a URL, and a URL may contain a
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

// printable converts a text to a single line of printable ASCII: strangers write it, and logs are read in a
// terminal.
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
