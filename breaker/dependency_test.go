package breaker_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/throughline/throughline/breaker"
)

// A patient is a dependency whose calls end as they are told to.
type patient struct {
	*testing.T
	*breaker.Dependency
	changes []breaker.Change
}

func newPatient(t *testing.T, inARow int) *patient {
	p := &patient{T: t}
	p.Dependency = breaker.NewDependency(breaker.DependencyOptions{FailuresInARow: inARow, Changed: func(c breaker.Change) {
		p.changes = append(p.changes, c)
		_ = p.Status() // no lock is held
	}})
	return p
}

// calls makes calls that end so, and returns how many were made.
func (p *patient) calls(n int, what breaker.Outcome) (made int) {
	for range n {
		if a, err := p.Allow(); err == nil {
			made++
			a.Done(what)
		}
	}
	return made
}

func (p *patient) is(when string, want breaker.State) {
	p.Helper()
	if got := p.Status().State; got != want {
		p.Errorf("%s: %v, not %v", when, got, want)
	}
}

// TestDependency: what opens it, what doesn't, and how it closes.
func TestDependency(t *testing.T) {
	cases := map[string]struct {
		inARow int
		do     func(p *patient)
		want   breaker.State
	}{
		"four in a row":                     {5, func(p *patient) { p.calls(4, breaker.Failed) }, breaker.Closed},
		"five in a row":                     {5, func(p *patient) { p.calls(5, breaker.Failed) }, breaker.Open},
		"a success between":                 {5, func(p *patient) { p.calls(4, breaker.Failed); p.calls(1, breaker.Answered); p.calls(4, breaker.Failed) }, breaker.Closed},
		"nobody waited between":             {5, func(p *patient) { p.calls(4, breaker.Failed); p.calls(9, breaker.Unheard); p.calls(1, breaker.Failed) }, breaker.Open},
		"a no between":                      {5, func(p *patient) { p.calls(4, breaker.Failed); p.calls(9, breaker.Declined); p.calls(1, breaker.Failed) }, breaker.Open},
		"in a row over a minute":            {5, func(p *patient) { p.slowly(5, 15*time.Second) }, breaker.Open},
		"19 calls":                          {0, func(p *patient) { p.calls(19, breaker.Failed) }, breaker.Closed},
		"20 calls":                          {0, func(p *patient) { p.calls(20, breaker.Failed) }, breaker.Open},
		"half of 20":                        {0, func(p *patient) { p.calls(10, breaker.Answered); p.calls(10, breaker.Failed) }, breaker.Open},
		"half of 20, in a row counts apart": {11, func(p *patient) { p.calls(10, breaker.Answered); p.calls(10, breaker.Failed) }, breaker.Open},
		"less than half":                    {0, func(p *patient) { p.calls(16, breaker.Answered); p.calls(15, breaker.Failed) }, breaker.Closed},
		"over more than 10 s":               {0, func(p *patient) { p.slowly(40, 600*time.Millisecond) }, breaker.Closed},
		"panics and refusals":               {5, func(p *patient) { p.calls(100, breaker.Unheard); p.calls(100, breaker.Declined) }, breaker.Closed},
		"refusals don't hide failures":      {0, func(p *patient) { p.calls(1000, breaker.Declined); p.calls(20, breaker.Failed) }, breaker.Open},
		"calls under way don't count":       {0, func(p *patient) { p.begin(40); p.calls(10, breaker.Failed) }, breaker.Closed},
		"20 calls of a minute":              {0, func(p *patient) { late := p.begin(20); time.Sleep(time.Minute); late(breaker.Failed) }, breaker.Open},
		"5 calls of a minute":               {5, func(p *patient) { late := p.begin(5); time.Sleep(time.Minute); late(breaker.Failed) }, breaker.Open},
		"19 calls of 9.5 s":                 {0, func(p *patient) { late := p.begin(19); time.Sleep(9500 * time.Millisecond); late(breaker.Failed) }, breaker.Closed},
		"failures told after it was shut": {5, func(p *patient) {
			late := p.begin(9)
			p.calls(5, breaker.Failed)
			p.heal()
			late(breaker.Failed)
			p.calls(1, breaker.Failed)
		}, breaker.Closed},
		"late answers don't end a trial early": {5, func(p *patient) { late := p.begin(9); p.calls(5, breaker.Failed); p.wait(); late(breaker.Answered) }, breaker.HalfOpen},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPatient(t, c.inARow)
				c.do(p)
				p.is("then", c.want)
			})
		})
	}
}

func (p *patient) slowly(n int, every time.Duration) {
	for range n {
		time.Sleep(every)
		p.calls(1, breaker.Failed)
	}
}

