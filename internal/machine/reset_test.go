package machine

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseDeviceNumber(t *testing.T) {
	tests := map[string]struct {
		in           string
		major, minor uint32
		err          bool
	}{
		"a render node":             {in: "226:128\n", major: 226, minor: 128},
		"the largest that there is": {in: "4095:1048575", major: 4095, minor: 1048575},
		"a minor number too large":  {in: "1:1048576", err: true},
		"a major number too large":  {in: "4096:0", err: true},
		"no colon":                  {in: "226", err: true},
		"a sign":                    {in: "+1:2", err: true},
		"nothing":                   {err: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			major, minor, err := ParseDeviceNumber(tt.in)
			if major != tt.major || minor != tt.minor || (err != nil) != tt.err {
				t.Errorf("got %d:%d, %v", major, minor, err)
			}
		})
	}
}

func TestParseMapping(t *testing.T) {
	tests := map[string]struct {
		line string
		want string // range and path; empty for none
	}{
		"a GPU's registers": {
			"7f2c40000000-7f2c40010000 rw-s 00000000 00:06 1023                       /dev/nvidia0", "7f2c40000000-7f2c40010000 /dev/nvidia0",
		},
		"a device under another name": {
			"7f2c40000000-7f2c40010000 rw-s 00000000 00:31 12 /tmp/my gpu", "7f2c40000000-7f2c40010000 /tmp/my gpu",
		},
		"a private mapping of a device": {
			"7f00-7f01 rw-p 00000000 00:06 1023 /dev/dri/renderD128", "7f00-7f01 /dev/dri/renderD128",
		},
		"a library":              {"7f2c-7f2d r-xp 00000000 fe:01 131 /usr/lib/libc.so.6", ""},
		"the heap":               {"55d0-55d1 rw-p 00000000 00:00 0 [heap]", ""},
		"memory without a name":  {"55d0-55d1 rw-s 00000000 00:00 0", ""},
		"shared memory, deleted": {"55d0-55d1 rw-s 00000000 00:01 5 /dev/zero (deleted)", "55d0-55d1 /dev/zero (deleted)"},
		"a range that is a path": {"../../x-7f rw-s 00000000 00:06 1023 /dev/nvidia0", ""},
		"half a line":            {"7f2c40000000-7f2c40010000 rw-s", ""},
		"nothing":                {"", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			m, ok := ParseMapping(tt.line)
			got := strings.TrimSpace(m.Range + " " + m.Path)
			if got != tt.want || ok != (tt.want != "") {
				t.Errorf("got %q, %t; want %q", got, ok, tt.want)
			}
		})
	}
}

func TestParseParent(t *testing.T) {
	tests := map[string]struct {
		in   string
		want int
		err  bool
	}{
		"as usual":                     {in: "77 (train.py) S 12 77 77 0 -1", want: 12},
		"a name that looks like state": {in: "77 (x) Z 1 (y) R 34 5", want: 34},
		"no name":                      {in: "77 S 12", err: true},
		"cut off":                      {in: "77 (train.py) S", err: true},
		"below zero":                   {in: "77 (train.py) S -1", err: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseParent([]byte(tt.in))
			if got != tt.want || (err != nil) != tt.err {
				t.Errorf("got %d, %v", got, err)
			}
		})
	}
}

