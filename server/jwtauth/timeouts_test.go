package jwtauth_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/throughline/throughline/server/jwtauth"
)

// waits has the test that reaches each field of Options that is a time.
var waits = map[string]func(*testing.T){
	"Leeway":          TestLeeway,
	"RefreshInterval": TestRefreshInterval,
	"MinRefetch":      TestMinRefetch,
	"FetchTimeout":    TestIssuerIsSlow,
}

func TestEveryTimeoutHasATest(t *testing.T) {
	for f := range reflect.TypeFor[jwtauth.Options]().Fields() {
		if f.Type == reflect.TypeFor[time.Duration]() && waits[f.Name] == nil {
			t.Errorf("Options.%s is reached by no test", f.Name)
		}
	}
}
