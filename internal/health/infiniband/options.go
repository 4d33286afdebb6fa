package infiniband

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Pattern names ports: a device such as mlx5_4, a port such as mlx5_4/1, with * and ? as in a shell, or the PCI address of
// an adapter.
type Pattern string

// ParsePattern checks a pattern.
func ParsePattern(s string) (Pattern, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return "", fmt.Errorf("parsing port pattern: it is empty; want a device such as mlx5_4, or a port such as mlx5_4/1")
	}
	if strings.Count(s, "/") > 1 {
		return "", fmt.Errorf("parsing port pattern %q: want device or device/port", s)
	}
	if _, err := path.Match(s, "x"); err != nil {
		return "", fmt.Errorf("parsing port pattern %q: %w", s, err)
	}
	return Pattern(s), nil
}

func (p Pattern) matches(port *machine.InfiniBandPort) bool {
	for _, name := range []string{port.Device, port.Name(), port.PCI} {
		// A pattern that ParsePattern accepted has no error left.
		if ok, err := path.Match(string(p), name); ok && err == nil {
			return true
		}
	}
	return false
}

// Rate is what the ports of a pattern are declared to run at.
type Rate struct {
	Pattern Pattern
	Mbps    uint32
}

// ParseRate reads "pattern=rate", the rate in Gb/s: "mlx5_*=400".
func ParseRate(s string) (Rate, error) {
	at := strings.LastIndexByte(s, '=')
	if at < 0 {
		return Rate{}, fmt.Errorf("parsing port rate %q: want pattern=Gb/s, such as mlx5_*=400", s)
	}
	p, err := ParsePattern(s[:at])
	if err != nil {
		return Rate{}, fmt.Errorf("parsing port rate %q: %w", s, err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(s[at+1:]), 10, 16)
	if err != nil || n == 0 {
		return Rate{}, fmt.Errorf("parsing port rate %q: %q is not a whole number of Gb/s above zero", s, s[at+1:])
	}
	return Rate{Pattern: p, Mbps: uint32(n) * 1000}, nil
}

// declared is the rate a port is declared to have; the first that matches counts, and 0 is none.
func declared(rates []Rate, port *machine.InfiniBandPort) uint32 {
	for _, r := range rates {
		if r.Pattern.matches(port) {
			return r.Mbps
		}
	}
	return 0
}
