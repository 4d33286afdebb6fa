package machine

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHostReadsAMDGPUs(t *testing.T) {
	h := NewHost(Options{Root: unpack(t, "amdgpu.sysfs")})
	ctx := testContext(t, 10*time.Second)
	got, err := h.AMDGPUs(ctx, []string{"0000:0c:00.0", "0000:22:00.0", "0000:38:00.0", "0000:5c:00.0", "0000:77:00.0"})
	if err != nil {
		t.Fatal(err)
	}
	want := []AMDGPU{
		{
			Address: "0000:0c:00.0", RAS: true, MemoryBytes: 206141652992, PageThreshold: -1,
			Blocks: []RASCount{
				{Block: "gfx"}, {Block: "sdma", Correctable: 4}, {Block: "umc", Uncorrectable: 1, Correctable: 20, Deferred: 3},
			},
			Pages:  BadPages{Reserved: 1, Pending: 1, Failed: 1},
			Unread: "ras/mmhub_err_count",
		},
		{Address: "0000:22:00.0", RAS: true, Busy: true, PageThreshold: -1},
		{Address: "0000:38:00.0", MemoryBytes: 17163091968, PageThreshold: -1},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := h.AMDGPUs(ctx, []string{"../0000:0c:00.0"}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("what is no address was read: %v", err)
	}
	if got, err := NewHost(Options{Root: t.TempDir()}).AMDGPUs(ctx, []string{"0000:0c:00.0"}); err != nil || len(got) != 0 {
		t.Errorf("no driver holds nothing: %v, %v", got, err)
	}
}

func TestParseRASCount(t *testing.T) {
	tests := map[string]struct {
		in   string
		want RASCount
		busy bool
		bad  bool
	}{
		"a unit":                       {in: "ue: 0\nce: 1\n", want: RASCount{Correctable: 1}},
		"memory, on newer kernels":     {in: "ue: 2\nce: 1\nde: 3\n", want: RASCount{Uncorrectable: 2, Correctable: 1, Deferred: 3}},
		"the GPU is being reset":       {in: "Query currently inaccessible\n", busy: true},
		"what a later kernel may add":  {in: "ue: 0\nce: 1\nxe: 7\n", want: RASCount{Correctable: 1}},
		"half a file is no count":      {in: "ue: 0\n", bad: true},
		"a word is no count":           {in: "ue: none\nce: 0\n", bad: true},
		"a sentence is no count":       {in: "ue: 0\nce: 0\nand more\n", bad: true},
		"an empty file is not healthy": {in: "", bad: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, busy, err := ParseRASCount([]byte(tc.in))
			if diff := cmp.Diff(tc.want, got); !tc.bad && diff != "" || busy != tc.busy || (err != nil) != tc.bad {
				t.Errorf("busy %v, %v (-want +got):\n%s", busy, err, diff)
			}
		})
	}
}

func TestParseBadPages(t *testing.T) {
	const page = "0x00000001 : 0x00001000 : R\n"
	tests := map[string]struct {
		in   string
		want BadPages
		bad  bool
	}{
		"none":                      {},
		"one of each":               {in: page + "0x2 : 0x00001000 : P\n0x3 : 0x00001000 : F\n", want: BadPages{Reserved: 1, Pending: 1, Failed: 1}},
		"a list that was cut":       {in: page + page + "0x0000", want: BadPages{Reserved: 2, Cut: true}},
		"an unknown flag":           {in: "0x00000001 : 0x00001000 : X\n", bad: true},
		"a page that is no number":  {in: "page : 0x00001000 : R\n", bad: true},
		"a page without a size":     {in: "0x00000001 : : R\n", bad: true},
		"a line of another kind":    {in: "nothing\n", bad: true},
		"a line with one part more": {in: "0x1 : 0x1000 : R : R\n", bad: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseBadPages([]byte(tc.in))
			if got != tc.want || (err != nil) != tc.bad {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	b, err := ParseBadPages([]byte(strings.Repeat(page, 100)))
	if err != nil || b.Total() != 100 {
		t.Errorf("%+v, %v", b, err)
	}
}

func FuzzParseRASCount(f *testing.F) {
	f.Add([]byte("ue: 0\nce: 1\n"))
	f.Add([]byte("ue: 2\nce: 1\nde: 3\n"))
	f.Add([]byte("Query currently inaccessible\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, busy, err := ParseRASCount(b); (busy || err != nil) && c != (RASCount{}) {
			t.Errorf("%q is %+v, %v", b, c, busy)
		}
	})
}

func FuzzParseBadPages(f *testing.F) {
	f.Add([]byte("0x00000001 : 0x00001000 : R\n0x00000002 : 0x00001000 : P\n"))
	f.Add([]byte("0x00000001 : 0x00001000 : F\n0x0000"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pages, err := ParseBadPages(b)
		if err != nil && pages != (BadPages{}) {
			t.Errorf("%q is %+v and %v", b, pages, err)
		}
		if pages.Total() > len(b)/6 {
			t.Errorf("%q is %d pages", b, pages.Total())
		}
	})
}
