package nvidia

import (
	"maps"
	"slices"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// ampere is the first architecture whose GPUs can be reset one by one though NVLink joins them (NVML_DEVICE_ARCH_AMPERE).
const ampere = 7

// joined is what is known of one GPU that bears on how it can be reset.
type joined struct {
	// together says that its architecture needs all that NVLink joins to it to be reset in the same command.
	together bool
	// gpus and switches are the addresses at the other ends of its links.
	gpus, switches []string
}

// ResetDomains are names that are the same for GPUs that can only be reset together, by PCI address. A GPU that can be reset
// alone is not listed. Those of a GPU that tells nothing any more stay: it is then that somebody asks.
//
// The rule is that of nvidia-smi's manual, under --gpu-reset: before Ampere all that NVLink joins, directly or by switches,
// is reset in one command; from Ampere on each GPU by itself. There, where the system has switches, this needs the fabric
// manager to run (Hopper and later do without). Whether it runs NVML does not tell of an Ampere GPU; nvidia-smi then refuses
// and names what is missing, and the ladder goes on to a rung that is for the node.
func (s *Source) ResetDomains() map[string]string {
	if d := s.domains.Load(); d != nil {
		return *d
	}
	return nil
}

// joinLocked remembers the links of every GPU that tells of itself. A link that is down tells no more where it led to.
func (s *Source) joinLocked(l *look) {
	for i := range l.GPUs {
		g := &l.GPUs[i]
		if g.Address == "" {
			continue
		}
		if s.joins == nil {
			s.joins = map[string]joined{}
		}
		j := s.joins[g.Address]
		j.add(g)
		s.joins[g.Address] = j
	}
	domains := resetDomains(s.joins)
	s.domains.Store(&domains)
}

func (j *joined) add(g *machine.NVMLGPU) {
	if g.Architecture != nil {
		j.together = *g.Architecture < ampere
	}
	for _, link := range g.Links {
		switch {
		case link.Remote == "" || link.Remote == g.Address:
		case link.RemoteType == "GPU" && !slices.Contains(j.gpus, link.Remote):
			j.gpus = append(j.gpus, link.Remote)
		case link.RemoteType == "Switch" && !slices.Contains(j.switches, link.Remote):
			j.switches = append(j.switches, link.Remote)
		}
	}
}

// resetDomains finds what hangs together, and keeps what has to be reset together.
func resetDomains(joins map[string]joined) map[string]string {
	of := map[string]string{}
	var root func(string) string
	root = func(a string) string {
		if up, ok := of[a]; ok && up != a {
			of[a] = root(up)
			return of[a]
		}
		of[a] = a
		return a
	}
	gpus := map[string]bool{}
	for address, j := range joins {
		gpus[address] = true
		for _, other := range j.gpus {
			gpus[other] = true
			of[root(other)] = root(address)
		}
		for _, other := range j.switches {
			of[root(other)] = root(address)
		}
	}
	members, together := map[string][]string{}, map[string]bool{}
	for _, address := range slices.Sorted(maps.Keys(gpus)) {
		r := root(address)
		members[r] = append(members[r], address)
		together[r] = together[r] || joins[address].together
	}
	domains := map[string]string{}
	for r, list := range members {
		if !together[r] || len(list) < 2 {
			continue
		}
		for _, address := range list {
			domains[address] = "nvlink-" + list[0]
		}
	}
	return domains
}
