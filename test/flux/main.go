// Command flux runs Flux tasks on files of annotated CSV, in the place of the bucket "telegraf", at a given time. It prints each
// row that a task would write to the bucket "alerts" as a line of JSON with the columns that are strings.
//
// It is a module of its own, which is not in go.work, since the interpreter requires old versions of much. Later versions than
// 0.39 take a C compiler and Rust.
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
	if len(os.Args) < 4 || len(os.Args)%2 != 0 {
		fmt.Fprintln(os.Stderr, "usage: flux TIME TASK CSV [TASK CSV]...")
		os.Exit(2)
	}
	for i := 2; i < len(os.Args); i += 2 {
		if err := run(os.Args[1], os.Args[i], os.Args[i+1]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[i], err)
			os.Exit(1)
		}
	}
}

func run(now, task, csv string) error {
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
	query = "import \"csv\"\noption now = () => " + now + "\n" + strings.ReplaceAll(query, sink, "")
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
