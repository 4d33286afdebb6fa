package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/roundhouse-dev/roundhouse/internal/machine"
	"github.com/roundhouse-dev/roundhouse/internal/podresources"
)

// TestMain is the program itself where the agent's code starts it.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-socket" {
		main()
		return
	}
	os.Exit(m.Run())
}

// server is a kubelet's, by the published service description.
type server struct {
	podresourcesv1.UnimplementedPodResourcesListerServer
	hang bool
}

func (s server) List(ctx context.Context, _ *podresourcesv1.ListPodResourcesRequest) (*podresourcesv1.ListPodResourcesResponse, error) {
	if s.hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &podresourcesv1.ListPodResourcesResponse{PodResources: []*podresourcesv1.PodResources{{
		Namespace: "ml", Name: "train-0", Containers: []*podresourcesv1.ContainerResources{{
			Name: "main", Devices: []*podresourcesv1.ContainerDevices{{ResourceName: "nvidia.com/gpu", DeviceIds: []string{"GPU-1"}}},
		}},
	}}}, nil
}

// The agent's way from end to end: its process, the protocol between the two, gRPC, a Unix socket.
func TestTheAgentAsksThroughAProcess(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(t *testing.T, s server) ([]podresources.Holding, error) {
		dir, err := os.MkdirTemp("", "podres") //nolint:usetesting // a Unix socket's path has at most 107 bytes, and TempDir has the test's name in it
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		socket := filepath.Join(dir, "kubelet.sock")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		g := grpc.NewServer()
		podresourcesv1.RegisterPodResourcesListerServer(g, s)
		go func() { _ = g.Serve(l) }()
		t.Cleanup(g.Stop)
		return podresources.Helper{Programs: machine.NewHost(machine.Options{}), Path: self, Socket: socket}.Holdings(t.Context())
	}
	t.Run("an answer", func(t *testing.T) {
		got, err := ask(t, server{})
		if err != nil {
			t.Fatal(err)
		}
		want := []podresources.Holding{{Namespace: "ml", Pod: "train-0", Container: "main", Resource: "nvidia.com/gpu", ID: "GPU-1"}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a kubelet that hangs", func(t *testing.T) {
		began := time.Now()
		_, err := ask(t, server{hang: true})
		// The helper gives up sooner than the agent, and says more; on a machine that is busy the agent may be first.
		if err == nil || !strings.Contains(err.Error(), "did not answer on") && !strings.Contains(err.Error(), "gave no answer within 5s") {
			t.Error(err)
		}
		if took := time.Since(began); took > podresources.DefaultTimeout+2*time.Second {
			t.Errorf("took %s", took)
		}
	})
}
