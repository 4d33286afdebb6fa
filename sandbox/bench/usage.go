package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
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

// process is a program under measurement.
type process struct {
	what string
	node string
	cmd  *exec.Cmd
	dir  string // removed with it
}

// stop ends it and waits for its end.
func (p *process) stop() {
	if p == nil {
		return
	}
	if p.cmd != nil {
		_ = p.cmd.Process.Kill() // it may have ended by itself
		_ = p.cmd.Wait()         // it was killed, and says so
	}
	_ = os.RemoveAll(p.dir) // what is left is in the directory for temporary files
}

// sampleEvery is how often memory is looked at: a child that lives for a moment has its share of the peak.
const sampleEvery = 100 * time.Millisecond

// target is a process that is looked at.
type target struct {
	what string
	pid  int
}

func (p *process) target() target { return target{p.what, p.cmd.Process.Pid} }

// usageOf looks at processes over some time, each with its children.
func usageOf(ctx context.Context, over time.Duration, targets ...target) ([]Usage, error) {
	before, peaks := make([]time.Duration, len(targets)), make([]float64, len(targets))
	for i, p := range targets {
		var err error
		if before[i], err = cpuTime(p.pid); err != nil {
			return nil, err
		}
	}
	for end := time.Now().Add(over); time.Now().Before(end); {
		for i, p := range targets {
			peaks[i] = max(peaks[i], residentWithChildren(p.pid))
		}
		if err := pause(ctx, sampleEvery); err != nil {
			return nil, err
		}
	}
	out := make([]Usage, len(targets))
	for i, p := range targets {
		u, err := usageSince(p.pid, before[i], over)
		if err != nil {
			return nil, err
		}
		u.What, u.PeakMiB = p.what, max(u.PeakMiB, peaks[i])
		out[i] = u
	}
	return out, nil
}

// residentWithChildren is the memory of a process and of the children that it has now, in MiB; what ends meanwhile has
// none.
func residentWithChildren(pid int) float64 {
	pids := []string{strconv.Itoa(pid)}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err == nil {
		pids = append(pids, strings.Fields(string(children))...)
	}
	sum := 0.0
	for _, pid := range pids {
		data, err := os.ReadFile("/proc/" + pid + "/status")
		if err == nil {
			sum += kib(string(data), "VmRSS:") / 1024
		}
	}
	return sum
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

// cpuTime is the processor time that a process has used, and its children that have ended (proc_pid_stat(5)).
func cpuTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the processor time of process %d: %w", pid, err)
	}
	return parseStat(string(data))
}

// parseStat reads fields 14 to 17: utime, stime, cutime and cstime. The second field, the name, may hold anything, so
// counting begins after its bracket.
func parseStat(text string) (time.Duration, error) {
	const first, beyond = 11, 15
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < beyond {
		return 0, fmt.Errorf("a process's stat has %d fields after the name, want %d at least", len(fields), beyond)
	}
	var sum time.Duration
	for _, field := range fields[first:beyond] {
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
