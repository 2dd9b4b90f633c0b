package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/throughline/throughline/internal/wireclient"
	"github.com/throughline/throughline/server"
)

// serverAddress has the test binary be a server at an address, so that a test can
// kill it.
const serverAddress = "THROUGHLINE_E2E_SERVER"

// beServer serves until it is killed, or told to end by SIGTERM.
func beServer(address string) error {
	srv, err := server.New(server.Options{
		Logger:    slog.New(slog.DiscardHandler),
		Authorize: func(context.Context, server.Identity, server.Action, server.Channel) error { return nil },
	})
	if err != nil {
		return err
	}
	return http.ListenAndServe(address, srv) //nolint:gosec // of a test, and killed
}

// A process is a server in a process of its own.
type process struct {
	*testing.T
	address string
	command *exec.Cmd
}

func startProcess(t *testing.T) *process {
	t.Helper()
	p := &process{T: t, address: freeAddress(t)}
	p.begin()
	t.Cleanup(p.kill)
	return p
}

func (p *process) begin() {
	p.Helper()
	p.command = exec.Command(os.Args[0])
	p.command.Env = append(os.Environ(), serverAddress+"="+p.address)
	p.command.Stderr = os.Stderr
	if err := p.command.Start(); err != nil {
		p.Fatal(err)
	}
	awaitPort(p.T, p.address)
}

// kill is kill -9.
func (p *process) kill() {
	if p.command.ProcessState == nil {
		_ = p.command.Process.Signal(syscall.SIGKILL)
		_ = p.command.Wait()
	}
}

func (p *process) base() string { return "http://" + p.address + "/realtime" }

// publish publishes by a request, and returns the position, or "" if nobody can
// say what became of it.
func (p *process) publish(data string) (position string) {
	r, err := http.Post(p.base()+"/publish?channel=r&type=said", "application/json", strings.NewReader(data))
	if err != nil {
		return ""
	}
	defer func() { _ = r.Body.Close() }()
	body, err := io.ReadAll(r.Body)
	var answer struct{ Position string }
	if err != nil || json.Unmarshal(body, &answer) != nil {
		return ""
	}
	return answer.Position
}

// lines are the ways to read that survive a kill alike.
var lines = map[string]func(ctx context.Context, base, after string) (wireclient.Stream, error){
	"sse": func(ctx context.Context, base, after string) (wireclient.Stream, error) {
		return wireclient.SSESession(ctx, http.DefaultClient, base+"/sse", wireclient.HelloFor(after, "r"))
	},
	"ws": func(ctx context.Context, base, after string) (wireclient.Stream, error) {
		h := wireclient.HelloFor(after, "r")
		return wireclient.WS(ctx, http.DefaultClient, base+"/ws", &h)
	},
	"poll": func(ctx context.Context, base, after string) (wireclient.Stream, error) {
		return wireclient.NewPollStream(ctx, func(ctx context.Context, at map[string]string) (*wireclient.Answer, error) {
			if p, ok := at["r"]; ok {
				after = p
			}
			return wireclient.SessionPoll(ctx, http.DefaultClient, base+"/poll?wait=5s", wireclient.HelloFor(after, "r"))
		}), nil
	},
}

// TestKilledServerSaysWhatIsLost: a server is killed (kill -9) while events come,
// and started anew with an empty log. Whoever read gets, before it died, a part
// of what was acknowledged in order; afterwards a gap that says that history was
// lost, and then what is new: never a part of the new thread as if it went on
// from the old.
func TestKilledServerSaysWhatIsLost(t *testing.T) {
	t.Parallel() // it mostly waits
	for name, open := range lines {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			p := startProcess(t)
			var acknowledged []string
			begin := p.publish("0")
			died := make(chan struct{})
			go func() {
				defer close(died)
				for n := 1; ; n++ {
					at := p.publish(fmt.Sprint(n))
					if at == "" {
						return
					}
					acknowledged = append(acknowledged, at)
				}
			}()
			at := begin
			s, err := open(ctx, p.base(), begin)
			if err != nil {
				t.Fatal(err)
			}
			for n := 1; ; {
				it, err := s.Next()
				if err != nil {
					break
				}
				if it.Gap != nil || it.Event && string(it.Data) != fmt.Sprint(n) {
					t.Fatalf("in place of event %d came %+v", n, it)
				}
				if it.Event {
					at = it.Position
					if n++; n == 20 {
						p.kill()
					}
				}
			}
			s.Close()
			<-died
			if len(acknowledged) < 19 {
				t.Fatalf("only %d events were acknowledged", len(acknowledged))
			}

			p.begin()
			head := p.publish(`"anew"`)
			s, err = open(ctx, p.base(), at)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if it := next(t, s); it.Gap == nil || *it.Gap != (wireclient.Gap{From: at, To: head, Reason: "rewritten"}) {
				t.Fatalf("after the restart came %+v, not a gap \"rewritten\" from %q to %q", it, at, head)
			}
			news := p.publish(`"news"`)
			if it := next(t, s); !it.Event || it.Position != news {
				t.Errorf("after the gap came %+v, not the event at %q", it, news)
			}
		})
	}
}

// next returns the next item that is about a channel.
func next(t *testing.T, s wireclient.Stream) wireclient.Item {
	t.Helper()
	for {
		it, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		if it.Event || it.Gap != nil || it.Opening {
			return it
		}
	}
}
