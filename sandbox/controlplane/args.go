package controlplane

import (
	"fmt"
	"strconv"
)

// inflight is the API server's limit on requests at once, of each kind. Upstream's
// 400 and 200 are for a server that shares its machine; a sandbox of 30,000 nodes
// has one publisher for all of them and would only queue behind itself.
const inflight = 3000

// clientRate is the --kube-api-qps of the controller manager and the scheduler.
// Upstream's 20 and 50 would need most of an hour to place 200,000 pods.
const clientRate = 3000

// etcdQuota is the size of database that etcd accepts. Every status patch leaves a
// revision until the API server compacts, five minutes later at most, and the
// default of 2 GiB is too little for some hundreds of patches a second.
const etcdQuota = 8 << 30

// issuer is the service accounts' issuer URL; nothing resolves it.
const issuer = "https://kubernetes.default.svc"

// ports of one control plane, all on 127.0.0.1.
type ports struct{ etcdClient, etcdPeer, api, controllerManager, scheduler int }

func loopback(port int) string { return "https://127.0.0.1:" + strconv.Itoa(port) }

func etcdArgs(dataDir string, keys *pki, p ports) map[string]string {
	return map[string]string{
		"data-dir":                    dataDir,
		"name":                        "default",
		"listen-client-urls":          loopback(p.etcdClient),
		"advertise-client-urls":       loopback(p.etcdClient),
		"listen-peer-urls":            loopback(p.etcdPeer),
		"initial-advertise-peer-urls": loopback(p.etcdPeer),
		"initial-cluster":             "default=" + loopback(p.etcdPeer),
		"cert-file":                   keys.file("etcd.crt"),
		"key-file":                    keys.file("etcd.key"),
		"trusted-ca-file":             keys.file("etcd-ca.crt"),
		"client-cert-auth":            "true",
		"peer-cert-file":              keys.file("etcd.crt"),
		"peer-key-file":               keys.file("etcd.key"),
		"peer-trusted-ca-file":        keys.file("etcd-ca.crt"),
		"peer-client-cert-auth":       "true",
		// The data does not outlive the process, so nothing is gained by waiting for a disk.
		"unsafe-no-fsync": "true",
		// A member elects itself only when the election timeout has passed, even if it is
		// the only one; with the default of a second that is a third of the whole start.
		"heartbeat-interval":  "10",
		"election-timeout":    "100",
		"quota-backend-bytes": strconv.Itoa(etcdQuota),
		"log-level":           "warn",
	}
}

func apiServerArgs(o Options, keys *pki, p ports) map[string]string {
	args := map[string]string{
		"etcd-servers":                     loopback(p.etcdClient),
		"etcd-cafile":                      keys.file("etcd-ca.crt"),
		"etcd-certfile":                    keys.file("etcd-client.crt"),
		"etcd-keyfile":                     keys.file("etcd-client.key"),
		"bind-address":                     "127.0.0.1",
		"advertise-address":                "127.0.0.1",
		"secure-port":                      strconv.Itoa(p.api),
		"tls-cert-file":                    keys.file("serving.crt"),
		"tls-private-key-file":             keys.file("serving.key"),
		"client-ca-file":                   keys.file("ca.crt"),
		"service-account-issuer":           issuer,
		"service-account-key-file":         keys.file("service-account.key"),
		"service-account-signing-key-file": keys.file("service-account.key"),
		// Otherwise tokens are stretched to a year and the claims under test with them.
		"service-account-extend-token-expiration": "false",
		"service-account-max-token-expiration":    o.TokenMaxExpiration.String(),
		"service-cluster-ip-range":                "10.0.0.0/16",
		"authorization-mode":                      "Node,RBAC",
		"enable-admission-plugins":                "NodeRestriction",
		"allow-privileged":                        "true",
		// An endpoint on loopback is invalid, and nothing routes to the kubernetes Service here.
		"endpoint-reconciler-type":                "none",
		"max-requests-inflight":                   strconv.Itoa(inflight),
		"max-mutating-requests-inflight":          strconv.Itoa(inflight),
		"http2-max-streams-per-connection":        "1000",
		"shutdown-watch-termination-grace-period": "0s",
	}
	if len(o.FeatureGates) > 0 {
		args["feature-gates"] = switches(o.FeatureGates)
	}
	if o.WithoutNodeLifecycle {
		args["disable-admission-plugins"] = "TaintNodesByCondition"
	}
	if len(o.RuntimeConfig) > 0 {
		args["runtime-config"] = switches(o.RuntimeConfig)
	}
	return args
}

func controllerManagerArgs(o Options, keys *pki, p ports, kubeconfig string) map[string]string {
	args := map[string]string{
		"kubeconfig":                kubeconfig,
		"authentication-kubeconfig": kubeconfig,
		"authorization-kubeconfig":  kubeconfig,
		"bind-address":              "127.0.0.1",
		"secure-port":               strconv.Itoa(p.controllerManager),
		"tls-cert-file":             keys.file("serving.crt"),
		"tls-private-key-file":      keys.file("serving.key"),
		"leader-elect":              "false",
		"kube-api-qps":              strconv.Itoa(clientRate),
		"kube-api-burst":            strconv.Itoa(clientRate),
		// Each controller under its own service account, so that RBAC holds for them as well.
		"use-service-account-credentials":  "true",
		"service-account-private-key-file": keys.file("service-account.key"),
		"root-ca-file":                     keys.file("ca.crt"),
		"controllers":                      o.controllers(),
		"node-monitor-grace-period":        o.NodeMonitorGracePeriod.String(),
	}
	for _, busy := range []string{
		"daemonset", "deployment", "disruption", "gc", "job", "namespace", "replicaset", "resourceclaim", "statefulset",
	} {
		args["concurrent-"+busy+"-syncs"] = strconv.Itoa(o.ConcurrentSyncs)
	}
	if len(o.FeatureGates) > 0 {
		args["feature-gates"] = switches(o.FeatureGates)
	}
	return args
}

func schedulerArgs(o Options, keys *pki, p ports, kubeconfig, config string) map[string]string {
	args := map[string]string{
		"config":                    config,
		"authentication-kubeconfig": kubeconfig,
		"authorization-kubeconfig":  kubeconfig,
		"bind-address":              "127.0.0.1",
		"secure-port":               strconv.Itoa(p.scheduler),
		"tls-cert-file":             keys.file("serving.crt"),
		"tls-private-key-file":      keys.file("serving.key"),
	}
	if len(o.FeatureGates) > 0 {
		args["feature-gates"] = switches(o.FeatureGates)
	}
	return args
}

// schedulerConfig is the scheduler's configuration file: client rates have no flag
// that is not ignored beside --config.
func schedulerConfig(kubeconfig string) []byte {
	return fmt.Appendf(nil, `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection:
  kubeconfig: %q
  qps: %d
  burst: %d
leaderElection:
  leaderElect: false
`, kubeconfig, clientRate, clientRate)
}
