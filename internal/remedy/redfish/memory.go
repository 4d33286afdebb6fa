package redfish

import (
	"sync"
	"time"
)

// maxMemory bounds how many keys are remembered.
const maxMemory = 4096

// memory remembers keys for a while.
type memory struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func newMemory() *memory { return &memory{until: map[string]time.Time{}} }

// add remembers a key, and says whether it is new and there was room for it.
func (m *memory) add(key string, now time.Time, keep time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, until := range m.until {
		if !now.Before(until) {
			delete(m.until, key)
		}
	}
	if _, ok := m.until[key]; ok || len(m.until) >= maxMemory {
		return false
	}
	m.until[key] = now.Add(keep)
	return true
}

// has says until when a key is remembered.
func (m *memory) has(key string, now time.Time) (time.Time, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	until, ok := m.until[key]
	return until, ok && now.Before(until)
}
