package eventlog

import (
	"fmt"
	"slices"
)

// MaxFilter is the most words in each list of a [Filter].
const MaxFilter = 16

// A Filter selects events. The zero value selects all. Of each list that is not
// empty, an event must have at least one word. What it leaves out moves a reader
// on like what it lets through.
type Filter struct {
	Types []string // of [Message.Type]; "" stands for the default type, "message"
	Tags  []string // of [Message.Tags]
	Keys  []string // of [Message.Key]
}

// IsZero reports whether f selects all.
func (f *Filter) IsZero() bool { return len(f.Types)+len(f.Tags)+len(f.Keys) == 0 }

// Match reports whether f selects m.
func (f *Filter) Match(m *Message) bool {
	return (len(f.Types) == 0 || slices.ContainsFunc(f.Types, func(t string) bool { return t == m.Type || t == "" && m.Type == DefaultType })) &&
		(len(f.Keys) == 0 || slices.Contains(f.Keys, m.Key)) &&
		(len(f.Tags) == 0 || slices.ContainsFunc(f.Tags, func(t string) bool { return slices.Contains(m.Tags, t) }))
}

// Check reports with an [*Invalid] whether f is none: it has more than
// [MaxFilter] words in a list, or a word that no message can have.
func (f *Filter) Check() error {
	for _, list := range []struct {
		field string
		words []string
		most  int
	}{{"types", f.Types, MaxType}, {"tags", f.Tags, MaxTag}, {"keys", f.Keys, MaxKey}} {
		if len(list.words) > MaxFilter {
			return &Invalid{Field: list.field, Problem: fmt.Sprintf("to select by are more than %d", MaxFilter)}
		}
		for _, word := range list.words {
			if len(word) > list.most || !plainText(word) {
				return &Invalid{Field: list.field, Problem: fmt.Sprintf("to select by hold %.20q, which is too long, not UTF-8, or holds control characters", word)}
			}
		}
	}
	return nil
}
