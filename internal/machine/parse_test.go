package machine

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
)

func TestParsePCIAddress(t *testing.T) {
	tests := map[string]struct {
		in, want string
		bad      bool
	}{
		"a whole address stays":                {in: "0000:18:00.0", want: "0000:18:00.0"},
		"upper case becomes lower":             {in: "0000:C9:1F.7", want: "0000:c9:1f.7"},
		"the function that NVRM leaves out":    {in: "0000:18:00", want: "0000:18:00.0"},
		"the domain that lspci leaves out":     {in: "18:00.0", want: "0000:18:00.0"},
		"a wide domain of a virtual host":      {in: "10000:01:00.0", want: "10000:01:00.0"},
		"a device above 31 is none":            {in: "0000:18:20.0", bad: true},
		"a function above 7 is none":           {in: "0000:18:00.8", bad: true},
		"signs and underscores are not digits": {in: "0000:+1:0_0.0", bad: true},
		"nothing is no address":                {in: "", bad: true},
		"a name is no address":                 {in: "pci0000:00", bad: true},
		"too many parts are no address":        {in: "0000:00:18:00.0", bad: true},
		"an empty part is no number":           {in: "0000::00.0", bad: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParsePCIAddress(tc.in)
			if got != tc.want || (err != nil) != tc.bad {
				t.Errorf("ParsePCIAddress(%q) = %q, %v", tc.in, got, err)
			}
		})
	}
}

func TestParseLinkSpeed(t *testing.T) {
	tests := map[string]struct {
		in   string
		want uint32
		bad  bool
	}{
		"generation 1 has a half":          {in: "2.5 GT/s PCIe\n", want: 2500},
		"generation 5":                     {in: "32.0 GT/s PCIe", want: 32000},
		"generation 6":                     {in: "64.0 GT/s PCIe", want: 64000},
		"kernels before 5.7 wrote no PCIe": {in: "8 GT/s", want: 8000},
		"unknown is no error":              {in: "Unknown", want: 0},
		"unknown speed, as older kernels":  {in: "Unknown speed\n", want: 0},
		"an absent attribute is no error":  {in: "", want: 0},
		"another unit is an error":         {in: "32 Gb/s", bad: true},
		"no unit is an error":              {in: "32", bad: true},
		"two decimals are an error":        {in: "2.55 GT/s", bad: true},
		"a negative speed is an error":     {in: "-8 GT/s", bad: true},
		"a speed beyond sense is an error": {in: "99999 GT/s", bad: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseLinkSpeed(tc.in)
			if got != tc.want || (err != nil) != tc.bad {
				t.Errorf("ParseLinkSpeed(%q) = %d, %v", tc.in, got, err)
			}
		})
	}
}

func TestParseLinkWidth(t *testing.T) {
	tests := map[string]struct {
		in   string
		want uint8
		bad  bool
	}{
		"sixteen lanes":                      {in: "16\n", want: 16},
		"no link has none":                   {in: "0", want: 0},
		"a register of all ones is no width": {in: "63", want: 0},
		"the kernel's unknown is no width":   {in: "255", want: 0},
		"three lanes do not exist":           {in: "3", want: 0},
		"a word is an error":                 {in: "wide", bad: true},
		"nothing is an error":                {in: "", bad: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseLinkWidth(tc.in)
			if got != tc.want || (err != nil) != tc.bad {
				t.Errorf("ParseLinkWidth(%q) = %d, %v", tc.in, got, err)
			}
		})
	}
}

func TestFormatGTs(t *testing.T) {
	for mts, want := range map[uint32]string{0: "", 2500: "2.5", 5000: "5", 32000: "32"} {
		if got := FormatGTs(mts); got != want {
			t.Errorf("FormatGTs(%d) = %q, want %q", mts, got, want)
		}
	}
}

func TestParseUeventRefusesWhatIsNone(t *testing.T) {
	for name, in := range map[string]string{
		"an empty file":       "",
		"no address":          "PCI_ID=10DE:2335\n",
		"no IDs":              "PCI_SLOT_NAME=0000:18:00.0\n",
		"IDs without a colon": "PCI_SLOT_NAME=0000:18:00.0\nPCI_ID=10DE2335\n",
		"a class too wide":    "PCI_SLOT_NAME=0000:18:00.0\nPCI_ID=10DE:2335\nPCI_CLASS=1030200\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, id, err := ParseUevent([]byte(in)); err == nil {
				t.Errorf("no error, and %+v", id)
			}
		})
	}
}

