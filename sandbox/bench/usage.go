package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process used.
type Usage struct {
	// What says which process, and when.
	What string `json:"what"`
	// ResidentMiB is its memory at the end, and PeakMiB the most it ever had.
	ResidentMiB float64 `json:"residentMiB"`
	PeakMiB     float64 `json:"peakMiB"`
	// Cores is how much of a core it used, on average, over Seconds.
	Cores   float64 `json:"cores"`
	Seconds float64 `json:"seconds"`
}

// tick is the unit of /proc/PID/stat: USER_HZ, which is 100 on every Linux of ours (time(7)).
const tick = time.Second / 100

// usageOver looks at a process over some time.
func usageOver(ctx context.Context, pid int, over time.Duration) (Usage, error) {
	before, err := cpuTime(pid)
	if err != nil {
		return Usage{}, err
	}
	if err := pause(ctx, over); err != nil {
		return Usage{}, err
	}
	return usageSince(pid, before, over)
}

// usageSince is what a process has used since it had used so much.
func usageSince(pid int, before, over time.Duration) (Usage, error) {
	after, err := cpuTime(pid)
	if err != nil {
		return Usage{}, err
	}
	u := Usage{Cores: (after - before).Seconds() / over.Seconds(), Seconds: over.Seconds()}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return Usage{}, fmt.Errorf("reading the memory of process %d: %w", pid, err)
	}
	u.ResidentMiB, u.PeakMiB = kib(string(data), "VmRSS:")/1024, kib(string(data), "VmHWM:")/1024
	return u, nil
}

// cpuTime is the processor time that a process has used (proc_pid_stat(5): utime and stime).
func cpuTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the processor time of process %d: %w", pid, err)
	}
	return parseStat(string(data))
}

// parseStat reads fields 14 and 15. The second field, the name, may hold anything, so counting begins after its bracket.
func parseStat(text string) (time.Duration, error) {
	const user, system, fewest = 11, 12, 13
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < fewest {
		return 0, fmt.Errorf("a process's stat has %d fields after the name, want %d at least", len(fields), fewest)
	}
	var sum time.Duration
	for _, field := range []string{fields[user], fields[system]} {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading processor time: %w", err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// kib reads a line of /proc in KiB; zero where it is not there.
func kib(text, name string) float64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if fields := strings.Fields(rest); len(fields) > 0 {
				n, err := strconv.ParseFloat(fields[0], 64)
				if err == nil {
					return n
				}
			}
		}
	}
	return 0
}

// totalMemory is the machine's, in MiB; zero where nobody says.
func totalMemory() int {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return int(kib(string(data), "MemTotal:") / 1024)
}
