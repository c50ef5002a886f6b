// Command flux runs a Flux task on a file of annotated CSV, in the place of the bucket "telegraf", and prints each row that the task
// would write to the bucket "alerts" as a line of JSON with the columns that are strings. It is a module of its own, which is not
// in go.work, since the interpreter requires old versions of much. Later versions than 0.39 take a C compiler and Rust.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/influxdata/flux"
	_ "github.com/influxdata/flux/builtin"
	"github.com/influxdata/flux/lang"
	"github.com/influxdata/flux/memory"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: flux TASK CSV")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "flux:", err)
		os.Exit(1)
	}
}

func run(task, csv string) error {
	text, err := os.ReadFile(task)
	if err != nil {
		return err
	}
	const source, sink = `from(bucket: "telegraf")`, `|> to(bucket: "alerts")`
	query := string(text)
	if !strings.Contains(query, source) || strings.Count(query, sink) != 1 {
		return errors.New("the task does not read from telegraf or write to alerts")
	}
	query = strings.ReplaceAll(query, source, "csv.from(file: "+strconv.Quote(csv)+")")
	query = "import \"csv\"\n" + strings.ReplaceAll(query, sink, "")
	ctx := context.Background()
	program, err := lang.FluxCompiler{Query: query}.Compile(ctx)
	if err != nil {
		return err
	}
	running, err := program.Start(ctx, &memory.Allocator{})
	if err != nil {
		return err
	}
	defer running.Done()
	for result := range running.Results() {
		if err := result.Tables().Do(func(t flux.Table) error { return t.Do(printRows) }); err != nil {
			return err
		}
	}
	return running.Err()
}

func printRows(rows flux.ColReader) error {
	for i := range rows.Len() {
		row := map[string]string{}
		for j, column := range rows.Cols() {
			if column.Type == flux.TString && !rows.Strings(j).IsNull(i) {
				row[column.Label] = rows.Strings(j).ValueString(i)
			}
		}
		if err := json.NewEncoder(os.Stdout).Encode(row); err != nil {
			return err
		}
	}
	return nil
}
