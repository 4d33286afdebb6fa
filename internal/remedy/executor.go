package remedy

import "fmt"

// Reasons of status.action that executors give, beside those of package v1alpha1.
const (
	// ReasonDeviceReset means, with result Succeeded, that each device was reset and answers again.
	ReasonDeviceReset = "DeviceReset"
	// ReasonDeviceInUse means that something holds a device open; the message names it.
	ReasonDeviceInUse = "DeviceInUse"
	// ReasonCannotSeeHolders means that it cannot be known who holds a device.
	ReasonCannotSeeHolders = "CannotSeeHolders"
	// ReasonNoDevices means that the action names no device.
	ReasonNoDevices = "NoDevices"
	// ReasonUnknownDevice means that a device is not found in this machine now, or not for certain.
	ReasonUnknownDevice = "UnknownDevice"
	// ReasonPassedThrough means that a device belongs to a virtual machine.
	ReasonPassedThrough = "PassedThrough"
	// ReasonResetDomain means that a device can only be reset together with others that the action does not name.
	ReasonResetDomain = "ResetDomain"
	// ReasonNoResetWay means that there is no way to reset a device on this machine.
	ReasonNoResetWay = "NoResetWay"
)

// Report is what an act came to.
type Report struct {
	// Message says in a sentence what was done.
	Message string
	// Reset are the PCI addresses of the devices that were reset, also where the act as a whole failed.
	Reset []string
}

// Refusal is an error which says that nothing was done, and why.
type Refusal struct {
	// Reason is a documented CamelCase word.
	Reason string
	// Message says why in a sentence.
	Message string
}

// Error is the reason and the message.
func (r *Refusal) Error() string { return r.Reason + ": " + r.Message }

// Refuse makes a Refusal.
func Refuse(reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}
