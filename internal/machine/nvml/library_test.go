//go:build cgo && linux

package nvml

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestADriverContainerWithDevicesIsTheDriverThatRuns(t *testing.T) {
	root := t.TempDir()
	container := filepath.Join(root, driverRoot)
	expect := func(when string, want ...string) {
		t.Helper()
		if got := order(root); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	expect("no container", root, driverRoot)
	if err := os.MkdirAll(filepath.Join(container, "dev"), 0o700); err != nil {
		t.Fatal(err)
	}
	expect("a container that shows no devices", root, driverRoot)
	if err := os.WriteFile(filepath.Join(container, "dev/nvidiactl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect("a container with devices", container)
}
