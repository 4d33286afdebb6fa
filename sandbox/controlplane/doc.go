// Package controlplane runs a Kubernetes control plane on one machine: etcd,
// kube-apiserver, kube-scheduler and kube-controller-manager of the release that
// sandbox/go.mod names, each a child process of the roundhouse-controlplane binary.
//
// For a newcomer, what is real here and what is not:
//
//   - Real: the four components are upstream's code, unchanged, with upstream's
//     default feature gates. Validation, CEL, admission, RBAC, the Node authorizer,
//     eviction and PodDisruptionBudgets, watches and conflicts, dynamic resource
//     allocation with its device taints, Jobs, DaemonSets, garbage collection and
//     scheduling behave as they do in a cluster.
//   - Real: TLS with client certificates between every two of them, and bound
//     service-account tokens that the API server signs and checks.
//   - Different on purpose: everything listens on 127.0.0.1 only, etcd does not
//     fsync, there is one replica of each and no leader election, request limits
//     are raised for fleets of tens of thousands of nodes, and a node without
//     heartbeats stays Ready for a day unless [Options] says otherwise.
//   - Not here: kubelets, kube-proxy, a network, DNS, containers. Nothing runs a
//     pod; something else has to play the kubelet and write the pod's status.
//
// [Start] brings one up and [ControlPlane.Stop] takes it down without a trace. A
// test calls [ForTest], or [RunTests] from TestMain. The binary is built by
// hack/build-controlplane.sh.
package controlplane
