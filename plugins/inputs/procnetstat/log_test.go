//go:build linux

package procnetstat

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/influxdata/telegraf/testutil"
	"github.com/stretchr/testify/require"
)

// TestLogMessages checks the first and last characters of every literal message that the plugin and the programs log, and of every
// warning of the library, which the plugin logs with its first letter in upper case: see docs/developers/LOGGING.md of Telegraf.
func TestLogMessages(t *testing.T) {
	var (
		message = regexp.MustCompile(`^(?:[EWID]! )?(?:[A-Z][A-Za-z]* [^\n]*[^.\s]|%v)$`) // an error that ends the program is as it is
		warning = regexp.MustCompile(`^(?:[a-z]+|BPF|TCP) [^\n]*[^.\s]$`)
	)
	messages, warnings := 0, 0
	inspectCalls(t, "../../..", []string{"plugins", "cmd", "netstat"}, func(at, function string, arguments []ast.Expr) {
		switch function {
		case "Warnf", "Warn", "Infof", "Info", "Errorf of Log", "Debugf", "Debug", "logf", "Printf", "printMessage":
			for _, argument := range arguments {
				if text, ok := literal(argument); ok {
					messages++
					require.Regexp(t, message, text, at)
					break
				}
			}
		case "warnOnce", "markUnavailable", "warn", "scheduleRetry":
			call, ok := arguments[len(arguments)-1].(*ast.CallExpr)
			if !ok {
				return // an error of another function
			}
			if text, ok := literal(call.Args[0]); ok {
				warnings++
				require.Regexp(t, warning, text, at)
			}
		}
	})
	require.Greater(t, messages, 8)
	require.Greater(t, warnings, 10)
}

// The plugin logs each warning of the library as a message.
func TestLibraryWarningsAreCapitalized(t *testing.T) {
	log := &testutil.CaptureLogger{}
	p := newPlugin()
	p.Log = log
	require.NoError(t, p.Init())
	p.scan.Warn(errors.New("cannot read this"))
	p.scan.Warn(errors.New("BPF is unavailable"))
	p.scan.Warn(errors.New(""))
	require.Equal(t, []string{"W! [] Cannot read this", "W! [] BPF is unavailable", "W! [] "}, log.Warnings())
}

// inspectCalls calls f for each function call in the Go files of the folders that are no tests.
func inspectCalls(t *testing.T, root string, folders []string, f func(at, function string, arguments []ast.Expr)) {
	t.Helper()
	files := token.NewFileSet()
	for _, folder := range folders {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, folder), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok && len(call.Args) > 0 {
					f(files.Position(call.Pos()).String(), functionName(call.Fun), call.Args)
				}
				return true
			})
			return nil
		}))
	}
}

// functionName returns the name of a function or method. Errorf is a method of a logger and a function of package fmt.
func functionName(function ast.Expr) string {
	switch f := function.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		if x, ok := f.X.(*ast.Ident); f.Sel.Name == "Errorf" && (!ok || x.Name != "fmt") {
			return "Errorf of Log"
		}
		return f.Sel.Name
	default:
		return ""
	}
}

// literal returns the value of a string literal, or of a sum that begins with one.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		left, isText := literal(e.X)
		right, isTextToo := literal(e.Y)
		if !isTextToo {
			right = "…"
		}
		return left + right, isText
	default:
		return "", false
	}
}