func TestParseNVIDIAMinor(t *testing.T) {
	const info = "Model: \t\t NVIDIA H200\nIRQ:   \t\t 215\nBus Location: \t 0000:18:00.0\nDevice Minor: \t 3\nGPU Excluded:\t No\n"
	if got, err := ParseNVIDIAMinor([]byte(info)); got != 3 || err != nil {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{"", "Model: x\n", "Device Minor: \t ??\n", "Device Minor: -1\n"} {
		if got, err := ParseNVIDIAMinor([]byte(bad)); err == nil {
			t.Errorf("%q: got %d", bad, got)
		}
	}
}

func TestParseMount(t *testing.T) {
	major, minor, where, err := ParseMount("36 35 259:1 / /mnt/data rw,noatime master:1 - ext4 /dev/nvme0n1p1 rw")
	if major != 259 || minor != 1 || where != "/mnt/data" || err != nil {
		t.Errorf("got %d:%d on %s, %v", major, minor, where, err)
	}
	for _, bad := range []string{"", "36 35 259:1 /", "36 35 sda / /mnt"} {
		if _, _, _, err := ParseMount(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestParseResetMethods(t *testing.T) {
	if diff := cmp.Diff([]string{"device_specific", "flr", "bus"}, ParseResetMethods([]byte("device_specific flr bus\n"))); diff != "" {
		t.Error(diff)
	}
	if got := ParseResetMethods([]byte("\n")); got != nil {
		t.Errorf("got %q of a device that cannot be reset", got)
	}
}

func TestAHolderInWords(t *testing.T) {
	tests := map[string]Holder{
		"train.py (pid 4711, /dev/nvidia0)": {Kind: HolderProcess, Name: "train.py", PID: 4711, Path: "/dev/nvidia0"},
		"train.py (pid 4711, /dev/nvidia0, mapped)": {
			Kind: HolderProcess, Name: "train.py", PID: 4711, Path: "/dev/nvidia0", Mapped: true,
		},
		"this agent's own roundhouse-nvml (pid 9, /dev/nvidia0)": {Kind: HolderHelper, Name: helperName, PID: 9, Path: "/dev/nvidia0"},
		"nvidia-persistenced (pid 8, /dev/nvidia0)":              {Kind: HolderPersistence, Name: "nvidia-persistenced", PID: 8, Path: "/dev/nvidia0"},
		"mounted on /mnt (/dev/nvme0n1)":                         {Kind: HolderKernel, Name: "mounted on /mnt", Path: "/dev/nvme0n1"},
	}
	for want, h := range tests {
		if got := h.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestANameIsFitToBeShown(t *testing.T) {
	for in, want := range map[string]string{
		"train.py\n": "train.py", "": "?", "a\x1b[31mb": "a?[31mb", "ü": "?", strings.Repeat("x", 99): strings.Repeat("x", 32),
	} {
		if got := commandName([]byte(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzResetParsers(f *testing.F) {
	for _, s := range []string{
		"226:128\n", "7f2c40000000-7f2c40010000 rw-s 00000000 00:06 1023 /dev/nvidia0", "77 (train.py) S 12 77", "Device Minor: \t 3\n",
		"36 35 259:1 / /mnt/data rw,noatime master:1 - ext4 /dev/nvme0n1p1 rw", "flr bus", "DEVNAME=dri/card0\n", "Enabled\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if major, minor, err := ParseDeviceNumber(s); err == nil && (major > 0xfff || minor > 0xfffff) {
			t.Errorf("device number %d:%d of %q", major, minor, s)
		}
		if m, ok := ParseMapping(s); ok && (strings.ContainsAny(m.Range, "/. ") || !strings.HasPrefix(m.Path, "/")) {
			t.Errorf("mapping %+v of %q", m, s)
		}
		if parent, err := ParseParent([]byte(s)); err == nil && parent < 0 {
			t.Errorf("parent %d of %q", parent, s)
		}
		if minor, err := ParseNVIDIAMinor([]byte(s)); err == nil && minor > 0xfffff {
			t.Errorf("minor %d of %q", minor, s)
		}
		if _, _, where, err := ParseMount(s); err == nil && len(where) > 64 {
			t.Errorf("mount point %q of %q", where, s)
		}
		if n := len(ParseResetMethods([]byte(s))); n > 16 {
			t.Errorf("%d methods of %q", n, s)
		}
		for _, name := range []string{ParseDeviceName([]byte(s)), commandName([]byte(s)), commandOutput([]byte(s))} {
			if strings.ContainsAny(name, "\n\x00") && name != commandOutput([]byte(s)) {
				t.Errorf("name %q of %q", name, s)
			}
		}
		IsPersistent([]byte(s))
	})
}
