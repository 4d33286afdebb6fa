//go:build cgo && linux

package nvml

import (
	"encoding/binary"
	"io"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
)

// Options say how Run asks.
type Options struct {
	// Root is where the host's root file system is seen.
	Root string
	// Note, when set, is told of each call before it is made: a file whose first bytes are the latest note.
	Note io.WriterAt
}

// asker makes calls about the machine or about one GPU.
type asker struct {
	*session
	gpu    int // -1 for the machine
	device nvml.Device
	unread map[string]string
	lost   string
}

// session is what all calls share.
type session struct {
	lib    nvml.Interface
	lookup func(symbol string) error
	notes  io.WriterAt
	note   []byte
}

// symbols are the names of the functions that go-nvml may call under a name, of which it takes the newest that the
// library has. All others have one version.
var symbols = map[string][]string{
	"nvmlInit":                         {"nvmlInit_v2", "nvmlInit"},
	"nvmlDeviceGetCount":               {"nvmlDeviceGetCount_v2", "nvmlDeviceGetCount"},
	"nvmlDeviceGetHandleByIndex":       {"nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByIndex"},
	"nvmlDeviceGetPciInfo":             {"nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2", "nvmlDeviceGetPciInfo"},
	"nvmlDeviceGetNvLinkRemotePciInfo": {"nvmlDeviceGetNvLinkRemotePciInfo_v2", "nvmlDeviceGetNvLinkRemotePciInfo"},
	"nvmlDeviceGetComputeRunningProcesses": {
		"nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2", "nvmlDeviceGetComputeRunningProcesses",
	},
}

// has says whether the library has the function. go-nvml's binding ends the process on a call of one that it has not.
func (s *session) has(function string) bool {
	versions, ok := symbols[function]
	if !ok {
		versions = []string{function}
	}
	for _, symbol := range versions {
		if s.lookup(symbol) == nil {
			return true
		}
	}
	return false
}

// about notes the call that is made next.
func (s *session) about(call string, gpu int) {
	if s.notes == nil {
		return
	}
	s.note = machine.AppendNVMLNote(s.note[:0], machine.NVMLCall{Name: call, GPU: gpu})
	// Without its note a call that hangs has no name; that is no reason not to make it.
	_, _ = s.notes.WriteAt(s.note, 0)
}

// ask makes a call, unless the library has no such function or the GPU has gone, and says whether it succeeded. What the
// call is may be told in brackets after the function's name.
func (a *asker) ask(call string, f func() nvml.Return) bool {
	if a.lost == gpuIsLost {
		// Whatever is asked now has the same answer, at best.
		return false
	}
	function, _, _ := strings.Cut(call, "(")
	ret := nvml.ERROR_FUNCTION_NOT_FOUND
	if a.has(function) {
		a.about(call, a.gpu)
		ret = f()
	}
	a.failed(call, ret)
	return ret == nvml.SUCCESS
}

const gpuIsLost = "GPU_IS_LOST"

// failed keeps an error under the call's name.
func (a *asker) failed(call string, ret nvml.Return) {
	if ret == nvml.SUCCESS {
		return
	}
	if a.unread == nil {
		a.unread = make(map[string]string)
	}
	a.unread[call] = name(ret)
	if a.lost == "" && (ret == nvml.ERROR_GPU_IS_LOST || ret == nvml.ERROR_RESET_REQUIRED) {
		a.lost = name(ret)
	}
}

// number asks for one number, which is nil when it could not be read.
func number[To uint32 | uint64, From ~int | ~int32 | ~uint32 | ~uint64](a *asker, call string, f func() (From, nvml.Return)) *To {
	var value From
	ok := a.ask(call, func() (ret nvml.Return) { value, ret = f(); return ret })
	if !ok {
		return nil
	}
	to := To(value)
	return &to
}

// enabled asks whether a feature is on.
func enabled(a *asker, call string, f func() (nvml.EnableState, nvml.Return)) *bool {
	state := number[uint32](a, call, f)
	if state == nil {
		return nil
	}
	on := *state == uint32(nvml.FEATURE_ENABLED)
	return &on
}

// text asks for a string.
func text(a *asker, call string, f func() (string, nvml.Return)) string {
	var value string
	if !a.ask(call, func() (ret nvml.Return) { value, ret = f(); return ret }) {
		return ""
	}
	if len(value) > maxText {
		value = value[:maxText]
	}
	return strings.ToValidUTF8(strings.TrimSpace(value), "?")
}

// maxText is more than any of NVML's strings has; the largest buffer is that of a UUID, 96.
const maxText = 128

// field is one value of nvmlDeviceGetFieldValues.
type field struct {
	id, scope uint32
	// name is that of nvml.h without NVML_FI_DEV_, for what could not be read.
	name string
	set  func(value uint64)
}

// fields asks for values by their field's ID, all in one call.
func (a *asker) fields(what string, wanted []field) {
	values := make([]nvml.FieldValue, len(wanted))
	for i, w := range wanted {
		values[i].FieldId, values[i].ScopeId = w.id, w.scope
	}
	call := "nvmlDeviceGetFieldValues(" + what + ")"
	if !a.ask(call, func() nvml.Return { return a.device.GetFieldValues(values) }) {
		return
	}
	for i, w := range wanted {
		ret := nvml.Return(values[i].NvmlReturn)
		value, ok := fieldValue(&values[i])
		switch {
		case ret != nvml.SUCCESS:
			a.failed(w.name, ret)
		case !ok:
			a.failed(w.name, nvml.ERROR_ARGUMENT_VERSION_MISMATCH)
		default:
			w.set(value)
		}
	}
}

// fieldValue is the number in a value, whose type differs between fields and drivers: nvmlValueType_t of nvml.h. All of
// those asked for here are whole numbers; what is negative, or of another type, is not understood.
func fieldValue(v *nvml.FieldValue) (value uint64, ok bool) {
	var signed int64
	switch nvml.ValueType(v.ValueType) {
	case nvml.VALUE_TYPE_UNSIGNED_INT:
		return uint64(binary.NativeEndian.Uint32(v.Value[:])), true
	case nvml.VALUE_TYPE_UNSIGNED_LONG, nvml.VALUE_TYPE_UNSIGNED_LONG_LONG:
		return binary.NativeEndian.Uint64(v.Value[:]), true
	case nvml.VALUE_TYPE_UNSIGNED_SHORT:
		return uint64(binary.NativeEndian.Uint16(v.Value[:])), true
	case nvml.VALUE_TYPE_SIGNED_LONG_LONG:
		signed = int64(binary.NativeEndian.Uint64(v.Value[:]))
	case nvml.VALUE_TYPE_SIGNED_INT:
		signed = int64(int32(binary.NativeEndian.Uint32(v.Value[:])))
	default:
		return 0, false
	}
	return uint64(signed), signed >= 0
}
