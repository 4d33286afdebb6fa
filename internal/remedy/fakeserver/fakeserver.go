// Package fakeserver is an API server for the tests of remedies that ask others: it holds objects of any kind, notes what it is
// asked, and fails where it is told to. What a real one does with schemas and rights is tested in sandbox/e2e/neighbours.
package fakeserver

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// MadeUID is the UID of what is created.
const MadeUID = "made"

// Server is the API server, and what was asked of it.
type Server struct {
	// Client asks it; it is there once Serve has been called.
	client.Client
	// Fail is what a verb on a kind answers, such as "get Machine".
	Fail map[string]error
	// Calls are the verbs and kinds that it was asked for, in their order.
	Calls []string
	// Deleted are the preconditions with which it was asked to delete.
	Deleted []metav1.Preconditions
	// OnPatch judges each patch; nil takes every one.
	OnPatch func(data []byte) error
}

// New makes a server that fails nowhere.
func New() *Server { return &Server{Fail: map[string]error{}} }

// Serve begins with these kinds and these objects.
func (s *Server) Serve(kinds map[schema.GroupVersionKind]meta.RESTScope, objects ...*unstructured.Unstructured) {
	mapper := meta.NewDefaultRESTMapper(nil)
	for kind, scope := range kinds {
		mapper.Add(kind, scope)
	}
	builder := fake.NewClientBuilder().WithScheme(runtime.NewScheme()).WithRESTMapper(mapper).WithInterceptorFuncs(s.intercept())
	for _, o := range objects {
		builder.WithObjects(o)
	}
	s.Client = builder.Build()
}

// asked notes a call, and gives what it answers where it fails.
func (s *Server) asked(verb string, o runtime.Object) error {
	call := verb + " " + strings.TrimSuffix(o.GetObjectKind().GroupVersionKind().Kind, "List")
	s.Calls = append(s.Calls, call)
	return s.Fail[call]
}

func (s *Server) intercept() interceptor.Funcs {
	return interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			if err := s.asked("get", o); err != nil {
				return err
			}
			return c.Get(ctx, key, o, options...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			if err := s.asked("list", list); err != nil {
				return err
			}
			return c.List(ctx, list, options...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.CreateOption) error {
			if err := s.asked("create", o); err != nil {
				return err
			}
			o.SetUID(MadeUID)
			return c.Create(ctx, o, options...)
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, patch client.Patch, options ...client.PatchOption) error {
			if err := s.asked("patch", o); err != nil {
				return err
			}
			if err := s.judge(o, patch); err != nil {
				return err
			}
			return c.Patch(ctx, o, patch, options...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.DeleteOption) error {
			if err := s.asked("delete", o); err != nil {
				return err
			}
			given := client.DeleteOptions{}
			given.ApplyOptions(options)
			if given.Preconditions != nil {
				s.Deleted = append(s.Deleted, *given.Preconditions)
			}
			return c.Delete(ctx, o, options...)
		},
	}
}

func (s *Server) judge(o client.Object, patch client.Patch) error {
	if s.OnPatch == nil {
		return nil
	}
	data, err := patch.Data(o)
	if err != nil {
		return fmt.Errorf("reading the patch: %w", err)
	}
	return s.OnPatch(data)
}
