package server

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/throughline/throughline/eventlog"
)

// def sets an option that was not given.
func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// check refuses options that can't work, by name.
func (o *Options) check() error {
	if err := noneNegative("Options", o); err != nil {
		return err
	}
	for name, r := range map[string]Rates{"AddressRates": o.AddressRates, "IdentityRates": o.IdentityRates} {
		for i, rate := range []Rate{r.Hellos, r.Resumes, r.Publishes, r.Calls} {
			if err := rate.check(); err != nil {
				return fmt.Errorf("server: Options.%s.%s: %w", name, []string{"Hellos", "Resumes", "Publishes", "Calls"}[i], err)
			}
		}
	}
	if o.MaxName > eventlog.MaxChannelName {
		return fmt.Errorf("server: Options.MaxName is %d, more than %d", o.MaxName, eventlog.MaxChannelName)
	}
	grace := o.PresenceGrace
	if grace == 0 {
		grace = 15 * time.Second
	}
	if o.PresenceInterval > grace/3 {
		return fmt.Errorf("server: Options.PresenceInterval is %v, more than a third of PresenceGrace (%v)", o.PresenceInterval, grace)
	}
	return nil
}

// fit sets MaxMessage, which can't be more than the log's own bound.
func (o *Options) fit(log eventlog.Info) error {
	switch {
	case log.MaxData == 0:
		def(&o.MaxMessage, 1<<20)
	case o.MaxMessage > log.MaxData:
		return fmt.Errorf("server: Options.MaxMessage is %d, more than the %d bytes that the Log takes", o.MaxMessage, log.MaxData)
	}
	def(&o.MaxMessage, log.MaxData)
	return nil
}

func (r *Rule) check() error {
	known := []Action{Subscribe, History, Publish, Call, Presence}
	for _, action := range r.Allow {
		if !slices.Contains(known, action) {
			return fmt.Errorf("there is no action %q to Allow, but %q", action, known)
		}
	}
	return noneNegative("Rule", r)
}

// noneNegative refuses numbers and durations below zero in the fields of a
// struct, of which only MemoryLimit has a meaning for them.
func noneNegative(name string, options any) error {
	v := reflect.ValueOf(options).Elem()
	for i := range v.NumField() {
		if f := v.Field(i); f.CanInt() && f.Int() < 0 && v.Type().Field(i).Name != "MemoryLimit" {
			return fmt.Errorf("server: %s.%s is %v, below zero", name, v.Type().Field(i).Name, f.Interface())
		}
	}
	return nil
}
