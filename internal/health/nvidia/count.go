package nvidia

import (
	"fmt"
	"time"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/health"
	"github.com/roundhouse-dev/roundhouse/internal/health/track"
	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Codes of the device-count check.
const (
	// CodeInvisible is a GPU that the driver holds and NVML does not count.
	CodeInvisible = "GPUInvisible"
	// CodeUnbound is a GPU that no driver holds, where NVIDIA's holds others.
	CodeUnbound = "GPUNotBound"
	// CodeOffered is a kubelet that offers another number of GPUs than the driver sees.
	CodeOffered = "GPUsNotOffered"
)

const (
	// countSettle is how long a GPU that the driver holds may be invisible: the driver takes seconds a GPU after a load.
	countSettle = time.Minute
	// offerSettle is how long the kubelet may offer another number: a device plugin restarts with each change of its
	// configuration, and the Node is read now and then only.
	offerSettle = 10 * time.Minute
	countClear  = time.Minute
)

// deviceCount compares what the bus has, what NVML sees, and what the kubelet offers. What was declared the pci check knows.
type deviceCount struct{ o Options }

func (deviceCount) name() string { return "device-count" }

func (d deviceCount) judge(l *look) verdict {
	var v verdict
	if !l.whole() {
		return v
	}
	visible := 0
	for i := range l.GPUs {
		if l.GPUs[i].Handle == "" {
			visible++
		}
	}
	d.invisible(l, &v)
	d.offered(l, &v, visible)
	return v
}

// invisible finds GPUs on the bus that NVML does not have. One that does not answer is the pci check's to tell.
func (deviceCount) invisible(l *look, v *verdict) {
	if l.busErr != nil {
		g := gap{health.ReasonOf(l.busErr), "the bus: " + l.busErr.Error()}
		v.gap = &g
		return
	}
	nameless := 0
	for i := range l.GPUs {
		if l.GPUs[i].Address == "" {
			nameless++
		}
	}
	if nameless > 0 {
		v.blind = append(v.blind, fmt.Sprintf("%d GPUs of NVML have no PCI address", nameless))
		return
	}
	for _, d := range l.bus {
		if l.told(d.Address) {
			continue
		}
		if d.Config != machine.ConfigAnswers {
			v.keepAt(d.Address, CodeInvisible, CodeUnbound)
			continue
		}
		o := track.Observation{
			ID: d.Address, PCI: d.Address, ClearedBy: health.ClearedByLook, Class: v1alpha1.ClassDriver, Clear: countClear,
			Recommended: v1alpha1.RecommendReboot,
		}
		switch d.Driver {
		case boundNVIDIA:
			o.Code, o.Severity, o.Settle = CodeInvisible, v1alpha1.SeverityCritical, countSettle
			o.Evidence = fmt.Sprintf("%s: the NVIDIA driver holds it and NVML does not count it among its %d", d.Address, l.Count)
		case "":
			o.Code, o.Severity, o.Settle = CodeUnbound, v1alpha1.SeverityWarning, hostSettle
			o.Evidence = fmt.Sprintf("%s: no driver holds it, and NVIDIA's holds %d others", d.Address, l.Count)
		default:
			continue
		}
		v.seen = append(v.seen, o)
	}
}

// offered compares with the kubelet where the two numbers mean the same: no GPU is split by MIG, whose parts are other
// resources or more of the same, and none is shared. Where nobody says whether GPUs are shared, a multiple may be sharing.
func (d deviceCount) offered(l *look, v *verdict, visible int) {
	if d.o.Offered == nil {
		return
	}
	n, ok := d.o.Offered()
	sharing := d.o.label(labelSharing, labelsAge)
	shared := sharing != "" && sharing != "none" || sharing == "" && n > visible && visible > 0 && n%visible == 0
	for i := range l.GPUs {
		shared = shared || split(&l.GPUs[i])
	}
	// A kubelet keeps a resource at zero whose plugin was removed for good, as for DRA; one that has taken every GPU out is no
	// fault of one.
	if !ok || n == 0 || n == visible || shared {
		return
	}
	v.seeNode(track.Observation{
		Code: CodeOffered, Class: v1alpha1.ClassDriver, Severity: v1alpha1.SeverityWarning, Recommended: v1alpha1.RecommendHuman,
		Evidence: fmt.Sprintf("the kubelet has %d nvidia.com/gpu allocatable, NVML sees %d GPUs", n, visible),
		Settle:   offerSettle, Clear: countClear,
	})
}
