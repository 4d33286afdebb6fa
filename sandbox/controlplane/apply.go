package controlplane

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// FieldManager is the field manager of what [ControlPlane.Apply] applies.
const FieldManager = "roundhouse-sandbox"

// applyTimeout bounds one Apply, whatever its context says: a CRD that is not
// established by then never will be.
const applyTimeout = time.Minute

// maxManifest bounds one file, and with it what is read into memory.
const maxManifest = 8 << 20

// customResourceDefinition is the one kind that others have to wait for.
var customResourceDefinition = schema.GroupVersionResource{
	Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions",
}

// Apply applies the YAML and JSON manifests of fsys by server-side apply: each path
// is a file, a directory (of which all files are taken, those of its subdirectories
// too) or a pattern of [path.Match]. CustomResourceDefinitions go first and are
// waited for until the server serves them, then namespaces, then the rest in the
// order in which it stands. Objects of namespaced kinds without a namespace go to
// "default".
func (cp *ControlPlane) Apply(ctx context.Context, fsys fs.FS, paths ...string) error {
	files, err := manifests(fsys, paths)
	if err != nil {
		return err
	}
	var objects []*unstructured.Unstructured
	for _, file := range files {
		found, err := readManifest(fsys, file)
		if err != nil {
			return err
		}
		objects = append(objects, found...)
	}
	return cp.ApplyObjects(ctx, objects...)
}

// ApplyObjects applies objects as [ControlPlane.Apply] does those that it reads.
func (cp *ControlPlane) ApplyObjects(ctx context.Context, objects ...*unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeoutCause(ctx, applyTimeout, fmt.Errorf("not done after %s", applyTimeout))
	defer cancel()
	client, err := dynamic.NewForConfig(cp.admin)
	if err != nil {
		return fmt.Errorf("making a dynamic client: %w", err)
	}
	a := &applier{client: client, discovery: cp.client.Discovery(), kinds: map[schema.GroupVersionKind]metav1.APIResource{}}
	ordered := slices.Clone(objects)
	slices.SortStableFunc(ordered, func(x, y *unstructured.Unstructured) int { return rank(x) - rank(y) })
	crds := 0
	for _, object := range ordered {
		if rank(object) == 0 {
			crds++
		} else if crds > 0 {
			if err := a.waitEstablished(ctx, ordered[:crds]); err != nil {
				return err
			}
			crds = 0
		}
		if err := a.apply(ctx, object); err != nil {
			return err
		}
	}
	return a.waitEstablished(ctx, ordered[:crds])
}

// rank orders objects by what others need first.
func rank(object *unstructured.Unstructured) int {
	switch object.GetKind() {
	case "CustomResourceDefinition":
		return 0
	case "Namespace":
		return 1
	default:
		return 2
	}
}

// applier applies objects, and remembers what discovery said about their kinds.
type applier struct {
	client    dynamic.Interface
	discovery discovery.DiscoveryInterface
	kinds     map[schema.GroupVersionKind]metav1.APIResource
}

func (a *applier) apply(ctx context.Context, object *unstructured.Unstructured) error {
	kind := object.GroupVersionKind()
	resource, err := a.resource(ctx, kind)
	if err != nil {
		return fmt.Errorf("applying %s %s: %w", kind.Kind, object.GetName(), err)
	}
	var client dynamic.ResourceInterface = a.client.Resource(kind.GroupVersion().WithResource(resource.Name))
	if resource.Namespaced {
		namespace := object.GetNamespace()
		if namespace == "" {
			namespace = metav1.NamespaceDefault
		}
		client = a.client.Resource(kind.GroupVersion().WithResource(resource.Name)).Namespace(namespace)
	}
	options := metav1.ApplyOptions{FieldManager: FieldManager, Force: true}
	if _, err := client.Apply(ctx, object.GetName(), object, options); err != nil {
		return fmt.Errorf("applying %s %s: %w", kind.Kind, object.GetName(), err)
	}
	return nil
}

