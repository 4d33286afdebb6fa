package machine

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// RASCount is what the amdgpu driver has counted in one unit of a GPU since it was loaded.
type RASCount struct {
	// Block is the unit: umc is memory, gfx, sdma, mmhub, xgmi_wafl and so on.
	Block string `json:"block"`
	// Uncorrectable, Correctable and Deferred count errors. A deferred error is data that is known to be bad and that
	// nothing has used yet; only memory has it.
	Uncorrectable uint64 `json:"ue"`
	Correctable   uint64 `json:"ce"`
	Deferred      uint64 `json:"de,omitempty"`
}

// BadPages counts the pages of a GPU's memory that the driver has taken out of use.
type BadPages struct {
	// Reserved are out of use, Pending will be at the next chance, and Failed could not be taken out and may still be
	// handed to programs.
	Reserved, Pending, Failed int
	// Cut says that there are more than were read.
	Cut bool
}

// Total is all of them.
func (b BadPages) Total() int { return b.Reserved + b.Pending + b.Failed }

// AMDGPU is what the amdgpu driver says of the errors of one GPU.
type AMDGPU struct {
	Address string
	// RAS says that the driver publishes error counts of this GPU; it does not for most that are no accelerators.
	RAS bool
	// Busy says that the counts cannot be read now, as while the GPU is reset.
	Busy   bool
	Blocks []RASCount
	// Pages are the bad pages.
	Pages BadPages
	// MemoryBytes is the size of the GPU's memory; 0 is unknown.
	MemoryBytes uint64
	// PageThreshold is the driver's parameter bad_page_threshold: a number of pages above zero, 0 where bad pages are not
	// taken out of use, and below zero where the driver chooses.
	PageThreshold int
	// Unread names the first attribute that is there and could not be read.
	Unread string
}

// ParseRASCount reads ras/<block>_err_count or ras/aca_<block> (amdgpu_ras_sysfs_read in
// drivers/gpu/drm/amd/amdgpu/amdgpu_ras.c): "ue: 0", "ce: 0" and, of memory on newer kernels, "de: 0", one a line. busy
// is the driver's word that it cannot say now.
func ParseRASCount(data []byte) (c RASCount, busy bool, err error) {
	if bytes.HasPrefix(data, []byte("Query currently inaccessible")) {
		return RASCount{}, true, nil
	}
	var ue, ce bool
	for line := range bytes.Lines(data) {
		text := strings.TrimSpace(string(line))
		key, value, ok := strings.Cut(text, ":")
		if !ok {
			if text == "" {
				continue
			}
			return RASCount{}, false, fmt.Errorf("parsing RAS count: %q has no count", clip(text))
		}
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		if err != nil {
			return RASCount{}, false, fmt.Errorf("parsing RAS count: %s: %w", clip(key), err)
		}
		switch key {
		case "ue":
			c.Uncorrectable, ue = n, true
		case "ce":
			c.Correctable, ce = n, true
		case "de":
			c.Deferred = n
		}
	}
	if !ue || !ce {
		return RASCount{}, false, fmt.Errorf("parsing RAS count: no ue or no ce")
	}
	return c, false, nil
}

// ParseBadPages reads ras/gpu_vram_bad_pages, a page a line: "0x00000001 : 0x00001000 : R", which are the page's number,
// its size and whether it is (R)eserved, (P)ending, or (F)ailed to be (amdgpu_ras_sysfs_badpages_read). A last line
// without its end was cut.
func ParseBadPages(data []byte) (BadPages, error) {
	var b BadPages
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			b.Cut = true
			break
		}
		text := strings.TrimSpace(string(line))
		if text == "" {
			continue
		}
		fields := strings.Split(text, ":")
		if len(fields) != 3 {
			return BadPages{}, fmt.Errorf("parsing bad page %q: want page : size : flag", clip(text))
		}
		for _, field := range fields[:2] {
			if _, err := parseHex(strings.TrimPrefix(strings.TrimSpace(field), "0x"), 64); err != nil {
				return BadPages{}, fmt.Errorf("parsing bad page %q: %w", clip(text), err)
			}
		}
		switch strings.TrimSpace(fields[2]) {
		case "R":
			b.Reserved++
		case "P":
			b.Pending++
		case "F":
			b.Failed++
		default:
			return BadPages{}, fmt.Errorf("parsing bad page %q: the flag is not R, P or F", clip(text))
		}
	}
	return b, nil
}
