# The actor is the subject of the verified token. `data` has the issuer, its key set, and the grants.
package bench

default allow := false

claims := payload if {
	[true, _, payload] = io.jwt.decode_verify(input.token, {
		"cert": data.keys,
		"alg": "RS256",
		"iss": data.issuer,
	})
}

instructor if "INSTRUCTOR" in data.grants[claims.sub]
