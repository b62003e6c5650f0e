package guard

import (
	"fmt"
	"unicode/utf8"
)

const shownToken = "Token(...)"

// Token is a session token that shows nothing of itself when it is printed, logged or formatted. The zero value
// is the empty token, which the PDP denies and puts on record.
type Token struct {
	// A function, because printing a struct that has a token among its unexported fields calls no method of it.
	reveal func() string
}

// NewToken wraps a session token, without `Bearer `.
func NewToken(text string) Token { return Token{func() string { return text }} }

// Reveal returns the token itself.
func (t Token) Reveal() string {
	if t.reveal == nil {
		return ""
	}
	return t.reveal()
}

// sendable is the token for a message. One that is not Unicode text cannot be sent; it proves nothing either.
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