func TestParseNVIDIAInformation(t *testing.T) {
	const head = "Model: \t\t NVIDIA H200\nBus Location: \t 0000:18:00.0\nGPU UUID: \t "
	tests := map[string]struct {
		in, uuid string
		bad      bool
	}{
		"an initialised GPU":            {in: head + "GPU-6a1f0b1c-1111-2222-3333-444455556666\n", uuid: "GPU-6a1f0b1c-1111-2222-3333-444455556666"},
		"question marks are no UUID":    {in: head + "GPU-????????-????-????-????-????????????\n"},
		"a MIG instance's is no GPU's":  {in: head + "MIG-6a1f0b1c-1111-2222-3333-444455556666\n"},
		"a cut UUID is none":            {in: head + "GPU-6a1f0b1c\n"},
		"no bus location is an error":   {in: "Model: NVIDIA H200\n", bad: true},
		"a broken location is an error": {in: "Bus Location: nowhere\n", bad: true},
		"an empty file is an error":     {in: "", bad: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseNVIDIAInformation([]byte(tc.in))
			if got.UUID != tc.uuid || (err != nil) != tc.bad {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestRecordBoot(t *testing.T) {
	at := func(s int64) metav1.Time { return metav1.NewTime(time.Unix(s, 0)) }
	one := []v1alpha1.Boot{{ID: "a", At: at(100), Cause: v1alpha1.BootByOther}}
	tests := map[string]struct {
		boots []v1alpha1.Boot
		id    string
		act   string
		want  []v1alpha1.Boot
	}{
		"the first boot is somebody else's":      {id: "a", want: []v1alpha1.Boot{{ID: "a", At: at(200), Cause: v1alpha1.BootByOther}}},
		"a boot that is listed is left as it is": {boots: one, id: "a", act: "x-1", want: one},
		"ours names its action": {boots: one, id: "b", act: "x-1", want: append(one[:1:1],
			v1alpha1.Boot{ID: "b", At: at(200), Cause: v1alpha1.BootByRoundhouse, Action: "x-1"})},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := RecordBoot(tc.boots, tc.id, time.Unix(200, 5e8), tc.act)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	var many []v1alpha1.Boot
	for i := range 40 {
		many = RecordBoot(many, strings.Repeat("x", i+1), time.Unix(int64(i), 0), "")
	}
	if len(many) != MaxBoots || len(many[MaxBoots-1].ID) != 40 {
		t.Errorf("the list is not bounded to the newest: %d", len(many))
	}
}

func FuzzParseLinkSpeed(f *testing.F) {
	for _, s := range []string{"32.0 GT/s PCIe", "2.5 GT/s", "Unknown", "", "8 GT/s\n", ". GT/s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		mts, err := ParseLinkSpeed(s)
		if err != nil || mts == 0 {
			return
		}
		if again, err := ParseLinkSpeed(FormatGTs(mts) + " GT/s PCIe"); err != nil || again != mts {
			t.Errorf("%q is %d, which reads back as %d, %v", s, mts, again, err)
		}
	})
}

func FuzzParseLinkWidth(f *testing.F) {
	f.Add("16")
	f.Add("255")
	f.Fuzz(func(t *testing.T, s string) {
		if w, _ := ParseLinkWidth(s); w > 32 {
			t.Errorf("%q is %d lanes", s, w)
		}
	})
}

func FuzzParsePCIAddress(f *testing.F) {
	f.Add("0000:18:00.0")
	f.Add("18:00")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParsePCIAddress(s)
		if err != nil {
			return
		}
		if again, err := ParsePCIAddress(a); err != nil || again != a {
			t.Errorf("%q gives %q, which gives %q, %v", s, a, again, err)
		}
	})
}

func FuzzParseUevent(f *testing.F) {
	f.Add([]byte("DRIVER=nvidia\nPCI_CLASS=30200\nPCI_ID=10DE:2335\nPCI_SUBSYS_ID=10DE:18BE\nPCI_SLOT_NAME=0000:18:00.0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, id, err := ParseUevent(b)
		if err == nil && (a == "" || id.Vendor == 0 || id.Class > 0xffffff) {
			t.Errorf("%q gives %q %+v", b, a, id)
		}
	})
}

func FuzzParseNVIDIAInformation(f *testing.F) {
	f.Add([]byte("Model: \t\t NVIDIA H200\nGPU UUID: \t GPU-6a1f0b1c-1111-2222-3333-444455556666\nBus Location: \t 0000:18:00.0\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := ParseNVIDIAInformation(b)
		if err != nil {
			return
		}
		if a, err := ParsePCIAddress(g.Address); err != nil || a != g.Address {
			t.Errorf("address %q: %v", g.Address, err)
		}
		if g.UUID != "" && (!IsGPUUUID(g.UUID) || g.UUID[4:] != strings.ToLower(g.UUID[4:])) {
			t.Errorf("UUID %q", g.UUID)
		}
		if len(g.Model) > 64 || len(g.VideoBIOS) > 32 || len(g.Firmware) > 32 {
			t.Errorf("not bounded: %+v", g)
		}
	})
}
