package guard

import (
	"fmt"
	"unicode/utf8"
)

const shownToken = "Token(...)"

// Token is a session token whose text never appears when it is printed, logged or formatted. The zero value is the
// empty token, which the PDP denies and logs.
type Token struct {
	// A function, because printing a struct with a token in an unexported field calls no method of the token.
	reveal func() string
}

// NewToken wraps a session token, without `Bearer `.
func NewToken(text string) Token { return Token{func() string { return text }} }

// Reveal returns the text of the token.
func (t Token) Reveal() string {
	if t.reveal == nil {
		return ""
	}
	return t.reveal()
}

// sendable is the token as it is sent. A token that is not Unicode text cannot be sent; it proves nothing, so the
// empty token replaces it.
func (t Token) sendable() string {
	if text := t.Reveal(); utf8.ValidString(text) {
		return text
	}
	return ""
}

// String shows nothing of the token.
func (Token) String() string { return shownToken }

// GoString shows nothing of the token.
func (Token) GoString() string { return shownToken }

// Format shows nothing of the token, whatever the verb.
func (Token) Format(state fmt.State, _ rune) { _, _ = state.Write([]byte(shownToken)) }

// MarshalText shows nothing of the token, in JSON and elsewhere.
func (Token) MarshalText() ([]byte, error) { return []byte(shownToken), nil }
