package cli

import (
	"fmt"

	"weir/processor/scenario"
)

type rulesCmds struct {
	Check  rulesCheckCmd  `cmd:"" help:"Read rule files and say what is wrong with them."`
	Test   rulesTestCmd   `cmd:"" help:"Play the records of test files through rules, and compare the signals."`
	Replay rulesReplayCmd `cmd:"" help:"Run rules over recorded days of the archive, and say what they would have said."`
}

type rulesCheckCmd struct {
	Files []string `arg:"" optional:"" help:"Rule files, or folders of them; without any those of processor.rules."`
}

// Run reads the files as the processor does.
func (c rulesCheckCmd) Run(g *globals) error {
	if len(c.Files) == 0 {
		cfg, err := g.load()
		if err != nil {
			return err
		}
		c.Files = cfg.Processor.Rules
	}
	all, err := loadRules(c.Files)
	if err != nil {
		return err
	}
	for _, r := range all {
		for _, note := range r.Notes {
			fmt.Fprintf(g.out, "rule %s: %s\n", r.Name, note)
		}
	}
	_, err = fmt.Fprintf(g.out, "%d rules are good\n", len(all))
	return err
}

type rulesTestCmd struct {
	Files []string `arg:"" help:"Files of tests."`
}

// Run runs every file's tests, also after one that failed.
func (c rulesTestCmd) Run(g *globals) error {
	all, bad := 0, 0
	for _, path := range c.Files {
		n, failed, err := scenario.Run(path)
		if err != nil {
			return err
		}
		for _, f := range failed {
			fmt.Fprintln(g.out, f)
		}
		all, bad = all+n, bad+len(failed)
	}
	if bad > 0 {
		return fmt.Errorf("%d differences in %d tests", bad, all)
	}
	_, err := fmt.Fprintf(g.out, "%d tests passed\n", all)
	return err
}
