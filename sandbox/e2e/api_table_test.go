package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// tables are what `kubectl get -o wide` shows of the samples, the age left out; docs/api.md shows the same.
var tables = map[string]string{
	"remediationpolicies": `
NAME      MODE     PRIORITY  NODES  ACCEPTED  BRAKE    WHY
training  Observe  100       16     True      Holding  the policy is followed`,
	"remediationholds": `
NAME       HOLDS       BY      UNTIL                 REASON
night-run  Disruption  y.sato  2026-11-24T01:00:00Z  demo on Monday`,
	"nodedisruptionbudgets": `
NAME      MAX NODES  MAX DEVICES  PER                           HELD BY
per-rack  1          16           topology.roundhouse.dev/rack  gpu-0417`,
	"nodehealths": `
NAME      SUMMARY  FAULT  DEVICE                                    ACTION  STATE    AGENT
gpu-0417  Acting   Xid79  GPU-6a1f2c3d-0000-4000-8000-000000000003  Reboot  Started  v0.1.0`,
	"remediations": `
NAME                 NODE      FAULT  PHASE    REASON           RUNG         MESSAGE
gpu-0417-k3q7x2m9aa  gpu-0417  Xid79  Pending  BudgetExhausted  power-cycle  per-rack: 1 of 1 nodes of rack r26 is out (gpu-0419, GPU operator driver upgrade, since 09:41)`,
	"devicerecords": `
NAME                                      MODEL  SERIAL         INCIDENTS  REPAIRS  SUSPICION  RMA
gpu-6a1f2c3d-0000-4000-8000-000000000003  H200   1324000000003  4          3        Lemon      Requested`,
}

// TestTables asks for each kind as kubectl does, and finds the same in docs/api.md.
func TestTables(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	s := startAPIServer(t, "crd")
	samples := readSamples(t)
	for _, crd := range readCRDs(t) {
		s.createWhole(t, crd, samples[crd.Spec.Names.Kind])
		t.Run(crd.Spec.Names.Plural, func(t *testing.T) {
			want := strings.TrimPrefix(tables[crd.Spec.Names.Plural], "\n")
			if diff := cmp.Diff(want, getTable(t, s.core, collection(crd))); diff != "" {
				t.Errorf("as wanted (-) and as the server has it (+):\n%s", diff)
			}
			if shown := "$ kubectl get " + crd.Spec.Names.Plural + " -o wide\n" + want + "\n"; !strings.Contains(string(page), shown) {
				t.Errorf("docs/api.md does not show:\n%s", shown)
			}
			if len(crd.Spec.Names.ShortNames) != 1 || crd.Spec.Names.Categories[0] != "roundhouse" {
				t.Errorf("short names %v, categories %v; want one, and roundhouse", crd.Spec.Names.ShortNames, crd.Spec.Names.Categories)
			}
		})
	}
}

// getTable asks for a Table and prints it without the age.
func getTable(t *testing.T, client kubernetes.Interface, path string) string {
	t.Helper()
	data, err := client.Discovery().RESTClient().Verb(http.MethodGet).RequestURI(strings.TrimSuffix(path, "/")).
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Do(t.Context()).Raw()
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(data, &table); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	rows := make([][]string, 1+len(table.Rows))
	for i, column := range table.ColumnDefinitions {
		if column.Name == "Age" {
			continue
		}
		rows[0] = append(rows[0], strings.ToUpper(column.Name))
		for j, row := range table.Rows {
			rows[j+1] = append(rows[j+1], fmt.Sprint(row.Cells[i]))
		}
	}
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(out.String(), "\n")
}
