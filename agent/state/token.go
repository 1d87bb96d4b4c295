package state

import "time"

// Token is a right to use the API, without its secret.
type Token struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Role       string     `json:"role" enum:"admin,viewer" doc:"admin may do everything, viewer may only look"`
	Kind       string     `json:"kind" enum:"token,session" doc:"session: a logged-in browser"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  *time.Time `json:"expires_at" doc:"null: valid until revoked"`
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`
}

// StoredToken is a Token and the SHA-256 of its secret, in hexadecimal. The secret
// itself has 256 random bits, so that no salt or slow hash is needed.
type StoredToken struct {
	Token
	Hash string `json:"hash"`
	// ExpiresBoot is when it expires since the boot with id Boot; ExpiresAt is how that
	// looked on the clock of the wall when it was made.
	Boot        string        `json:"boot,omitempty"`
	ExpiresBoot time.Duration `json:"expires_boot,omitempty"`
}
