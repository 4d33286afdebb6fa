package machine

import (
	"bytes"
	"fmt"
	"strings"
)

// NVIDIAGPU is what /proc/driver/nvidia/gpus/<address>/information says of one GPU.
type NVIDIAGPU struct {
	// Address is the PCI address, normalised.
	Address string
	// Model is the product name, such as "NVIDIA H200".
	Model string
	// UUID is "GPU-" and 32 hexadecimal digits; empty until the driver has initialised the GPU.
	UUID string
	// VideoBIOS is the version of the board's firmware.
	VideoBIOS string
	// Firmware is the version of the GSP firmware, which is the driver's.
	Firmware string
}

// ParseNVIDIAInformation reads one information file. Unknown keys are passed over; a value of question marks, which the
// driver prints until it has initialised the GPU, is no value.
func ParseNVIDIAInformation(data []byte) (NVIDIAGPU, error) {
	var gpu NVIDIAGPU
	for line := range bytes.Lines(data) {
		key, value, ok := strings.Cut(string(line), ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		if strings.Contains(value, "??") {
			value = ""
		}
		switch strings.TrimSpace(key) {
		case "Model":
			gpu.Model = bound(value, 64)
		case "GPU UUID":
			if IsGPUUUID(value) {
				gpu.UUID = "GPU-" + strings.ToLower(value[4:])
			}
		case "Video BIOS":
			gpu.VideoBIOS = bound(value, 32)
		case "GPU Firmware":
			gpu.Firmware = bound(value, 32)
		case "Bus Location":
			address, err := ParsePCIAddress(value)
			if err != nil {
				return NVIDIAGPU{}, fmt.Errorf("parsing NVIDIA GPU information: %w", err)
			}
			gpu.Address = address
		}
	}
	if gpu.Address == "" {
		return NVIDIAGPU{}, fmt.Errorf("parsing NVIDIA GPU information: no Bus Location")
	}
	return gpu, nil
}

// IsGPUUUID says whether s is an NVIDIA GPU UUID: "GPU-" and the usual five groups of hexadecimal digits.
func IsGPUUUID(s string) bool {
	if len(s) != 40 || s[:4] != "GPU-" {
		return false
	}
	for i, c := range []byte(s[4:]) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') {
			return false
		}
		if !dash && !isHex(c) {
			return false
		}
	}
	return true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// bound cuts s to n bytes; it is for fields whose API counterpart is bounded.
func bound(s string, n int) string {
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "")
	}
	return s
}
