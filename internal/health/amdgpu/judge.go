package amdgpu

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Codes of the faults; docs/checks/amdgpu.md describes them.
const (
	// CodeUncorrectable is data that was lost in a GPU's memory or units.
	CodeUncorrectable = "AMDUncorrectableError"
	// CodeCorrectable is more corrected errors in an hour than a good GPU has.
	CodeCorrectable = "AMDCorrectableErrors"
	// CodeDeferred is bad data that nothing has used yet.
	CodeDeferred = "AMDDeferredErrors"
	// CodePageInUse is a bad page that could not be taken out of use.
	CodePageInUse = "AMDBadPageInUse"
	// CodePages is as many bad pages as the driver bears, or nearly.
	CodePages = "AMDBadPages"
)

const (
	// pageCover is how much memory the driver grants one bad page: one in 100 MiB (RAS_BAD_PAGE_COVER in amdgpu_ras.c).
	pageCover = 100 << 20
	// nearPercent of the threshold is near it; the driver itself warns from there on (amdgpu_ras_eeprom.c).
	nearPercent = 90
)

// gpu is what is kept of one GPU in this boot.
type gpu struct {
	Address string             `json:"address"`
	Blocks  []machine.RASCount `json:"blocks,omitempty"`
	Pages   machine.BadPages   `json:"pages,omitzero"`
	Limit   uint64             `json:"limit,omitempty"`
	Broken  *uncorrected       `json:"broken,omitempty"`
	Fixed   track.Window       `json:"fixed,omitzero"`    // correctable
	Waiting track.Window       `json:"deferred,omitzero"` // deferred
	Noisy   bool               `json:"noisy,omitempty"`
	// PageAt is since when a fault of pages stands, by its code.
	PageAt map[string]time.Time `json:"pageAt,omitempty"`
	// Rebase has the counts at the next look taken as the start.
	Rebase bool `json:"rebase,omitempty"`
}

// uncorrected is the uncorrectable errors since the GPU was last whole.
type uncorrected struct {
	Since    time.Time `json:"since"`
	Last     time.Time `json:"last"`
	Count    uint64    `json:"count"`
	Evidence string    `json:"evidence"`
}

// growth is what rose between two looks.
type growth struct {
	uncorrectable, correctable, deferred uint64
	// where names the units, for each.
	brokenAt, fixedAt, waitingAt []string
	// fell says that a count is lower than it was, which is a driver that was loaded anew.
	fell bool
}

// grown compares the counts of two looks. A unit that was not counted before starts from zero, as after a driver that was
// loaded anew; one that cannot be read now is left out.
func grown(before, after []machine.RASCount) growth {
	var g growth
	for _, a := range after {
		var b machine.RASCount
		if i := slices.IndexFunc(before, func(c machine.RASCount) bool { return c.Block == a.Block }); i >= 0 {
			b = before[i]
		}
		rise := func(before, after uint64, total *uint64, at *[]string) {
			switch {
			case after < before:
				g.fell = true
			case after > before:
				after -= before
			default:
				return
			}
			if after > 0 {
				*total += after
				*at = append(*at, fmt.Sprintf("%s %d", a.Block, after))
			}
		}
		rise(b.Uncorrectable, a.Uncorrectable, &g.uncorrectable, &g.brokenAt)
		rise(b.Correctable, a.Correctable, &g.correctable, &g.fixedAt)
		rise(b.Deferred, a.Deferred, &g.deferred, &g.waitingAt)
	}
	return g
}

// take takes the counts of one look, and says whether something rose, and whether it was one that a fault comes of. The
// first counts of a boot are where it starts.
func (k *gpu) take(seen *machine.AMDGPU, known bool, now time.Time) (changed, urgent bool) {
	if known && !k.Rebase {
		g := grown(k.Blocks, seen.Blocks)
		if g.fell && k.Broken != nil {
			// The driver was loaded anew, and has set up the GPU from the start.
			k.Broken, urgent = nil, true
		}
		if g.uncorrectable > 0 {
			if k.Broken == nil {
				k.Broken = &uncorrected{Since: now}
			}
			k.Broken.Last, k.Broken.Evidence = now, strings.Join(g.brokenAt, ", ")
			k.Broken.Count += g.uncorrectable
			urgent = true
		}
		k.Fixed.Add(now, g.correctable, strings.Join(g.fixedAt, ", "))
		k.Waiting.Add(now, g.deferred, strings.Join(g.waitingAt, ", "))
		changed = g.fell || g.uncorrectable+g.correctable+g.deferred > 0
	}
	k.Rebase = false
	for _, c := range seen.Blocks {
		if i := slices.IndexFunc(k.Blocks, func(b machine.RASCount) bool { return b.Block == c.Block }); i >= 0 {
			k.Blocks[i] = c
		} else {
			k.Blocks = append(k.Blocks, c)
			changed = true
		}
	}
	return changed || urgent, urgent
}

