package controlplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// binaryName is what hack/build-controlplane.sh builds.
const binaryName = "roundhouse-controlplane"

// ErrNoBinary says that the control plane has not been built, and how to build it.
var ErrNoBinary = errors.New(binaryName + " is not built: run hack/build-controlplane.sh in the repository (about six minutes the first time)")

// findBinary returns the binary to run: the one asked for, else the one beside this
// program, else the one in bin/ of the directory that holds the working directory or
// of one above it, where `go test` finds it.
func findBinary(asked string) (string, error) {
	if asked != "" {
		if !isProgram(asked) {
			return "", fmt.Errorf("%s is not a program: %w", asked, ErrNoBinary)
		}
		return asked, nil
	}
	var candidates []string
	if self, err := os.Executable(); err == nil {
		candidates = append(candidates, filepath.Join(filepath.Dir(self), binaryName))
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the working directory: %w", err)
	}
	for ; ; dir = filepath.Dir(dir) {
		candidates = append(candidates, filepath.Join(dir, "bin", binaryName))
		if dir == filepath.Dir(dir) {
			break
		}
	}
	for _, candidate := range candidates {
		if isProgram(candidate) {
			return candidate, nil
		}
	}
	return "", ErrNoBinary
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}
