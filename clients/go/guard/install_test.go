package guard

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pdpapiv1 "pdp.example/go/pdpapi/v1"
)

// What a stranger does: the commands of the README in an empty folder, and then its program.
func TestTheReadmeInstallsTheGuardInAnEmptyFolder(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	app := filepath.Join(folder, "app")
	if err := os.Mkdir(app, 0o755); err != nil {
		t.Fatal(err)
	}
	repository, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(repository, filepath.Join(folder, "pdp")); err != nil {
		t.Fatal(err)
	}
	pdp := answering(t, func(ctx context.Context, request *pdpapiv1.CheckRequest) (*pdpapiv1.CheckResponse, error) {
		if request.GetPermission() == "course:edit" {
			request.Permission = "course:allowed"
		}
		return byPermission(ctx, request)
	})
	address := freeAddress(t)
	program := strings.NewReplacer("127.0.0.1:50051", pdp.address, "127.0.0.1:8080", address).
		Replace(block(t, string(readme), "go"))
	if err := os.WriteFile(filepath.Join(app, "main.go"), []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	command := exec.Command("sh", "-ec", block(t, string(readme), "sh")+"go build -o courses .")
	command.Dir = app
	// `go mod tidy` also reads modules that only tests of our modules need: it may download them.
	command.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GONOSUMDB=*")
	if said, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	var said bytes.Buffer
	server := exec.Command(filepath.Join(app, "courses"))
	server.Stderr = &said
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = server.Process.Kill(), server.Wait() }()
	untilAnswered(t, address)
	target, _ := net.ResolveTCPAddr("tcp", address)
	for head, want := range map[string]int{
		"PUT /courses/1" + bearerLine:    200,
		"PUT /courses/1 HTTP/1.1\r\n":    401,
		"PUT /nowhere/1/2" + bearerLine:  404,
		"DELETE /courses/1" + bearerLine: 405,
	} {
		status, body := send(t, target, head)
		if status != want || status == 200 && body != "edited by user_ada" {
			t.Errorf("%q: %d %s", head, status, body)
		}
	}
	// Without a PDP it says why.
	pdp.server.Stop()
	if status, body := send(t, target, "PUT /courses/1"+bearerLine); status != 503 {
		t.Errorf("%d %s", status, body)
	}
	_, _ = server.Process.Kill(), server.Wait()
	if !strings.Contains(said.String(), "guard: no decision error=\"UNAVAILABLE") {
		t.Errorf("%s", said.String())
	}
}

// block is the first block of a language.
func block(t *testing.T, text, language string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, "```"+language+"\n")
	if !found {
		t.Fatalf("no block of %s", language)
	}
	code, _, _ := strings.Cut(rest, "```")
	return code
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func untilAnswered(t *testing.T, address string) {
	t.Helper()
	for ends := time.Now().Add(time.Minute); time.Now().Before(ends); time.Sleep(20 * time.Millisecond) {
		if connection, err := net.Dial("tcp", address); err == nil {
			_ = connection.Close()
			return
		}
	}
	t.Fatalf("nobody answers at %s", address)
}
