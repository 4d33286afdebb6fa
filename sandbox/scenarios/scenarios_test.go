package scenarios

import "testing"

func TestEveryScenarioIsReadStrictly(t *testing.T) {
	names, err := Names()
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 10 {
		t.Fatalf("got %v, want at least the ten that the documentation names", names)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			s, err := Get(name)
			if err != nil {
				t.Fatal(err)
			}
			if s.Name != name {
				t.Errorf("the file is called %s and the scenario %s", name, s.Name)
			}
		})
	}
	if _, err := Get("no-such"); err == nil {
		t.Error("a scenario that does not exist was read")
	}
}
