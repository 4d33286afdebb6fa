package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const (
	// maxBadPagesFile bounds the list of bad pages: 28 bytes each, so that some nine thousand are read.
	maxBadPagesFile = 256 << 10
	// maxRASBlocks bounds the units of one GPU; the driver knows about twenty.
	maxRASBlocks = 64
	// maxAMDGPUs bounds the GPUs of one read.
	maxAMDGPUs = 64
)

// AMDGPUs reads the directory ras of each GPU (Documentation/gpu/amdgpu/ras.rst). The driver asks the GPU at each read of
// a count and adds what it finds to its own sums, so that other readers lose nothing. It hangs when the GPU does.
func (h *Host) AMDGPUs(ctx context.Context, addresses []string) ([]AMDGPU, error) {
	addresses = slices.Clone(addresses)
	return through(ctx, h.amdgpu, func() ([]AMDGPU, error) {
		threshold := h.badPageThreshold()
		var out []AMDGPU
		for _, address := range addresses[:min(len(addresses), maxAMDGPUs)] {
			if !isPCIAddress(address) {
				return nil, fmt.Errorf("reading amdgpu: %q is not a PCI address: %w", clip(address), fs.ErrInvalid)
			}
			dir := h.path("sys/bus/pci/devices", address)
			if driver, err := os.Readlink(filepath.Join(dir, "driver")); err != nil || filepath.Base(driver) != "amdgpu" {
				continue
			}
			gpu, err := readAMDGPU(dir)
			if err != nil {
				return nil, fmt.Errorf("reading amdgpu %s: %w", address, err)
			}
			gpu.Address, gpu.PageThreshold = address, threshold
			out = append(out, gpu)
		}
		return out, nil
	})
}

// badPageThreshold is the module's parameter; -1, the driver's own default, where it cannot be read.
func (h *Host) badPageThreshold() int {
	data, err := readBounded(h.path("sys/module/amdgpu/parameters/bad_page_threshold"), maxSysfsFile)
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return -1
	}
	return n
}

func readAMDGPU(dir string) (AMDGPU, error) {
	var gpu AMDGPU
	a := attributes{dir: dir, unread: &gpu.Unread}
	if data, ok := a.bytes("mem_info_vram_total", maxSysfsFile); ok {
		var err error
		if gpu.MemoryBytes, err = ParseSysfsCount(data); err != nil {
			a.failed("mem_info_vram_total", err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "ras"))
	if errors.Is(err, fs.ErrNotExist) {
		return gpu, nil
	}
	if err != nil {
		return gpu, err
	}
	gpu.RAS = true
	for _, e := range entries {
		block, counts := rasBlock(e.Name())
		known := slices.ContainsFunc(gpu.Blocks, func(c RASCount) bool { return c.Block == block })
		if counts && !known && len(gpu.Blocks) < maxRASBlocks {
			gpu.readBlock(a, filepath.Join("ras", e.Name()), block)
		}
	}
	slices.SortFunc(gpu.Blocks, func(a, b RASCount) int { return cmp.Compare(a.Block, b.Block) })
	if data, ok := a.bytes("ras/gpu_vram_bad_pages", maxBadPagesFile); ok {
		if gpu.Pages, err = ParseBadPages(data); err != nil {
			a.failed("ras/gpu_vram_bad_pages", err)
		}
	}
	return gpu, nil
}

// rasBlock is the unit that a file of the directory counts the errors of. Which of the two names a file has depends on
// the GPU and the kernel; both say the same.
func rasBlock(name string) (string, bool) {
	if block, ok := strings.CutSuffix(name, "_err_count"); ok {
		return bound(block, 32), true
	}
	if block, ok := strings.CutPrefix(name, "aca_"); ok {
		return bound(block, 32), true
	}
	return "", false
}

func (gpu *AMDGPU) readBlock(a attributes, name, block string) {
	data, err := readBounded(filepath.Join(a.dir, name), maxSysfsFile)
	var count RASCount
	var busy bool
	if err == nil {
		count, busy, err = ParseRASCount(data)
	}
	switch {
	case errors.Is(err, syscall.EINVAL) && gpu.Unread == "":
		// Elsewhere that means there is no such thing; here that the driver's question to the GPU failed.
		gpu.Unread = name
	case err != nil:
		a.failed(name, err)
	case busy:
		gpu.Busy = true
	default:
		count.Block = block
		gpu.Blocks = append(gpu.Blocks, count)
	}
}