// age lets the windows move on, and says whether there are too many corrected errors: from the limit on, and until there
// are less than half of it.
func (k *gpu) age(now time.Time, limit uint64) {
	k.Fixed.Add(now, 0, "")
	k.Waiting.Add(now, 0, "")
	n := k.Fixed.Sum()
	k.Noisy = n >= limit || k.Noisy && n > 0 && n >= limit/2
}

// threshold is how many bad pages are too many, from the driver's parameter: that number, none where pages are not taken
// out of use, and where the driver chooses, its own usual formula; 0 is none.
func threshold(seen *machine.AMDGPU) uint64 {
	if seen.PageThreshold >= 0 {
		return uint64(seen.PageThreshold)
	}
	return seen.MemoryBytes / pageCover
}

// findings are what stands of one GPU.
func (k *gpu) findings() []health.Finding {
	var out []health.Finding
	add := func(code string, s v1alpha1.Severity, r v1alpha1.Recommendation, by health.ClearedBy, since, last time.Time, count uint64, evidence string) {
		out = append(out, health.Finding{
			PCI: k.Address, ClearedBy: by,
			Fault: v1alpha1.Fault{
				Code: code, Check: Name, Class: v1alpha1.ClassHardware, Severity: s, Recommended: r, Root: true,
				FirstSeen: metav1.NewTime(since), LastSeen: metav1.NewTime(last), Count: int64(min(count, 1<<62)),
				Evidence: health.Bound(k.Address+": "+evidence, health.MaxEvidence),
			},
		})
	}
	if b := k.Broken; b != nil {
		add(CodeUncorrectable, v1alpha1.SeverityCritical, v1alpha1.RecommendResetDevice, health.ClearedByReset, b.Since, b.Last, b.Count,
			fmt.Sprintf("%d uncorrectable errors, last %s", b.Count, b.Evidence))
	}
	if k.Noisy {
		add(CodeCorrectable, v1alpha1.SeverityWarning, v1alpha1.RecommendNone, health.ClearedByLook, k.Fixed.Since, k.Fixed.Last, k.Fixed.Count,
			fmt.Sprintf("%d correctable errors in the last hour, last %s", k.Fixed.Sum(), k.Fixed.Evidence))
	}
	if n := k.Waiting.Sum(); n > 0 {
		add(CodeDeferred, v1alpha1.SeverityInfo, v1alpha1.RecommendNone, health.ClearedByQuiet, k.Waiting.Since, k.Waiting.Last, k.Waiting.Count,
			fmt.Sprintf("%d deferred errors in the last hour, last %s", n, k.Waiting.Evidence))
	}
	if n := k.Pages.Failed; n > 0 {
		since := k.PageAt[CodePageInUse]
		add(CodePageInUse, v1alpha1.SeverityWarning, v1alpha1.RecommendResetDevice, health.ClearedByLook, since, since, uint64(n),
			fmt.Sprintf("%d bad pages could not be taken out of use", n))
	}
	if total := uint64(k.Pages.Total()); k.nearLimit() {
		recommended := v1alpha1.RecommendNone
		if total >= k.Limit {
			recommended = v1alpha1.RecommendReplace
		}
		since := k.PageAt[CodePages]
		add(CodePages, v1alpha1.SeverityWarning, recommended, health.ClearedByLook, since, since, total,
			fmt.Sprintf("%d bad pages of the %d that the driver bears", total, k.Limit))
	}
	return out
}

func (k *gpu) nearLimit() bool {
	return k.Limit > 0 && uint64(k.Pages.Total())*100 >= k.Limit*nearPercent
}

// takePages takes the bad pages of one look.
func (k *gpu) takePages(seen *machine.AMDGPU, now time.Time) (changed bool) {
	changed = k.Pages != seen.Pages
	k.Pages, k.Limit = seen.Pages, threshold(seen)
	for code, stands := range map[string]bool{CodePageInUse: k.Pages.Failed > 0, CodePages: k.nearLimit()} {
		_, stood := k.PageAt[code]
		switch {
		case stands && !stood:
			if k.PageAt == nil {
				k.PageAt = make(map[string]time.Time, 2)
			}
			k.PageAt[code] = now
			changed = true
		case !stands && stood:
			delete(k.PageAt, code)
			changed = true
		}
	}
	return changed
}
