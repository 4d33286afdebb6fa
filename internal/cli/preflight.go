package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/fleet"
	"github.com/roundhouse-dev/roundhouse/internal/cli/preflight"
	"github.com/roundhouse-dev/roundhouse/internal/cli/text"
)

func (a *app) checkCluster(ctx context.Context, f *checkFlags) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	s, err := c.gatherPreflight(ctx)
	if err != nil {
		return err
	}
	s.At = metav1.NewTime(a.Now())
	r := preflight.Check(s)
	if err := a.show(&f.output, &r, nil); err != nil {
		return err
	}
	if n := r.Count(preflight.Must); n > 0 {
		return &foundError{what: text.Count(n, "finding", "findings") + " must be fixed"}
	}
	return nil
}

func (c *cluster) gatherPreflight(ctx context.Context) (preflight.Snapshot, error) {
	var s preflight.Snapshot
	if err := c.discover(&s); err != nil {
		return s, err
	}
	var err error
	if s.Nodes, err = c.nodes(ctx); err != nil {
		return s, err
	}
	err = pages(ctx, c, &appsv1.DaemonSetList{}, func(l *appsv1.DaemonSetList) { s.DaemonSets = append(s.DaemonSets, l.Items...) })
	if err != nil {
		return s, fmt.Errorf("reading the DaemonSets: %w", err)
	}
	err = pages(ctx, c, &appsv1.DeploymentList{}, func(l *appsv1.DeploymentList) { s.Deployments = append(s.Deployments, l.Items...) })
	if err != nil {
		return s, fmt.Errorf("reading the Deployments: %w", err)
	}
	if s.SliceDevices, err = c.sliceDevices(ctx); err != nil {
		return s, err
	}
	for _, group := range s.Groups {
		if group == v1alpha1.GroupVersion.Group {
			return s, c.gatherOurs(ctx, &s)
		}
	}
	return s, nil
}

// gatherOurs reads our own kinds, where they are installed.
func (c *cluster) gatherOurs(ctx context.Context, s *preflight.Snapshot) error {
	err := pages(ctx, c, &v1alpha1.NodeHealthList{}, func(l *v1alpha1.NodeHealthList) {
		for i := range l.Items {
			s.Healths = append(s.Healths, fleet.HealthOf(&l.Items[i]))
		}
	})
	if err != nil {
		return fmt.Errorf("reading the NodeHealths: %w", err)
	}
	s.Policies, s.Budgets, _, err = c.rules(ctx)
	return err
}

// discover asks for the server's version and what it serves.
func (c *cluster) discover(s *preflight.Snapshot) error {
	d, err := discovery.NewDiscoveryClientForConfig(c.config)
	if err != nil {
		return fmt.Errorf("making a discovery client: %w", err)
	}
	version, err := d.ServerVersion()
	if err != nil {
		return fmt.Errorf("asking for the server's version: %w", err)
	}
	s.Server = version.GitVersion
	// Some vendors write "37+".
	if minor, err := strconv.Atoi(strings.TrimRight(version.Minor, "+")); err == nil {
		s.Minor = minor
	}
	groups, err := d.ServerGroups()
	if err != nil {
		return fmt.Errorf("asking for the API groups: %w", err)
	}
	for _, g := range groups.Groups {
		s.Groups = append(s.Groups, g.Name)
	}
	resources, err := d.ServerResourcesForGroupVersion(resourcev1.SchemeGroupVersion.String())
	if err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("asking for the kinds of %s: %w", resourcev1.SchemeGroupVersion, err)
	}
	for _, r := range resources.APIResources {
		s.DeviceTaintRules = s.DeviceTaintRules || r.Name == "devicetaintrules"
	}
	return nil
}

// sliceDevices counts the devices that drivers offer by dynamic resource allocation, by node.
func (c *cluster) sliceDevices(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	err := pages(ctx, c, &resourcev1.ResourceSliceList{}, func(l *resourcev1.ResourceSliceList) {
		for i := range l.Items {
			if node := l.Items[i].Spec.NodeName; node != nil {
				out[*node] += len(l.Items[i].Spec.Devices)
			}
		}
	})
	// Before 1.34 the kind is not served at v1.
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading the ResourceSlices: %w", err)
	}
	return out, nil
}