// resource finds the resource of a kind. A CRD that was established a moment ago may
// be missing from discovery for another, so an unknown kind is asked for again.
func (a *applier) resource(ctx context.Context, kind schema.GroupVersionKind) (metav1.APIResource, error) {
	if known, ok := a.kinds[kind]; ok {
		return known, nil
	}
	// Unknown kinds of Kubernetes' own are mistakes in a manifest, and appear soon or never.
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("the server does not serve this kind"))
	defer cancel()
	err := poll(ctx, func() (bool, error) {
		list, err := a.discovery.ServerResourcesForGroupVersion(kind.GroupVersion().String())
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		for _, r := range list.APIResources {
			a.kinds[kind.GroupVersion().WithKind(r.Kind)] = preferWhole(a.kinds[kind.GroupVersion().WithKind(r.Kind)], r)
		}
		_, ok := a.kinds[kind]
		return ok, nil
	})
	if err != nil {
		return metav1.APIResource{}, fmt.Errorf("finding the resource of %s: %w", kind, err)
	}
	return a.kinds[kind], nil
}

// preferWhole keeps the resource itself where discovery lists subresources, such as
// deployments/status, under the same kind.
func preferWhole(known, r metav1.APIResource) metav1.APIResource {
	if known.Name != "" || path.Base(r.Name) != r.Name {
		return known
	}
	return r
}

// waitEstablished waits until the server has accepted and serves the given CRDs.
func (a *applier) waitEstablished(ctx context.Context, crds []*unstructured.Unstructured) error {
	for _, crd := range crds {
		err := poll(ctx, func() (bool, error) {
			live, err := a.client.Resource(customResourceDefinition).Get(ctx, crd.GetName(), metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			return established(live)
		})
		if err != nil {
			return fmt.Errorf("waiting for CRD %s to be established: %w", crd.GetName(), err)
		}
	}
	return nil
}

// established reads a CRD's conditions; names that clash with another's are an error,
// because waiting does not help.
func established(crd *unstructured.Unstructured) (bool, error) {
	// A CRD that was created a moment ago has "conditions": null.
	status, _ := crd.Object["status"].(map[string]any)
	conditions, _ := status["conditions"].([]any)
	done := false
	for _, c := range conditions {
		condition, _ := c.(map[string]any)
		switch {
		case condition["type"] == "NamesAccepted" && condition["status"] == "False":
			return false, fmt.Errorf("its names were refused: %v", condition["message"])
		case condition["type"] == "Established":
			done = condition["status"] == "True"
		}
	}
	return done, nil
}

// manifests expands paths to files, each once, in order.
func manifests(fsys fs.FS, paths []string) ([]string, error) {
	var files []string
	for _, pattern := range paths {
		matches, err := fs.Glob(fsys, pattern)
		if err != nil {
			return nil, fmt.Errorf("expanding %q: %w", pattern, err)
		}
		if len(matches) == 0 {
			return nil, fmt.Errorf("expanding %q: %w", pattern, fs.ErrNotExist)
		}
		for _, match := range matches {
			err := fs.WalkDir(fsys, match, func(name string, entry fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				// A file named outright is taken whatever it is called.
				if entry.IsDir() || (name != match && !isManifest(name)) || slices.Contains(files, name) {
					return nil
				}
				files = append(files, name)
				return nil
			})
			if err != nil {
				return nil, fmt.Errorf("reading %q: %w", match, err)
			}
		}
	}
	return files, nil
}

func isManifest(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(name))
}

// readManifest reads every document of one file.
func readManifest(fsys fs.FS, name string) ([]*unstructured.Unstructured, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("opening a manifest: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("reading %s: larger than %d bytes", name, maxManifest)
	}
	objects, err := parseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("parsing %s: %w", name, err)
	}
	return objects, nil
}

// parseManifest parses a stream of YAML documents, of which empty ones are ignored.
func parseManifest(data []byte) ([]*unstructured.Unstructured, error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var objects []*unstructured.Unstructured
	for number := 1; ; number++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", number, err)
		}
		var content map[string]any
		if err := yaml.Unmarshal(document, &content); err != nil {
			return nil, fmt.Errorf("document %d: %w", number, err)
		}
		if len(content) == 0 {
			continue
		}
		object := &unstructured.Unstructured{Object: content}
		if object.GetAPIVersion() == "" || object.GetKind() == "" || object.GetName() == "" {
			return nil, fmt.Errorf("document %d: apiVersion, kind and metadata.name are needed", number)
		}
		objects = append(objects, object)
	}
}
