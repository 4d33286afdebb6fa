package controlplane

import (
	"testing"
	"time"
)

func TestStartsEverythingAndStopsWithoutATrace(t *testing.T) {
	began := time.Now()
	cp := ForTest(t, Options{WithScheduler: true, WithControllerManager: true, Progress: func(p Progress) { t.Logf("%+v", p) }})
	t.Logf("started in %s", time.Since(began))
	v, err := cp.client.Discovery().ServerVersion()
	t.Log(v, err)
	began = time.Now()
	t.Log(cp.Stop(t.Context()))
	t.Logf("stopped in %s", time.Since(began))
}
func TestAPI(t *testing.T) {
	began := time.Now()
	cp := ForTest(t, Options{Progress: func(p Progress) { t.Logf("%+v", p) }})
	t.Logf("started in %s", time.Since(began))
	began = time.Now()
	t.Log(cp.Stop(t.Context()))
	t.Logf("stopped in %s", time.Since(began))
}
