package machine

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// maxAERKinds bounds the kinds of error of one file; a status register has 32 bits.
const maxAERKinds = 32

// AERKind is how often one kind of error was seen, such as BadTLP.
type AERKind struct {
	Name string `json:"name"`
	N    uint64 `json:"n"`
}

// AERCount counts the errors of one severity.
type AERCount struct {
	// Total counts the messages a device sent. One message may tell of several errors, so it need not be their sum.
	Total uint64 `json:"total"`
	// Kinds are the errors by kind, those that were never seen left out.
	Kinds []AERKind `json:"kinds,omitempty"`
}

// AERRoot counts the messages a root port received, from whatever is below it and from itself.
type AERRoot struct {
	Correctable, Nonfatal, Fatal uint64
}

// AERDevice is what Advanced Error Reporting has counted at one device since the kernel found it, most often since boot.
// An error is counted by the end of the link that saw it, which may be the port above the device that is broken.
type AERDevice struct {
	Address string
	// Parent is the address of the bridge above; empty below a root bus.
	Parent string
	// Reports says that the device can report errors; where it cannot, all counts are zero and mean nothing.
	Reports                      bool
	Correctable, Nonfatal, Fatal AERCount
	// Root is set for a root port.
	Root *AERRoot
	// Unread names the first attribute that is there and could not be read.
	Unread string
}

// ParseAERCount reads aer_dev_correctable, aer_dev_nonfatal or aer_dev_fatal: a kind and its count a line, and last the
// count of messages (aer_stats_dev_attr in drivers/pci/pcie/aer.c). Kernels before 5.3 wrote the kinds in words, with
// spaces.
func ParseAERCount(data []byte) (AERCount, error) {
	var c AERCount
	total := false
	for line := range bytes.Lines(data) {
		text := strings.TrimSpace(string(line))
		if text == "" {
			continue
		}
		at := strings.LastIndexByte(text, ' ')
		if at < 0 {
			return AERCount{}, fmt.Errorf("parsing AER counters: %q has no count", clip(text))
		}
		name := strings.TrimSpace(text[:at])
		n, err := strconv.ParseUint(text[at+1:], 10, 64)
		if err != nil {
			return AERCount{}, fmt.Errorf("parsing AER counters: %s: %w", clip(name), err)
		}
		switch {
		case strings.HasPrefix(name, "TOTAL_"):
			c.Total, total = n, true
		case n > 0 && len(c.Kinds) < maxAERKinds:
			c.Kinds = append(c.Kinds, AERKind{Name: bound(name, 32), N: n})
		}
	}
	if !total {
		return AERCount{}, fmt.Errorf("parsing AER counters: no TOTAL line")
	}
	return c, nil
}

// ParseSysfsCount reads a file that holds one decimal count, such as aer_rootport_total_err_cor.
func ParseSysfsCount(data []byte) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parsing a count: %w", err)
	}
	return n, nil
}
