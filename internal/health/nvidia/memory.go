package nvidia

import (
	"fmt"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
)

// Codes of memory.
const (
	// CodeRemapFailure is a row of memory that could not be replaced by a spare one.
	CodeRemapFailure = "RowRemapFailure"
	// CodeRemapPending is a row that will be replaced at the next reset.
	CodeRemapPending = "RowRemapPending"
	// CodePagePending is a page of memory that will be retired when the driver is loaded anew.
	CodePagePending = "PageRetirementPending"
	// CodePageLimit is a GPU with as many retired pages as it can have.
	CodePageLimit = "PageRetirementLimit"
	// CodePageDouble is a GPU with many pages retired for double-bit errors.
	CodePageDouble = "PageRetirementDoubleBit"
	// CodeUncorrectable is new memory errors that ECC could not correct.
	CodeUncorrectable = "ECCUncorrectable"
	// CodeSRAMThreshold is a GPU whose on-chip memory had more such errors than NVIDIA's own diagnosis allows.
	CodeSRAMThreshold = "SRAMThreshold"
)

const (
	// maxRetired and manyDouble are NVIDIA's limits: DCGM_LIMIT_MAX_RETIRED_PAGES, of which its comment says that it is
	// what the field diagnosis uses, and DCGM_LIMIT_MAX_RETIRED_PAGES_SOFT_LIMIT of double-bit ones
	// (common/DcgmGPUHardwareLimits.h of github.com/NVIDIA/DCGM).
	maxRetired = 63
	manyDouble = 15
	// eccClear is how long an error is told of when nothing resets the GPU.
	eccClear = 24 * time.Hour
)

// rowRemap reports row remapping, of A100 and later.
type rowRemap struct{}

func (rowRemap) name() string { return "row-remap" }

func (rowRemap) judge(l *look) verdict {
	var v verdict
	for i := range l.GPUs {
		g := &l.GPUs[i]
		r := g.Remap
		if r == nil {
			v.miss(l, g, []string{CodeRemapFailure, CodeRemapPending}, "RemappedRows")
			continue
		}
		counts := fmt.Sprintf("%d rows remapped for uncorrectable errors, %d for correctable ones", r.Uncorrectable, r.Correctable)
		if r.Failed {
			v.see(g, track.Observation{
				Code: CodeRemapFailure, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical,
				Recommended: v1alpha1.RecommendReplace, Evidence: "a row of memory could not be remapped; " + counts,
			})
		}
		if r.Pending {
			// A Warning, so that no drain follows: error containment keeps work safe until a reset at leisure.
			v.see(g, track.Observation{
				Code: CodeRemapPending, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityWarning,
				Recommended: v1alpha1.RecommendResetDevice, Evidence: "a row of memory is remapped at the next reset; " + counts,
			})
		}
	}
	return v
}

// retiredPages reports page retirement, of GPUs before A100.
type retiredPages struct{}

func (retiredPages) name() string { return "retired-pages" }

func (retiredPages) judge(l *look) verdict {
	var v verdict
	for i := range l.GPUs {
		g := &l.GPUs[i]
		r := g.Retire
		if r == nil && g.Remap != nil {
			// A GPU remaps rows or retires pages, and never both.
			v.keep(g, CodePagePending, CodePageLimit, CodePageDouble)
			continue
		}
		if r == nil {
			v.miss(l, g, []string{CodePagePending, CodePageLimit, CodePageDouble}, "Retired")
			continue
		}
		counts := fmt.Sprintf("%d pages retired for double-bit errors, %d for single-bit ones", r.DoubleBit, r.SingleBit)
		o := track.Observation{Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityWarning}
		if r.Pending {
			o.Code, o.Recommended, o.Evidence = CodePagePending, v1alpha1.RecommendResetDevice, "a page is retired at the next reset; "+counts
			v.see(g, o)
		}
		if r.DoubleBit > manyDouble {
			o.Code, o.Recommended = CodePageDouble, v1alpha1.RecommendHuman
			o.Evidence = fmt.Sprintf("%s; more than %d for double-bit errors", counts, manyDouble)
			v.see(g, o)
		}
		if uint64(r.DoubleBit)+uint64(r.SingleBit) >= maxRetired {
			o.Code, o.Severity, o.Recommended = CodePageLimit, v1alpha1.SeverityCritical, v1alpha1.RecommendReplace
			o.Evidence = fmt.Sprintf("%s; %d is the limit", counts, maxRetired)
			v.see(g, o)
		}
	}
	return v
}

// ecc reports memory errors that ECC could not correct, as they come.
type ecc struct{ c counts }

func newECC() *ecc { return &ecc{make(counts)} }

func (*ecc) name() string { return "ecc" }

func (e *ecc) counts() counts { return e.c }

func (e *ecc) recall(c counts) {
	if c == nil {
		c = make(counts)
	}
	e.c = c
}

func (e *ecc) judge(l *look) verdict {
	var v verdict
	for i := range l.GPUs {
		g := &l.GPUs[i]
		x := g.ECC
		if x == nil {
			v.miss(l, g, []string{CodeUncorrectable, CodeSRAMThreshold}, "Ecc")
			continue
		}
		if x.Enabled != nil && !*x.Enabled {
			v.keep(g, CodeUncorrectable, CodeSRAMThreshold)
			continue
		}
		if x.SRAMThresholdExceeded == nil {
			v.miss(l, g, []string{CodeSRAMThreshold}, "SramEcc")
		} else if *x.SRAMThresholdExceeded {
			v.see(g, track.Observation{
				Code: CodeSRAMThreshold, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityCritical,
				Recommended: v1alpha1.RecommendReplace,
				Evidence:    "uncorrectable errors of on-chip memory exceed the threshold of NVIDIA's diagnosis" + number(x.SRAMAggregateUncorrected, "; %d in its life"),
			})
		}
		e.volatile(l, &v, i)
	}
	return v
}

// volatile reports by how much the volatile counter rose. It begins anew with each load of the driver or reset of the GPU,
// which is when what was found is over.
func (e *ecc) volatile(l *look, v *verdict, i int) {
	g := &l.GPUs[i]
	if g.ECC.VolatileUncorrected == nil {
		v.miss(l, g, []string{CodeUncorrectable}, "TotalEccErrors(volatile uncorrected")
		return
	}
	n, restarted := e.c.rise(identity(g), l.load, *g.ECC.VolatileUncorrected)
	if restarted {
		v.over = append(v.over, spot{place(g), CodeUncorrectable})
	}
	if n == 0 {
		return
	}
	o := track.Observation{
		Code: CodeUncorrectable, Class: v1alpha1.ClassHardware, Severity: v1alpha1.SeverityWarning,
		Recommended: v1alpha1.RecommendResetDevice, ClearedBy: health.ClearedByReset, Clear: eccClear, Times: int64(n),
		Evidence: fmt.Sprintf("%d uncorrectable memory errors since the driver was loaded, %d of them new",
			*g.ECC.VolatileUncorrected, n) + number(g.ECC.SRAMVolatileUncorrected, "; %d of all were on-chip"),
	}
	if g.Retire != nil && hasNo(g, "RemappedRows") && hasNo(g, "MigMode") {
		// A GPU that retires pages and never had MIG is of before A100 and cannot contain an error: it gives no new work a
		// context until the page is out of use.
		o.Severity = v1alpha1.SeverityCritical
	}
	v.see(g, o)
}

// number formats a number that may not be known.
func number(n *uint64, format string) string {
	if n == nil {
		return ""
	}
	return fmt.Sprintf(format, *n)
}
