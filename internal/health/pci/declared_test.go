package pci

import (
	"strings"
	"testing"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

func TestParseDeclaredLink(t *testing.T) {
	for in, want := range map[string]DeclaredLink{
		"10de:2330=x16@32":       {Match: Match{Vendor: 0x10de, Device: 0x2330}, Width: 16, MTs: 32000},
		" 0000:C9:00.0 = x8 ":    {Address: "0000:c9:00.0", Width: 8},
		"slot:3=@2.5":            {Slot: "3", MTs: 2500},
		"slot:SXM=1.a=x4@16":     {Slot: "SXM=1.a", Width: 4, MTs: 16000},
		"*:*:1200=x16":           {Match: Match{Class: 0x1200}, Width: 16},
		"18:00.0=x16@32":         {Address: "0000:18:00.0", Width: 16, MTs: 32000},
		"10de:2330:0302=x16@8.0": {Match: Match{Vendor: 0x10de, Device: 0x2330, Class: 0x0302}, Width: 16, MTs: 8000},
	} {
		if got, err := ParseDeclaredLink(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for in, says := range map[string]string{
		"":                  "want device=",
		"10de:2330":         "want device=",
		"10de:2330=":        "neither",
		"10de:2330=16":      "no width",
		"10de:2330=x3":      "no width",
		"10de:2330=x16@":    "no speed",
		"10de:2330=x16@0":   "no speed",
		"10de:2330=@fast":   "no speed",
		"=x16":              "vendor:device",
		"*:*=x16":           "every device",
		"slot:=x16":         "no name",
		"0000:18:00.9=x16":  "PCI address",
		"10de:2330=x16@-32": "no speed",
	} {
		if d, err := ParseDeclaredLink(in); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is taken as %+v, %v", in, d, err)
		}
	}
}

func TestParseDeclaredCount(t *testing.T) {
	for in, want := range map[string]DeclaredCount{
		"8": {N: 8}, "10de:2330=4": {Match: Match{Vendor: 0x10de, Device: 0x2330}, N: 4}, "1002:* = 64 ": {Match: Match{Vendor: 0x1002}, N: 64},
	} {
		if got, err := ParseDeclaredCount(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "-1", "65", "eight", "10de:2330=", "*:*=8", "=8", "10de=8"} {
		if c, err := ParseDeclaredCount(in); err == nil {
			t.Errorf("%q is taken as %+v", in, c)
		}
	}
}

func FuzzParseDeclaredLink(f *testing.F) {
	for _, s := range []string{"10de:2330=x16@32", "0000:18:00.0=x8", "slot:3=@16", "*:*:1200=x1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDeclaredLink(s)
		if err != nil {
			return
		}
		if d.Width == 0 && d.MTs == 0 || d.Width > 32 {
			t.Errorf("%q is %+v", s, d)
		}
		if d.Address == "" && d.Slot == "" && d.Match == (Match{}) {
			t.Errorf("%q is of every device", s)
		}
		w, m := Declared{Links: []DeclaredLink{d}}.of(&Seen{PCIDevice: machine.PCIDevice{Address: d.Address, Slot: d.Slot, PCIID: machine.PCIID{
			Vendor: d.Match.Vendor, Device: d.Match.Device, Class: uint32(d.Match.Class) << 8,
		}}})
		if w != d.Width || m != d.MTs {
			t.Errorf("%q does not speak of its own device: x%d@%d", s, w, m)
		}
	})
}

func FuzzParseDeclaredCount(f *testing.F) {
	f.Add("8")
	f.Add("10de:2330=8")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseDeclaredCount(s)
		if err != nil {
			return
		}
		if c.N < 1 || c.N > maxKnown {
			t.Errorf("%q is %d", s, c.N)
		}
		if again, err := ParseMatch(c.Match.String()); c.Match != (Match{}) && (err != nil || again != c.Match) {
			t.Errorf("%q matches %+v, which reads back as %+v, %v", s, c.Match, again, err)
		}
	})
}
