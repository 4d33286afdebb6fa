// Package nvml is what the NVML helper does: it loads NVIDIA's management library and asks it everything once. It is
// linked into roundhouse-nvml alone. The library may hang, crash or end the process in any call, and needs cgo, so the
// agent never loads it: see docs/design/nvml.md. Without cgo there is nothing here.
package nvml
