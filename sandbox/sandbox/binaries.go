package sandbox

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// errNotBuilt says what to do about a program that is not there.
var errNotBuilt = errors.New("not built: run make build")

// findBinary finds a program: in dir, else beside the running one, else in bin/ of the working directory or of one above
// it, where go test finds it.
func findBinary(dir, name string) (string, error) {
	candidates := []string{filepath.Join(dir, name)}
	if dir == "" {
		candidates = nil
		if self, err := os.Executable(); err == nil {
			candidates = append(candidates, filepath.Join(filepath.Dir(self), name))
		}
		at, err := os.Getwd()
		if err != nil {
			return "", fmt.Errorf("finding the working directory: %w", err)
		}
		for ; ; at = filepath.Dir(at) {
			candidates = append(candidates, filepath.Join(at, "bin", name))
			if at == filepath.Dir(at) {
				break
			}
		}
	}
	for _, path := range candidates {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, errNotBuilt)
}

// freeAddresses asks the kernel for two ports at once, so that they differ.
func freeAddresses() (one, other string, err error) {
	var found [2]string
	for i := range found {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", fmt.Errorf("looking for a free port: %w", err)
		}
		defer listener.Close()
		found[i] = listener.Addr().String()
	}
	return found[0], found[1], nil
}