// begin makes calls that end later.
func (p *patient) begin(n int) (end func(breaker.Outcome)) {
	var asked []breaker.Asking
	for range n {
		a, err := p.Allow()
		if err != nil {
			p.Fatal(err)
		}
		asked = append(asked, a)
	}
	return func(what breaker.Outcome) {
		for _, a := range asked {
			a.Done(what)
		}
	}
}

func (p *patient) wait() { time.Sleep(2*time.Second + time.Millisecond) }

func (p *patient) heal() {
	p.wait()
	p.calls(1, breaker.Answered)
}

// TestTrial: one call at a time decides.
func TestTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t, 5)
		p.calls(5, breaker.Failed)
		if n := p.calls(100, breaker.Answered); n != 0 {
			t.Errorf("%d calls were made while it was open", n)
		}
		time.Sleep(500 * time.Millisecond)
		_, err := p.Allow()
		not, ok := errors.AsType[*breaker.NotAsked](err)
		if !ok || not.Failures != 5 || not.After != 1500*time.Millisecond || err.Error() != "not asked: it failed 5 times, asked again in 1.5s" {
			t.Errorf("%v, %+v", err, not)
		}
		p.wait()
		p.is("later", breaker.HalfOpen)
		if s := p.Status(); s.Refusing || s.Since.IsZero() {
			t.Errorf("it is time for a trial: %+v", s)
		}
		trial, err := p.Allow()
		if err != nil || !trial.Trial() {
			t.Fatalf("the trial: %v", err)
		}
		if n := p.calls(10, breaker.Answered); n != 0 || !p.Status().Refusing {
			t.Errorf("%d calls were made beside the trial", n)
		}
		_, err = p.Allow()
		if not, _ = errors.AsType[*breaker.NotAsked](err); not == nil || not.After <= 0 {
			t.Errorf("beside the trial: %v", err)
		}
		trial.Done(breaker.Failed)
		p.is("the trial failed", breaker.Open)
		p.wait()
		if n := p.calls(3, breaker.Unheard); n != 3 {
			t.Errorf("%d trials by calls that say nothing", n)
		}
		p.is("nothing was heard", breaker.HalfOpen)
		p.calls(1, breaker.Declined)
		p.is("it answered by a no", breaker.Closed)
		want := []breaker.Change{{To: breaker.Open, Failures: 5}, {To: breaker.Closed, Failures: 6, Lasted: 4502 * time.Millisecond}}
		if !slices.Equal(p.changes, want) {
			t.Errorf("told %+v, not %+v", p.changes, want)
		}
	})
}

// TestChangesAreToldOnce: by many calls at once, in order.
func TestChangesAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatient(t, 5)
		for range 50 {
			var all sync.WaitGroup
			end := p.begin(20)
			for range 10 {
				all.Go(func() { p.calls(3, breaker.Failed) })
			}
			all.Go(func() { end(breaker.Failed) })
			all.Wait()
			p.heal()
		}
		if len(p.changes) != 100 {
			t.Fatalf("%d changes were told", len(p.changes))
		}
		for i, c := range p.changes {
			if want := []breaker.State{breaker.Open, breaker.Closed}[i%2]; c.To != want {
				t.Errorf("%d: %+v", i, c)
			}
		}
	})
}

// TestChangesAreToldInOrder: who listens may take its time, and nobody waits for
// it but the one who tells.
func TestChangesAreToldInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []breaker.State
		p := &patient{T: t, Dependency: breaker.NewDependency(breaker.DependencyOptions{FailuresInARow: 5, Changed: func(c breaker.Change) {
			time.Sleep(time.Minute)
			told = append(told, c.To)
		}})}
		var all sync.WaitGroup
		all.Go(func() { p.calls(5, breaker.Failed) })
		began := time.Now()
		p.heal()
		p.is("meanwhile", breaker.Closed)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %v", took)
		}
		all.Wait()
		if took := time.Since(began); took != 2*time.Minute || !slices.Equal(told, []breaker.State{breaker.Open, breaker.Closed}) {
			t.Errorf("told %v, in %v", told, took)
		}
	})
}

func BenchmarkDependency(b *testing.B) {
	b.Run("a call", func(b *testing.B) {
		d := breaker.NewDependency(breaker.DependencyOptions{FailuresInARow: 5})
		b.ReportAllocs()
		for b.Loop() {
			a, _ := d.Allow()
			a.Done(breaker.Answered)
		}
	})
	b.Run("by many", func(b *testing.B) {
		d := breaker.NewDependency(breaker.DependencyOptions{FailuresInARow: 5})
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				a, _ := d.Allow()
				a.Done(breaker.Answered)
			}
		})
	})
	b.Run("open", func(b *testing.B) {
		d := breaker.NewDependency(breaker.DependencyOptions{FailuresInARow: 1, OpenFor: time.Hour})
		a, _ := d.Allow()
		a.Done(breaker.Failed)
		for b.Loop() {
			_, _ = d.Allow()
		}
	})
}
