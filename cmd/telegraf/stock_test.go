package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/urfave/cli/v2"
)

// These tests compare the program with the source of the stock Telegraf that it is built from, and with what docs/INSTALL.md says of
// both.

// TestUnsupportedFlags: what the stock Telegraf would take, and this program does not, starts nothing.
func TestUnsupportedFlags(t *testing.T) {
	stock, app := stockFlags(t), newApp(io.Discard)
	var supported, refused []string
	for _, flag := range app.Flags {
		supported = append(supported, flag.Names()[0])
	}
	require.Subset(t, stock, supported, "flags that are not Telegraf's")
	for _, flag := range stock {
		if !slices.Contains(supported, flag) {
			refused = append(refused, flag)
		}
	}
	require.Contains(t, refused, "watch-config")
	require.Contains(t, refused, "service")

	table := tableOfInstall(t, "flags")
	require.ElementsMatch(t, dashed(supported), table[0], "supported flags in INSTALL.md")
	require.ElementsMatch(t, dashed(refused), table[1], "refused flags in INSTALL.md")

	help := execute(t, "--help").succeeds().stdout
	for _, flag := range dashed(supported) {
		require.Regexp(t, "(?m)^ *"+flag+" ", help)
	}
	for _, flag := range dashed(refused) {
		require.NotContains(t, help, flag+" ")
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			requireStartsNothing(t, []string{flag + "=value"},
				"flag "+flag+" is not supported; supported: "+strings.Join(dashed(supported), ", ")+", --help\n")
		})
	}
}

func TestUnsupportedCommands(t *testing.T) {
	stock, app := stockCommands(t), newApp(io.Discard)
	supported := names(app.Commands)
	require.Subset(t, stock, supported, "commands that are not Telegraf's")
	var refused []string
	for _, command := range stock {
		kind, isKind := strings.CutPrefix(command, "plugins ")
		if !slices.Contains(supported, command) && (!isKind || !slices.Contains(kindNames(), kind)) {
			refused = append(refused, command)
		}
	}
	require.Contains(t, refused, "config check")
	require.Contains(t, refused, "secrets")

	table := tableOfInstall(t, "commands")
	require.ElementsMatch(t, supported, table[0], "supported commands in INSTALL.md")
	require.ElementsMatch(t, refused, table[1], "refused commands in INSTALL.md")

	for _, command := range refused {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			says := `command "` + command + `" is not supported; supported: ` + strings.Join(supported, ", ") + ", help\n"
			words := strings.Fields(command)
			switch {
			case words[0] == "plugins":
				says = `no kind of plugin is called "` + words[1] + `"; there are ` + strings.Join(kindNames(), ", ") + "\n"
			case !slices.Contains(supported, words[0]): // which names the first word alone
				says = strings.Replace(says, command, words[0], 1)
			}
			requireStartsNothing(t, words, says)
		})
	}
}

// requireStartsNothing runs a configuration with further arguments, which the program must refuse before it does anything.
func requireStartsNothing(t *testing.T, args []string, says string) {
	t.Helper()
	out, pid := filepath.Join(t.TempDir(), "metrics.out"), filepath.Join(t.TempDir(), "pid")
	conf := write(t, "telegraf.conf", pulse+fileOutput(out))
	ran := execute(t, append([]string{"--config", conf, "--once", "--pidfile", pid}, args...)...).fails()
	require.Contains(t, ran.stderr, "E! "+says)
	require.Equal(t, 1, strings.Count(ran.stderr, "\n"), "one line of stderr:\n%s", ran.stderr)
	require.Empty(t, ran.stdout)
	require.NoFileExists(t, out)
	require.NoFileExists(t, pid)
}

// TestDocumentedPlugins: docs/INSTALL.md lists what is built in.
func TestDocumentedPlugins(t *testing.T) {
	for _, kind := range kinds() {
		require.Equal(t, kind.plugins, tableOfInstall(t, kind.name)[0], kind.name)
	}
}

// TestDefaultConfiguration: the inputs that the stock Telegraf's own configuration has are built in.
func TestDefaultConfiguration(t *testing.T) {
	var defaults []string
	ast.Inspect(stockFile(t, "printer.go"), func(node ast.Node) bool {
		if assigned, ok := node.(*ast.ValueSpec); ok && assigned.Names[0].Name == "inputDefaults" {
			for _, name := range assigned.Values[0].(*ast.CompositeLit).Elts {
				defaults = append(defaults, unquote(name))
			}
		}
		return true
	})
	require.NotEmpty(t, defaults)
	require.Subset(t, kinds()[0].plugins, defaults)
}

