package model

import (
	"fmt"
	"slices"
)

// Replay runs a trace elsewhere and compares each answer. do does a step, after
// the position that the step's client has, and answers with events by the names
// that the trace gave them and with positions as they are there. Each position
// of the model must be one there, and no two the same.
func (t Trace) Replay(do func(s Step, after string) (Answer, error)) error {
	m := match{there: map[string]string{}, here: map[string]string{}}
	at := map[int]string{} // of each client
	for i, s := range t.Steps {
		got, err := do(s, at[s.Client])
		if err == nil {
			err = m.compare(s.Want, got)
		}
		if err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, s, err)
		}
		if s.Client > 0 && got.Next != "" {
			at[s.Client] = got.Next
		}
	}
	return nil
}

// A match knows which position there is which here.
type match struct{ there, here map[string]string }

func (m *match) compare(want, got Answer) error {
	switch {
	case !slices.Equal(want.Events, got.Events):
		return fmt.Errorf("events %v", got.Events)
	case want.Lost != got.Lost:
		return fmt.Errorf("lost %q", got.Lost)
	case want.Later != got.Later:
		return fmt.Errorf("try later: %v", got.Later)
	case want.Woken && !got.Woken:
		return fmt.Errorf("nobody was woken")
	}
	if err := m.same(want.Next, got.Next); err != nil {
		return err
	}
	return m.same(want.Head, got.Head)
}

// same notes that two names are of one position, or finds that they aren't.
func (m *match) same(here, there string) error {
	if (here == "") != (there == "") {
		return fmt.Errorf("position %q", there)
	}
	if known, ok := m.there[here]; ok && known != there {
		return fmt.Errorf("position %s, and %s is %s", there, here, known)
	}
	if known, ok := m.here[there]; ok && known != here {
		return fmt.Errorf("position %s, which is %s", there, known)
	}
	m.there[here], m.here[there] = there, here
	return nil
}
