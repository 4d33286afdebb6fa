package checks

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/roundhouse-dev/roundhouse/internal/health/custom"
	"github.com/roundhouse-dev/roundhouse/internal/npd"
)

// ReadNPD reads configurations of node-problem-detector's. A pattern, such as /config/*.json, names all files that match;
// one that matches none is an error, as a file that is not there is. Warnings are of what NPD passes over in silence.
func ReadNPD(patterns []string) (configs []*npd.Config, warnings []string, err error) {
	var errs []error
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err == nil && len(files) == 0 {
			err = errors.New("no such file")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", pattern, err))
		}
		for _, file := range files {
			c, err := readNPD(file)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			configs = append(configs, c)
			for _, w := range c.Warnings {
				warnings = append(warnings, w.String())
			}
		}
	}
	return configs, warnings, errors.Join(errs...)
}

func readNPD(file string) (*npd.Config, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading an NPD configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, npd.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("reading an NPD configuration: %w", err)
	}
	return npd.Parse(file, data)
}

// ReadCustom reads the custom checks of a directory; none where no directory is named.
func ReadCustom(dir string) ([]custom.Config, error) {
	if dir == "" {
		return nil, nil
	}
	configs, err := custom.Load(os.DirFS(dir))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return configs, nil
}