// tableOfInstall gives the names in each cell of a row of docs/INSTALL.md but the first, which is the given one.
func tableOfInstall(t *testing.T, first string) [][]string {
	t.Helper()
	for line := range strings.Lines(read(filepath.Join("..", "..", "docs", "INSTALL.md"))) {
		row, found := strings.CutPrefix(line, "| "+first+" |")
		if !found {
			continue
		}
		var cells [][]string
		for cell := range strings.SplitSeq(row, "|") {
			var names []string
			for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
				names = append(names, name[1])
			}
			cells = append(cells, names)
		}
		return cells
	}
	t.Fatalf("docs/INSTALL.md has no row %q", first)
	return nil
}

// stockFlags gives the flags of the stock Telegraf that stand before a command, those for Windows included.
func stockFlags(t *testing.T) []string {
	t.Helper()
	var flags []string
	for file, function := range map[string]string{"main.go": "runApp", "cmd_win_service.go": "cliFlags"} {
		for _, declared := range stockFile(t, file).Decls {
			if f, ok := declared.(*ast.FuncDecl); !ok || f.Name.Name != function {
				continue
			}
			ast.Inspect(declared, func(node ast.Node) bool {
				literal, ok := node.(*ast.CompositeLit)
				if !ok {
					return true
				}
				typ, ok := literal.Type.(*ast.SelectorExpr) // cli.StringFlag, with cli.Flag only in the types of slices
				if ok && strings.HasSuffix(typ.Sel.Name, "Flag") {
					flags = append(flags, unquote(valueOf(literal, "Name")))
				}
				return true
			})
		}
	}
	return flags
}

// stockCommands gives the commands of the stock Telegraf, a subcommand with the command before it.
func stockCommands(t *testing.T) []string {
	t.Helper()
	var commands []string
	var collect func(parent string, node ast.Node)
	collect = func(parent string, node ast.Node) {
		ast.Inspect(node, func(node ast.Node) bool {
			list, ok := node.(*ast.CompositeLit)
			if !ok || !isCommandSlice(list.Type) {
				return true
			}
			for _, element := range list.Elts {
				command := element.(*ast.CompositeLit)
				name := parent + unquote(valueOf(command, "Name"))
				commands = append(commands, name)
				if subcommands := valueOf(command, "Subcommands"); subcommands != nil {
					collect(name+" ", subcommands)
				}
			}
			return false
		})
	}
	for _, file := range []string{"main.go", "cmd_config.go", "cmd_plugins.go", "cmd_secretstore.go", "cmd_win_service.go"} {
		collect("", stockFile(t, file))
	}
	return commands
}

func isCommandSlice(typ ast.Expr) bool {
	slice, ok := typ.(*ast.ArrayType)
	if !ok {
		return false
	}
	pointer, ok := slice.Elt.(*ast.StarExpr)
	return ok && pointer.X.(*ast.SelectorExpr).Sel.Name == "Command"
}

// stockFile parses a file of the stock Telegraf's program, of the version that go.mod wants.
func stockFile(t *testing.T, name string) *ast.File {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/influxdata/telegraf").Output()
	require.NoError(t, err)
	path := filepath.Join(strings.TrimSpace(string(dir)), "cmd", "telegraf", name)
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	require.NoError(t, err)
	return file
}

func valueOf(literal *ast.CompositeLit, key string) ast.Expr {
	for _, element := range literal.Elts {
		if pair, ok := element.(*ast.KeyValueExpr); ok && pair.Key.(*ast.Ident).Name == key {
			return pair.Value
		}
	}
	return nil
}

func unquote(literal ast.Expr) string {
	text, err := strconv.Unquote(literal.(*ast.BasicLit).Value)
	if err != nil {
		panic(err)
	}
	return text
}

func dashed(flags []string) []string {
	var dashed []string
	for _, flag := range flags {
		dashed = append(dashed, "--"+flag)
	}
	return dashed
}

func names(commands []*cli.Command) []string {
	var names []string
	for _, command := range commands {
		names = append(names, command.Name)
	}
	return names
}
