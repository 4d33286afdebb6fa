package machine

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHostReadsAERCounters(t *testing.T) {
	h := NewHost(Options{Root: unpack(t, "aer.sysfs")})
	ctx := testContext(t, 10*time.Second)
	got, err := h.AER(ctx, []string{"0000:19:00.0", "0000:1a:00.0", "0000:77:00.0"})
	if err != nil {
		t.Fatal(err)
	}
	want := []AERDevice{
		{Address: "0000:16:01.0", Reports: true, Root: &AERRoot{Correctable: 7, Nonfatal: 2, Fatal: 1}},
		{Address: "0000:17:00.0", Parent: "0000:16:01.0"},
		{
			Address: "0000:18:01.0", Parent: "0000:17:00.0", Reports: true,
			Correctable: AERCount{Total: 5, Kinds: []AERKind{{"RxErr", 4}, {"BadTLP", 2}}},
			Fatal:       AERCount{Total: 1, Kinds: []AERKind{{"SDES", 1}}},
		},
		{Address: "0000:18:02.0", Parent: "0000:17:00.0", Reports: true, Unread: "aer_dev_nonfatal"},
		{
			Address: "0000:19:00.0", Parent: "0000:18:01.0", Reports: true,
			Correctable: AERCount{Total: 2, Kinds: []AERKind{{"Timeout", 2}}},
			Nonfatal:    AERCount{Total: 2, Kinds: []AERKind{{"CmpltTO", 1}, {"aer_dev_nonfatal_bit[27]", 1}}},
		},
		{Address: "0000:1a:00.0", Parent: "0000:18:02.0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := h.AER(ctx, []string{"../../etc"}); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("what is no address was read: %v", err)
	}
	if _, err := NewHost(Options{Root: t.TempDir()}).AER(ctx, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no bus is an error, since it cannot be looked at: %v", err)
	}
}

func TestParseAERCount(t *testing.T) {
	tests := map[string]struct {
		in   string
		want AERCount
		bad  bool
	}{
		"kinds that were never seen are left out": {
			in: "RxErr 0\nBadTLP 3\nTOTAL_ERR_COR 2\n", want: AERCount{Total: 2, Kinds: []AERKind{{"BadTLP", 3}}},
		},
		"kernels before 5.3 wrote kinds in words": {
			in:   "Receiver Error 2\nRELAY_NUM Rollover 0\nTOTAL_ERR_COR 2\n",
			want: AERCount{Total: 2, Kinds: []AERKind{{"Receiver Error", 2}}},
		},
		"a bit without a name": {
			in: "dev_fatal_errs_bit[27] 1\nTOTAL_ERR_FATAL 1\n", want: AERCount{Total: 1, Kinds: []AERKind{{"dev_fatal_errs_bit[27]", 1}}},
		},
		"the largest count":             {in: "TOTAL_ERR_COR 18446744073709551615\n", want: AERCount{Total: 1<<64 - 1}},
		"one larger is an error":        {in: "TOTAL_ERR_COR 18446744073709551616\n", bad: true},
		"a negative count is an error":  {in: "RxErr -1\nTOTAL_ERR_COR 0\n", bad: true},
		"a cut file has no total":       {in: "RxErr 0\nBadTLP 3\n", bad: true},
		"a word without a count":        {in: "RxErr\nTOTAL_ERR_COR 0\n", bad: true},
		"an empty file is not no error": {in: "", bad: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseAERCount([]byte(tc.in))
			if diff := cmp.Diff(tc.want, got); diff != "" || (err != nil) != tc.bad {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func FuzzParseAERCount(f *testing.F) {
	f.Add([]byte("RxErr 0\nBadTLP 3\nTOTAL_ERR_COR 2\n"))
	f.Add([]byte("Receiver Error 2\ndev_cor_errs_bit[1] 1\nTOTAL_ERR_COR 2\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseAERCount(b)
		if err != nil {
			return
		}
		if len(c.Kinds) > maxAERKinds {
			t.Errorf("%d kinds", len(c.Kinds))
		}
		for _, k := range c.Kinds {
			if k.N == 0 || len(k.Name) > 32 || strings.HasPrefix(k.Name, "TOTAL_") {
				t.Errorf("%+v", k)
			}
		}
	})
}

func FuzzParseSysfsCount(f *testing.F) {
	f.Add([]byte("7\n"))
	f.Add([]byte("N/A\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := ParseSysfsCount(b); err != nil && n != 0 {
			t.Errorf("%q is %d and %v", b, n, err)
		}
	})
}
