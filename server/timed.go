package server

import (
	"context"
	"time"

	"github.com/throughline/throughline/eventlog"
	"github.com/throughline/throughline/session"
)

// A timedStore measures how long its Store takes to answer.
type timedStore struct {
	session.Store
	metrics *metrics
}

func (s *timedStore) asked(operation string, began time.Time, err error) {
	s.metrics.storeAsked.WithLabelValues(operation).Observe(time.Since(began).Seconds())
	if err != nil {
		s.metrics.storeFailed.WithLabelValues(operation).Inc()
	}
}

func (s *timedStore) Secret(ctx context.Context) ([]byte, error) {
	began := time.Now()
	secret, err := s.Store.Secret(ctx)
	s.asked("secret", began, err)
	return secret, err
}

func (s *timedStore) Claim(ctx context.Context, held session.Held, lease session.Lease) error {
	began := time.Now()
	err := s.Store.Claim(ctx, held, lease)
	s.asked("claim", began, err)
	return err
}

func (s *timedStore) Touch(ctx context.Context, held []session.Held) ([]session.Held, error) {
	began := time.Now()
	missing, err := s.Store.Touch(ctx, held)
	s.asked("touch", began, err)
	return missing, err
}

func (s *timedStore) Release(ctx context.Context, held session.Held, idle time.Duration) (bool, error) {
	began := time.Now()
	ended, err := s.Store.Release(ctx, held, idle)
	s.asked("release", began, err)
	return ended, err
}

func (s *timedStore) Present(ctx context.Context, ch eventlog.Channel, most int) ([]session.Member, int, error) {
	began := time.Now()
	members, total, err := s.Store.Present(ctx, ch, most)
	s.asked("present", began, err)
	return members, total, err
}
