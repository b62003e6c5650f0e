package guard

import (
	"net/url"
	"regexp"
	"strings"
	"unicode/utf8"
)

const pathBytesMax = 8 * 1024

var (
	unsafePath = regexp.MustCompile(`[^!-~]|[\\;#]|//|%(?:$|.$|[^0-9A-Fa-f]|.[^0-9A-Fa-f])`)
	// Separators, and characters that end a path for some programs; `%` would be an escape for a program that decodes
	// twice, and some programs cut off a trailing space (CVE-2016-5007).
	unsafeDecoded = regexp.MustCompile(`[\x00-\x1f\x7f-\x{9f}/\\%;?#]|^ | $`)
)

// path is the path of a request, in segments.
type path struct {
	sent    []string
	decoded []string // percent-decoded once
	folded  []string // decoded and case-folded
	slash   bool     // whether it ends with a slash; so does `/`, which has no segment
}

// readPath reads the path of a request target. Proxies, frameworks and file systems read a path differently unless
// it is plain. So a path that is not plain is refused instead of repaired.
func readPath(target string) (path, error) {
	ambiguous := &RouteRefused{pathAmbiguous}
	text, _, _ := strings.Cut(target, "?")
	if !strings.HasPrefix(text, "/") || len(text) > pathBytesMax || unsafePath.MatchString(text) {
		return path{}, ambiguous
	}
	read := path{sent: strings.Split(text[1:], "/")}
	if last := len(read.sent) - 1; read.sent[last] == "" {
		read.sent, read.slash = read.sent[:last], true
	}
	for _, segment := range read.sent {
		decoded := segment
		if strings.Contains(segment, "%") {
			var err error
			decoded, err = url.PathUnescape(segment)
			if err != nil || !utf8.ValidString(decoded) || unsafeDecoded.MatchString(decoded) {
				return path{}, ambiguous
			}
		}
		if decoded == "." || decoded == ".." {
			return path{}, ambiguous
		}
		read.decoded = append(read.decoded, decoded)
		read.folded = append(read.folded, fold(decoded))
	}
	return read, nil
}

// fold folds case: texts that a program could take for the same ASCII word become equal. Beyond ASCII, those are
// the dotted I, the dotless i, the long s and the Kelvin sign.
func fold(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case r == '\u0130' || r == '\u0131':
			return 'i'
		case r == '\u017f':
			return 's'
		case r == '\u212a':
			return 'k'
		}
		return r
	}, text)
}
