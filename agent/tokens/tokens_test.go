package tokens

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloudflash/agent/clock"
	"cloudflash/agent/fault"
	"cloudflash/agent/state/statetest"
)

// open has the tokens of the database in dir.
func open(t *testing.T, dir string) *Tokens {
	t.Helper()
	db, _ := statetest.Open(t, dir)
	return New(db, "this boot")
}

func TestTokens(t *testing.T) {
	dir := t.TempDir()
	all := open(t, dir)
	tok, secret, err := all.Create("ci", RoleViewer)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := all.Authenticate(secret); err != nil || got.ID != tok.ID || got.Role != RoleViewer {
		t.Errorf("authenticate: %+v %v", got, err)
	}
	if _, _, err := all.Create("ci", RoleAdmin); !errors.Is(err, fault.ErrExists) {
		t.Errorf("second token of that name: %v", err)
	}
	for _, bad := range []string{"", "x", secret + "x", tok.ID} {
		if _, err := all.Authenticate(bad); !errors.Is(err, fault.ErrAuth) {
			t.Errorf("secret %q: %v", bad, err)
		}
	}
	db, err := os.ReadFile(filepath.Join(dir, "test.db"))
	if err != nil || strings.Contains(string(db), secret) {
		t.Errorf("the secret itself is on disk (%v)", err)
	}
	if err := all.Revoke(tok.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := all.Authenticate(secret); !errors.Is(err, fault.ErrAuth) {
		t.Errorf("revoked token: %v", err)
	}
}

func TestBadTokensAreRefused(t *testing.T) {
	all := open(t, t.TempDir())
	for _, test := range [][2]string{{"", RoleAdmin}, {"a b", RoleAdmin}, {strings.Repeat("x", 64), RoleAdmin}, {"ci", "root"}, {"ci", ""}} {
		if _, _, err := all.Create(test[0], test[1]); !errors.Is(err, fault.ErrInvalid) {
			t.Errorf("%q, role %q: %v", test[0], test[1], err)
		}
	}
	if left := all.List(); len(left) != 0 {
		t.Errorf("%+v", left)
	}
}

// A session lasts twelve hours, whatever the time of day is said to be.
func TestSessionsDoNotFollowTheClock(t *testing.T) {
	began := clock.Moment{Boot: time.Hour, Day: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)}
	for what, test := range map[string]struct {
		after, set time.Duration
		boot       string
		valid      bool
	}{
		"at once":                       {0, 0, "", true},
		"shortly before its end":        {sessionLife - time.Second, 0, "", true},
		"at its end":                    {sessionLife, 0, "", false},
		"set forward":                   {time.Hour, 24 * time.Hour, "", true},
		"set back, at its end":          {sessionLife, -24 * time.Hour, "", false},
		"another boot":                  {time.Hour, 0, "another boot", true},
		"another boot, at its end":      {sessionLife, 0, "another boot", false},
		"another boot that set it back": {sessionLife, -24 * time.Hour, "another boot", false},
	} {
		all := open(t, t.TempDir())
		now := began
		all.now = func() clock.Moment { return now }
		secret, life, err := all.NewSession(RoleAdmin)
		if err != nil || life != sessionLife {
			t.Fatal(life, err)
		}

		now = clock.Moment{Boot: began.Boot + test.after, Day: began.Day.Add(test.after + test.set)}
		if test.boot != "" {
			all.boot, now.Boot = test.boot, time.Minute
		}
		if _, err := all.Authenticate(secret); (err == nil) != test.valid {
			t.Errorf("%s: %v", what, err)
		}
		if test.boot == "" {
			if left := all.List()[0].ExpiresAt.Sub(now.Day); left != sessionLife-test.after {
				t.Errorf("%s: it is shown to last %v more", what, left)
			}
		}
		if _, _, err := all.Create("later", RoleViewer); err != nil { // what is over is forgotten
			t.Fatal(err)
		}
		if n := len(all.List()); (n == 2) != test.valid {
			t.Errorf("%s: there are %d tokens", what, n)
		}
	}
}
