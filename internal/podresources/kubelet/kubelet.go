// Package kubelet asks the kubelet of its own node which devices each container was given, over the pod-resources API
// (KEP-606, k8s.io/kubelet/pkg/apis/podresources/v1). It is linked into cmd/roundhouse-podresources alone.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	podresourcesv1 "k8s.io/kubelet/pkg/apis/podresources/v1"

	"github.com/roundhouse-dev/roundhouse/internal/podresources"
)

// Socket is where the kubelet listens, below its root directory, which is usually this one.
const Socket = "/var/lib/kubelet/pod-resources/kubelet.sock"

// maxMessage is the size of an answer that is believed. Kubernetes' own client takes as much (podresources.GetV1Client).
const maxMessage = 16 << 20

// List asks once. It returns by the timeout whatever the kubelet does. Whatever is odd about an answer is an error: half
// of one would say that nobody holds what somebody holds.
func List(ctx context.Context, socket string, timeout time.Duration) ([]podresources.Holding, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d := &dialer{socket: socket}
	// The name is not looked up anywhere; the dialer alone knows where it goes.
	conn, err := grpc.NewClient("passthrough:///kubelet", grpc.WithContextDialer(d.dial), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableServiceConfig(), grpc.WithNoProxy(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("preparing to ask the kubelet: %w", err)
	}
	defer func() { _ = conn.Close() }()
	answer, err := podresourcesv1.NewPodResourcesListerClient(conn).List(ctx, &podresourcesv1.ListPodResourcesRequest{})
	if err != nil {
		return nil, d.explain(err, timeout)
	}
	return holdings(answer)
}

// dialer dials a Unix socket and remembers why it could not: gRPC tells that in words only.
type dialer struct {
	socket string

	mu  sync.Mutex
	err error
}

func (d *dialer) dial(ctx context.Context, _ string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", d.socket)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	return conn, err
}

// explain says what went wrong, and what to mend.
func (d *dialer) explain(err error, timeout time.Duration) error {
	d.mu.Lock()
	dialed := d.err
	d.mu.Unlock()
	switch {
	case errors.Is(dialed, fs.ErrNotExist):
		return fmt.Errorf("no kubelet socket %s: is the kubelet's pod-resources directory mounted, and its root directory another one?", d.socket)
	case errors.Is(dialed, fs.ErrPermission):
		return fmt.Errorf("no permission to use the kubelet's socket %s: it is root's, and SELinux or AppArmor may forbid it", d.socket)
	case errors.Is(dialed, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens on the kubelet's socket %s: the kubelet is down", d.socket)
	case dialed != nil && !errors.Is(dialed, context.DeadlineExceeded):
		return fmt.Errorf("the kubelet's socket %s cannot be used: %w", d.socket, dialed)
	}
	said := status.Convert(err)
	switch said.Code() {
	case codes.DeadlineExceeded:
		return fmt.Errorf("the kubelet did not answer on %s within %s", d.socket, timeout)
	case codes.Unimplemented:
		return errors.New("the kubelet does not know the v1 pod-resources API: it is older than 1.20, or has taken it away")
	case codes.ResourceExhausted:
		if strings.Contains(said.Message(), "larger than max") {
			return fmt.Errorf("the kubelet's answer has more than %d MiB", maxMessage>>20)
		}
		return fmt.Errorf("the kubelet refuses for now: %s", said.Message())
	case codes.Unavailable:
		return fmt.Errorf("what listens on %s does not speak the pod-resources API, or hung up: %s", d.socket, said.Message())
	default:
		return fmt.Errorf("the kubelet answered with an error: %s: %s", said.Code(), said.Message())
	}
}

// holdings are the devices of device plugins in an answer. What DRA gave has its own objects in the API server.
func holdings(answer *podresourcesv1.ListPodResourcesResponse) ([]podresources.Holding, error) {
	var out []podresources.Holding
	for _, pod := range answer.GetPodResources() {
		for _, container := range pod.GetContainers() {
			for _, devices := range container.GetDevices() {
				for _, id := range devices.GetDeviceIds() {
					if len(out) == podresources.MaxHoldings {
						return nil, fmt.Errorf("the kubelet tells of more than %d devices in use", podresources.MaxHoldings)
					}
					h := podresources.Holding{
						Namespace: pod.GetNamespace(), Pod: pod.GetName(), Container: container.GetName(), Resource: devices.GetResourceName(),
						ID: podresources.ShortID(id),
					}
					if err := h.Check(); err != nil {
						return nil, fmt.Errorf("the kubelet's answer is not understood: %w", err)
					}
					out = append(out, h)
				}
			}
		}
	}
	return out, nil
}
