package kubelet

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/roundhouse-dev/roundhouse/internal/podresources"
)

// server is a kubelet: its pod-resources server, by the published service description, on a Unix socket.
type server struct {
	podresourcesv1.UnimplementedPodResourcesListerServer
	list func(context.Context) (*podresourcesv1.ListPodResourcesResponse, error)
}

func (s server) List(ctx context.Context, _ *podresourcesv1.ListPodResourcesRequest) (*podresourcesv1.ListPodResourcesResponse, error) {
	return s.list(ctx)
}

// listen serves on a new socket.
func listen(t *testing.T, s podresourcesv1.PodResourcesListerServer) string {
	t.Helper()
	socket, l := socket(t)
	g := grpc.NewServer()
	if s != nil {
		podresourcesv1.RegisterPodResourcesListerServer(g, s)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return socket
}

// socket listens.
func socket(t *testing.T) (string, net.Listener) {
	t.Helper()
	dir, err := os.MkdirTemp("", "podres") //nolint:usetesting // a Unix socket's path has at most 107 bytes, and TempDir has the test's name in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "kubelet.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return path, l
}

func answers(pods ...*podresourcesv1.PodResources) server {
	return server{list: func(context.Context) (*podresourcesv1.ListPodResourcesResponse, error) {
		return &podresourcesv1.ListPodResourcesResponse{PodResources: pods}, nil
	}}
}

func fails(err error) server {
	return server{list: func(context.Context) (*podresourcesv1.ListPodResourcesResponse, error) { return nil, err }}
}

func pod(name string, containers ...*podresourcesv1.ContainerResources) *podresourcesv1.PodResources {
	return &podresourcesv1.PodResources{Namespace: "ml", Name: name, Containers: containers, CpuIds: []int64{1, 2}}
}

func container(name, resource string, ids ...string) *podresourcesv1.ContainerResources {
	return &podresourcesv1.ContainerResources{Name: name, Devices: []*podresourcesv1.ContainerDevices{{ResourceName: resource, DeviceIds: ids,
		Topology: &podresourcesv1.TopologyInfo{Nodes: []*podresourcesv1.NUMANode{{ID: 1}}}}}}
}

func TestList(t *testing.T) {
	mixed := container("main", "nvidia.com/gpu", "GPU-1")
	mixed.Devices = append(mixed.Devices, &podresourcesv1.ContainerDevices{ResourceName: "rdma/hca", DeviceIds: []string{"mlx5_0"}})
	mixed.DynamicResources = []*podresourcesv1.DynamicResource{{ClaimName: "c", ClaimResources: []*podresourcesv1.ClaimResource{{DeviceName: "gpu-3"}}}}
	for name, tc := range map[string]struct {
		pods []*podresourcesv1.PodResources
		want []podresources.Holding
	}{
		"nothing runs":          {},
		"a pod without devices": {pods: []*podresourcesv1.PodResources{pod("web", &podresourcesv1.ContainerResources{Name: "main"})}},
		"two containers of a pod": {
			pods: []*podresourcesv1.PodResources{pod("p", container("a", "nvidia.com/gpu", "GPU-1", "GPU-2"), container("b", "nvidia.com/gpu", "GPU-3"))},
			want: []podresources.Holding{
				{Namespace: "ml", Pod: "p", Container: "a", Resource: "nvidia.com/gpu", ID: "GPU-1"},
				{Namespace: "ml", Pod: "p", Container: "a", Resource: "nvidia.com/gpu", ID: "GPU-2"},
				{Namespace: "ml", Pod: "p", Container: "b", Resource: "nvidia.com/gpu", ID: "GPU-3"},
			},
		},
		"another plugin's device, and DRA's that has objects of its own": {
			pods: []*podresourcesv1.PodResources{pod("p", mixed)},
			want: []podresources.Holding{
				{Namespace: "ml", Pod: "p", Container: "main", Resource: "nvidia.com/gpu", ID: "GPU-1"},
				{Namespace: "ml", Pod: "p", Container: "main", Resource: "rdma/hca", ID: "mlx5_0"},
			},
		},
		"replicas of a GPU, and a MIG device": {
			pods: []*podresourcesv1.PodResources{pod("p", container("a", "nvidia.com/gpu", "GPU-1::0", "GPU-1::1")), pod("q", container("a", "nvidia.com/mig-1g.18gb", "MIG-9"))},
			want: []podresources.Holding{
				{Namespace: "ml", Pod: "p", Container: "a", Resource: "nvidia.com/gpu", ID: "GPU-1::0"},
				{Namespace: "ml", Pod: "p", Container: "a", Resource: "nvidia.com/gpu", ID: "GPU-1::1"},
				{Namespace: "ml", Pod: "q", Container: "a", Resource: "nvidia.com/mig-1g.18gb", ID: "MIG-9"},
			},
		},
		"another plugin's name that is no text blinds nobody": {
			pods: []*podresourcesv1.PodResources{pod("p", container("a", "x.example/y", "a\x00b", strings.Repeat("z", 500)))},
			want: []podresources.Holding{
				{Namespace: "ml", Pod: "p", Container: "a", Resource: "x.example/y", ID: "?a b"},
				{Namespace: "ml", Pod: "p", Container: "a", Resource: "x.example/y", ID: "?" + strings.Repeat("z", 127)},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := List(t.Context(), listen(t, answers(tc.pods...)), 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// large is an answer of so many bytes.
func large(bytes int) server {
	one := container("c", "x.example/y", strings.Repeat("i", 1<<20))
	var pods []*podresourcesv1.PodResources
	for i := range bytes >> 20 {
		pods = append(pods, pod(fmt.Sprint("p", i), one))
	}
	return answers(pods...)
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	many := make([]string, podresources.MaxHoldings+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	hang := server{list: func(ctx context.Context) (*podresourcesv1.ListPodResourcesResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	nameless := pod("")
	nameless.Containers = []*podresourcesv1.ContainerResources{container("c", "nvidia.com/gpu", "GPU-1")}
	for name, tc := range map[string]struct {
		server podresourcesv1.PodResourcesListerServer
		want   string
	}{
		"a kubelet that hangs":                      {hang, "did not answer"},
		"an answer that is too large":               {large(17 << 20), "more than 16 MiB"},
		"more devices than are believed":            {answers(pod("p", container("c", "x.example/y", many...))), "more than 2048 devices"},
		"a pod without a name":                      {answers(nameless), "a pod is empty"},
		"a device of no resource":                   {answers(pod("p", container("c", "", "GPU-1"))), "a resource is empty"},
		"a server that has another version only":    {nil, "does not know the v1 pod-resources API"},
		"a server that has not this one":            {podresourcesv1.UnimplementedPodResourcesListerServer{}, "does not know the v1 pod-resources API"},
		"a kubelet that is asked too often":         {fails(status.Error(codes.ResourceExhausted, "rejected by rate limit")), "refuses for now: rejected by rate limit"},
		"a kubelet with an error":                   {fails(status.Error(codes.Internal, "checkpoint")), "error: Internal: checkpoint"},
		"a kubelet that is not root's for everyone": {fails(status.Error(codes.PermissionDenied, "no")), "error: PermissionDenied: no"},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := 5 * time.Second
			if name == "a kubelet that hangs" {
				timeout = 100 * time.Millisecond
			}
			got, err := List(t.Context(), listen(t, tc.server), timeout)
			if err == nil || !strings.Contains(err.Error(), tc.want) || got != nil {
				t.Errorf("%v, %v; want %q", got, err, tc.want)
			}
		})
	}
}

// A large answer that is within bounds is read: 15 MiB is more than gRPC takes by default.
func TestALargeAnswerIsRead(t *testing.T) {
	got, err := List(t.Context(), listen(t, large(15<<20)), 10*time.Second)
	if err != nil || len(got) != 15 {
		t.Errorf("%d, %v", len(got), err)
	}
}

// What is at the path need not be a kubelet.
func TestWhatIsNoKubelet(t *testing.T) {
	says := func(text string, hangUp bool) func(*testing.T) string {
		return func(t *testing.T) string {
			path, l := socket(t)
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_, _ = conn.Write([]byte(text))
					if hangUp {
						_ = conn.Close()
					}
				}
			}()
			return path
		}
	}
	for name, tc := range map[string]struct {
		at   func(*testing.T) string
		want string
	}{
		"nothing": {func(t *testing.T) string { return filepath.Join(t.TempDir(), "kubelet.sock") }, "no kubelet socket"},
		"a socket that nobody listens on": {func(t *testing.T) string {
			path, l := socket(t)
			unix, ok := l.(*net.UnixListener)
			if !ok {
				t.Fatal("no Unix socket")
			}
			unix.SetUnlinkOnClose(false)
			_ = l.Close()
			return path
		}, "the kubelet is down"},
		"a file": {func(t *testing.T) string {
			path := filepath.Join(t.TempDir(), "kubelet.sock")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}, "the kubelet is down"},
		"a path that is too long": {func(*testing.T) string { return "/" + strings.Repeat("x", 200) }, "cannot be used"},
		"an HTTP/1 server":        {says("HTTP/1.1 400 Bad Request\r\n\r\n", false), "does not speak the pod-resources API"},
		"garbage":                 {says("\x00\xff\x00garbage that is longer than a frame's header", false), "does not speak the pod-resources API"},
		"one that hangs up":       {says("", true), "does not speak the pod-resources API"},
		"one that says nothing":   {says("", false), "did not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			got, err := List(t.Context(), tc.at(t), 500*time.Millisecond)
			if err == nil || !strings.Contains(err.Error(), tc.want) || got != nil {
				t.Errorf("%v, %v; want %q", got, err, tc.want)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

// The socket is root's alone, and root may use any: the thread that dials is another user's for the moment.
func TestASocketThatMayNotBeUsed(t *testing.T) {
	path := listen(t, answers())
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	d := &dialer{socket: path}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Geteuid() == 0 {
		if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		_, _ = unix.SetfsuidRetUid(65534)
		defer func() { _, _ = unix.SetfsuidRetUid(0) }()
	} else if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if conn, err := d.dial(t.Context(), ""); err == nil {
		_ = conn.Close()
		t.Fatal("the socket could be used")
	}
	err := d.explain(status.Error(codes.Unavailable, "x"), time.Second)
	if want := "no permission to use the kubelet's socket " + path; !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want %q", err, want)
	}
}
