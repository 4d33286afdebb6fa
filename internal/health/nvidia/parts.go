package nvidia

import "maps"

// Parts are the MIG devices by UUID, and the UUID of the GPU that each is a part of. Those of a GPU that tells nothing any
// more stay: it is then that somebody asks.
func (s *Source) Parts() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.parts)
}

// partsLocked remembers the parts of every GPU that tells of itself.
func (s *Source) partsLocked(l *look) {
	for i := range l.GPUs {
		g := &l.GPUs[i]
		if g.UUID == "" || g.Lost != "" || g.MIG == nil {
			continue
		}
		maps.DeleteFunc(s.parts, func(_, gpu string) bool { return gpu == g.UUID })
		for _, p := range g.Instances {
			if s.parts == nil {
				s.parts = map[string]string{}
			}
			s.parts[p.UUID] = g.UUID
		}
	}
}
