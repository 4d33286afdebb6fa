// Package podresources tells which container holds which device of a device plugin. The API server does not know: a pod
// asks a device plugin for a number, and the kubelet alone picks the devices (KEP-606).
//
// The kubelet is asked in a process of its own, cmd/roundhouse-podresources: linking gRPC costs the agent memory even
// where no device is ever bad. This package has what that process and the agent say to each other, and what the kubelet's
// names of devices mean; package kubelet has the question itself.
package podresources
