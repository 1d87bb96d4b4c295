package guest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"cloudflash/agent/guest/wire"
)

// ReadJournal reads the exits that an init has recorded and nobody has
// acknowledged. No journal is no exits. A last line without its end was being
// written when the machine stopped, and is left out, as are lines that the error names:
// /run was full.
func ReadJournal(runDir string) ([]Exit, error) {
	b, err := os.ReadFile(filepath.Join(runDir, journalName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseJournal(b)
}

func parseJournal(b []byte) ([]Exit, error) {
	var exits []Exit
	var bad []error
	for line := range bytes.Lines(b) {
		if line[len(line)-1] != '\n' {
			break
		}
		e, err := parseExit(line)
		if err != nil {
			bad = append(bad, err)
			continue
		}
		exits = append(exits, e)
	}
	return exits, errors.Join(bad...)
}

func parseExit(line []byte) (Exit, error) {
	f := bytes.Fields(line)
	if len(f) != 6 && len(f) != 7 { // an older init leaves out the last
		return Exit{}, fmt.Errorf("parse journal: line %q", line)
	}
	var n [6]int64
	for i := range len(f) - 1 {
		var err error
		if n[i], err = strconv.ParseInt(string(f[i+1]), 10, 64); err != nil {
			return Exit{}, fmt.Errorf("parse journal: line %q: %w", line, err)
		}
	}
	return exitFrom(wire.Exit{ID: string(f[0]), Code: uint32(n[0]), Signal: uint32(n[1]), StartedAt: n[2],
		FinishedAt: n[3], CPUTime: n[4], FinishedBoot: n[5]}), nil
}
