package guard_test

import (
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"testing"

	"pdp.example/go/guard"
)

func organizationOf(string) string { return "org_1" }

func ExampleGuard_Middleware() {
	g, err := guard.New("127.0.0.1:50051")
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	routes, err := guard.NewRoutes(map[string]guard.Needs{
		"GET /courses/{id}": {Permission: "course:view", Resource: "course/{id}"},
		"/admin/**":         {Permission: "admin:access"},
		"GET /healthz":      {Public: true},
	})
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{Handler: g.Middleware(routes)(mux)} // what no route names is refused
	fmt.Println(server.Handler != nil)
	// Output: true
}

func TestTheReadmeShowsCodeThatCompiles(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(readme), "```go\n")[1:]
	if len(blocks) != 2 { // the first is a program; see install_test.go
		t.Fatalf("%d blocks", len(blocks))
	}
	code, _, _ := strings.Cut(blocks[1], "```")
	for line := range strings.Lines(code) {
		if !strings.Contains(string(source), "\t"+line) && line != "\n" {
			t.Errorf("not in the example: %s", line)
		}
	}
}
