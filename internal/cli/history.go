package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/roundhouse-dev/roundhouse/api/v1alpha1"
	"github.com/roundhouse-dev/roundhouse/internal/cli/past"
)

func (a *app) historyCommand() *cobra.Command {
	var o output
	var noHeaders bool
	cmd := &cobra.Command{
		Use:   "history NODE|DEVICE",
		Short: "Show the incidents of a node or a device, with what happened in them",
		Long: `Show the incidents of a node or a device, open and past, with what happened in them; what is remembered of its devices;
and the node's boots. A device is named by its UUID, its serial number or its DeviceRecord.`,
		Args:              exactly(1, "the name of one node or device"),
		ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			s, exists, err := c.gatherHistory(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			s.Now = a.Now()
			h := past.Tell(s)
			if h.Empty() && !exists {
				return &foundError{what: fmt.Sprintf("there is no node %q, and no device of this UUID, serial number or record", args[0])}
			}
			return a.showHistory(&o, &h, noHeaders)
		},
	}
	o.add(cmd, formatWide, formatJSON, formatYAML, formatName)
	cmd.Flags().BoolVar(&noHeaders, "no-headers", false, "leave the table's header out")
	return cmd
}

func (a *app) showHistory(o *output, h *past.History, noHeaders bool) error {
	if o.format == formatJSON || o.format == formatYAML {
		return encode(a.Out, o.format, h)
	}
	var names []string
	for _, in := range h.Incidents {
		if !in.Digest {
			names = append(names, remediationName(in.Remediation))
		}
	}
	return a.show(o, past.Shown{NoHeaders: noHeaders, History: h}, names)
}

// gatherHistory looks for a node of the name, then for a device. exists says that there is such a node, even if nothing
// ever happened to it.
func (c *cluster) gatherHistory(ctx context.Context, of string) (s past.Snapshot, exists bool, err error) {
	s = past.Snapshot{Of: of}
	if s.Remediations, err = c.remediationsOf(ctx, of); err != nil {
		return s, false, err
	}
	if s.Records, err = c.recordsOf(ctx, of); err != nil {
		return s, false, err
	}
	if exists, err = c.exists(ctx, of); err != nil {
		return s, false, err
	}
	if exists || len(s.Remediations)+len(s.Records) > 0 {
		s.Node = of
		health := &v1alpha1.NodeHealth{}
		switch err := c.Get(ctx, client.ObjectKey{Name: of}, health); {
		case err == nil:
			s.Health = health
		case !apierrors.IsNotFound(err):
			return s, exists, fmt.Errorf("reading NodeHealth %s: %w", of, err)
		}
		return s, exists, nil
	}
	err = c.gatherDevice(ctx, &s)
	return s, false, err
}

func (c *cluster) exists(ctx context.Context, node string) (bool, error) {
	m, err := c.nodeMeta(ctx, node)
	return m != nil, err
}

// labels are a node's; none where there is no such node.
func (c *cluster) labels(ctx context.Context, node string) (map[string]string, error) {
	m, err := c.nodeMeta(ctx, node)
	if m == nil {
		return nil, err
	}
	return m.Labels, nil
}

// nodeMeta is a node's metadata, nil where there is no such node: a whole Node has a list of all its images.
func (c *cluster) nodeMeta(ctx context.Context, node string) (*metav1.PartialObjectMetadata, error) {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
	switch err := c.Get(ctx, client.ObjectKey{Name: node}, m); {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading node %s: %w", node, err)
	}
	return m, nil
}

// gatherDevice finds a device's record, and the Remediations that are about it and still exist.
func (c *cluster) gatherDevice(ctx context.Context, s *past.Snapshot) error {
	var err error
	s.Records, err = c.records(ctx, func(r *v1alpha1.DeviceRecord) bool {
		id := r.Status.Identity
		return strings.EqualFold(r.Name, s.Of) || strings.EqualFold(id.UUID, s.Of) || id.Serial != "" && id.Serial == s.Of
	})
	if err != nil {
		return err
	}
	ids := []string{s.Of}
	for i := range s.Records {
		ids = append(ids, s.Records[i].Status.Identity.UUID, s.Records[i].Status.Identity.Serial)
	}
	err = pages(ctx, c, &v1alpha1.RemediationList{}, func(l *v1alpha1.RemediationList) {
		for i := range l.Items {
			if slices.ContainsFunc(l.Items[i].Spec.Devices, func(d string) bool { return d != "" && slices.Contains(ids, d) }) {
				s.Remediations = append(s.Remediations, l.Items[i])
			}
		}
	})
	if err != nil {
		return fmt.Errorf("reading the Remediations of device %s: %w", s.Of, err)
	}
	return nil
}

func (c *cluster) nodeNames(ctx context.Context) ([]string, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NodeList"))
	var names []string
	err := pages(ctx, c, list, func(l *metav1.PartialObjectMetadataList) {
		for i := range l.Items {
			names = append(names, l.Items[i].Name)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading the nodes' names: %w", err)
	}
	return names, nil
}
