package procnetstat

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/metric"
	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/procnetstat/procnetstat/internal/testnet"
)

// observer is a plugin in a process of its own: capabilities are those of a thread, and the plugin has several.
type observer struct {
	*testing.T
	requests io.WriteCloser
	replies  *gob.Decoder
}

// observed is what an observer answers.
type observed struct {
	Failed   string // other than in a gather
	Metrics  []observedMetric
	Errors   []string
	Messages []string // since the start
}

type observedMetric struct {
	Name   string
	Tags   map[string]string
	Fields map[string]any
	Time   time.Time
	Type   telegraf.ValueType
}

// rights are what an observer runs with: root has all capabilities, another user those that are given.
type rights struct {
	uid          uint32
	capabilities []uintptr
}

// observerEnv makes a test process an observer; its value is the configuration.
const observerEnv = "PROCNETSTAT_TEST_OBSERVER"

// observe starts a plugin as another user, if r says so. It ends with the test.
func observe(t *testing.T, options string, r rights) *observer {
	t.Helper()
	program := testnet.Program(t, "observer")
	conf := filepath.Join(filepath.Dir(program), "telegraf.conf")
	require.NoError(t, os.WriteFile(conf, []byte("[[inputs.procnetstat]]\n"+options+"\n"), 0o644))
	cmd := exec.Command(program)
	cmd.Dir = filepath.Dir(program)
	cmd.Env = append(os.Environ(), observerEnv+"="+conf)
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if r.uid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: r.uid, Gid: r.uid}
		cmd.SysProcAttr.AmbientCaps = r.capabilities
	}
	requests, err := cmd.StdinPipe()
	require.NoError(t, err)
	replies, err := cmd.StdoutPipe()
	require.NoError(t, err)
	runtime.LockOSThread() // Pdeathsig is sent when the thread that started the process ends
	err = cmd.Start()
	if errors.Is(err, unix.EPERM) {
		testnet.SkipOrFail(t, fmt.Sprintf("another user wants CAP_SETUID: %v", err))
	}
	require.NoError(t, err)
	t.Cleanup(func() {
		defer runtime.UnlockOSThread()
		_ = requests.Close()
		require.NoError(t, cmd.Wait())
	})
	return &observer{T: t, requests: requests, replies: gob.NewDecoder(replies)}
}

// gather returns what one gather emits, and what was logged since the start. It wants no error.
func (o *observer) gather() (g gathered, messages []string) {
	o.Helper()
	g, failed, messages := o.gatherFailing()
	require.Empty(o, failed)
	return g, messages
}

// gatherFailing is gather that returns the errors.
func (o *observer) gatherFailing() (g gathered, failed, messages []string) {
	o.Helper()
	_, err := o.requests.Write([]byte{'\n'})
	require.NoError(o, err)
	var answer observed
	require.NoError(o, o.replies.Decode(&answer))
	require.Empty(o, answer.Failed)
	g.T = o.T
	for _, m := range answer.Metrics {
		g.metrics = append(g.metrics, metric.New(m.Name, m.Tags, m.Fields, m.Time, m.Type))
	}
	return g, answer.Errors, answer.Messages
}

// runObserver is an observer: for each byte that it reads it gathers once.
func runObserver(conf string) {
	replies := gob.NewEncoder(os.Stdout)
	plugin, log, err := startObserved(conf)
	if err != nil {
		_ = replies.Encode(observed{Failed: err.Error()})
		return
	}
	defer plugin.Stop()
	for request := make([]byte, 1); ; {
		if _, err := io.ReadFull(os.Stdin, request); err != nil {
			return
		}
		acc := &testutil.Accumulator{}
		answer := observed{}
		if err := plugin.Gather(acc); err != nil {
			answer.Failed = err.Error()
		}
		for _, m := range acc.GetTelegrafMetrics() {
			answer.Metrics = append(answer.Metrics, observedMetric{m.Name(), m.Tags(), m.Fields(), m.Time(), m.Type()})
		}
		for _, err := range acc.Errors {
			answer.Errors = append(answer.Errors, err.Error())
		}
		for _, message := range log.Messages() {
			answer.Messages = append(answer.Messages, message.Text)
		}
		if err := replies.Encode(answer); err != nil {
			return
		}
	}
}

func startObserved(conf string) (*ProcNetStat, *testutil.CaptureLogger, error) {
	cfg := config.NewConfig()
	if err := cfg.LoadConfig(conf); err != nil {
		return nil, nil, err
	}
	plugin, ok := cfg.Inputs[0].Input.(*ProcNetStat)
	if !ok {
		return nil, nil, fmt.Errorf("a %T is configured", cfg.Inputs[0].Input)
	}
	log := &testutil.CaptureLogger{}
	plugin.Log = log
	if err := plugin.Init(); err != nil {
		return nil, nil, err
	}
	return plugin, log, plugin.Start(nil)
}
