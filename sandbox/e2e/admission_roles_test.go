package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// TestRolesOfPeople tries what each of the roles for people may do, and what it may not.
func TestRolesOfPeople(t *testing.T) {
	t.Parallel()
	s := startAPIServer(t, "crd", "rbac")
	s.applyObjectsOfFence(t)
	acts := map[string]call{
		"read health":   {http.MethodGet, nodeHealths, ""},
		"read policies": {http.MethodGet, policies, ""},
		"hold": {http.MethodPost, holds, `{"apiVersion":"roundhouse.dev/v1alpha1","kind":"RemediationHold","metadata":{"name":"h"},
			"spec":{"nodeSelector":{},"reason":"r","requestedBy":"me"}}`},
		"approve":             {http.MethodPatch, remediations + "node-a-old", `{"spec":{"approvals":[{"what":"SkipIdle","by":"me","until":"2026-11-23T10:00:00Z"}]}}`},
		"cancel":              {http.MethodPatch, remediations + "node-a-old", `{"spec":{"cancel":true}}`},
		"set a policy's mode": {http.MethodPatch, policies + "training", `{"spec":{"mode":"Remediate"}}`},
		"raise a budget":      {http.MethodPatch, budgets + "fleet", `{"spec":{"maxUnavailable":2}}`},
		"write a phase":       {http.MethodPatch, remediations + "node-a-old/status", `{"status":{"phase":"Succeeded"}}`},
		"ask for an action":   {http.MethodPatch, nodeHealths + "node-a", `{"spec":{"fence":9}}`},
		"read pods":           {http.MethodGet, "/api/v1/pods", ""},
		"read a namespace":    {http.MethodGet, "/api/v1/namespaces/default", ""},
		"read claims":         {http.MethodGet, "/apis/resource.k8s.io/v1/resourceclaims", ""},
		"taint a device": {http.MethodPost, taintRules, `{"apiVersion":"resource.k8s.io/v1","kind":"DeviceTaintRule","metadata":{"name":"t"},
			"spec":{"deviceSelector":{"driver":"d","pool":"p","device":"x"},"taint":{"key":"k.example.com/k","effect":"None"}}}`},
		"free a slot": {http.MethodPatch, budgets + "fleet/status", `{"status":{"reservations":[]}}`},
	}
	roles := map[string][]string{
		"roundhouse-viewer":   {"read health", "read policies"},
		"roundhouse-planner":  {"read pods", "read claims", "read a namespace", "read health", "read policies"},
		"roundhouse-holder":   {"hold"},
		"roundhouse-operator": {"approve", "cancel"},
		"roundhouse-admin":    {"read policies", "set a policy's mode", "raise a budget"},
	}
	for role, may := range roles {
		user := s.personWith(t, role)
		client := coreClient(t, user)
		eventually(t, role+" is granted", func() error {
			_, err := acts[may[0]].dryRun().do(t.Context(), client)
			return err
		})
		for name, act := range acts {
			allowed := slices.Contains(may, name)
			t.Run(fmt.Sprintf("%s: %s: %t", role, name, allowed), func(t *testing.T) {
				_, err := act.dryRun().do(t.Context(), client)
				switch {
				case allowed && err != nil:
					t.Error(err)
				case !allowed:
					if err := wantRefusal(err, "cannot "); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// personWith is the credential of a person who was given one role, cluster-wide.
func (s *apiServer) personWith(t *testing.T, role string) *rest.Config {
	t.Helper()
	_, err := s.core.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "person-" + role},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "person-" + role}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	user, err := s.UserConfig("person-" + role)
	if err != nil {
		t.Fatal(err)
	}
	return user
}
