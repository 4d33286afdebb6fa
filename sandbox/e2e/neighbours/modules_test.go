package neighbours

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"time"
)

// module is a neighbour's published Go module, which holds its CRDs. It is test data and not linked in: neither go.mod
// knows it. The sum is the one that go.sum would have.
type module struct {
	path, version, sum string
}

var (
	clusterAPIModule = module{"sigs.k8s.io/cluster-api", "v1.14.2", "h1:o3GFNaeNFAOEEMpDPfhCK+2CjmV6gtQ8yLEcUwCg7bA="}
	karpenterModule  = module{"sigs.k8s.io/karpenter", "v1.15.0", "h1:5SEptlAvsOZbNg4qg8OSdF1qi6BEZHZLA020nXY7jGw="}
	medik8sModule    = module{"github.com/medik8s/common", "v1.17.0", "h1:AmJKx0tzqGZF27Ot0A4ak85q0F0zqUkVyCvYmm67rtY="}
)

// files downloads the module through Go's own cache, holds it to its sum, and returns its files. They are read out of the
// archive, which Go keeps even where the module wants a later Go than this.
func (m module) files(ctx context.Context) (fs.FS, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	elsewhere, err := os.MkdirTemp("", "no-module-")
	if err != nil {
		return nil, fmt.Errorf("making a folder without a go.mod: %w", err)
	}
	defer os.RemoveAll(elsewhere)
	command := exec.CommandContext(ctx, "go", "mod", "download", "-json", m.path+"@"+m.version)
	command.Dir = elsewhere
	command.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local")
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	ran := command.Run()
	var found struct{ Zip, Sum, Error string }
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		return nil, fmt.Errorf("downloading %s@%s: %w: %s", m.path, m.version, errors.Join(ran, err), problems.String())
	}
	if found.Zip == "" {
		return nil, fmt.Errorf("downloading %s@%s: %s", m.path, m.version, found.Error)
	}
	if found.Sum != m.sum {
		return nil, fmt.Errorf("%s@%s has the sum %s, want %s", m.path, m.version, found.Sum, m.sum)
	}
	data, err := os.ReadFile(found.Zip)
	if err != nil {
		return nil, fmt.Errorf("reading %s@%s: %w", m.path, m.version, err)
	}
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("opening %s@%s: %w", m.path, m.version, err)
	}
	return fs.Sub(archive, m.path+"@"+m.version)
}
