package apitest

import (
	"context"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/fault"
)

// MemoryPicture is what the agent draws, whatever part is asked for.
func (f *Agent) MemoryPicture() agent.MemoryMap {
	return agent.MemoryMap{At: f.Began, PageSize: 4096, From: 512, Span: 1024, PagesPerCell: 512, Cells: []agent.MemoryCell{
		{First: 512, Free: 100, Used: 412, Fragmented: 100, Unmovable: 7, LargestFreeRun: 64, Owned: 400, AgeSeconds: 1.5,
			Owners: []agent.MemoryShare{{Owner: "v0", Pages: 400}, {Owner: "host", Pages: 12}}},
		{First: 1024, Absent: 512, Node: -1, Owners: []agent.MemoryShare{}}}}
}

func (f *Agent) Memory() (agent.Memory, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return agent.Memory{At: f.Began, PageSize: 4096, TotalPages: 1536, Scan: agent.MemoryScan{State: "idle"}}, f.Err
}

func (f *Agent) MemoryMap(from, span int64, cells int, owner string) (agent.MemoryMap, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if f.Err == nil && (cells < 1 || cells > 4096 || from < 0 || span < 0) {
		return agent.MemoryMap{}, &fault.Error{Kind: fault.ErrInvalid, Code: "out_of_range", Detail: "cells must be 1 to 4096",
			Fields: []fault.Field{{Pointer: "?cells", Detail: "must be 1 to 4096", Min: 1, Max: 4096}}}
	}
	m := f.MemoryPicture()
	m.Owner = owner
	return m, f.Err
}

func (f *Agent) MemoryOwners() ([]agent.MemoryOwner, time.Time, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return []agent.MemoryOwner{{Owner: "v0", Name: "db", Pages: 400, Runs: []agent.MemoryRun{}}}, f.Began, f.Err
}

func (f *Agent) MemoryProcesses(ref string) ([]agent.MemoryProcess, error) {
	_, err := f.VM(ref)
	return []agent.MemoryProcess{{PID: 42, Name: "burn", Scope: "c1"}}, err
}

func (f *Agent) MemoryMappings(ctx context.Context, ref string, pid int) (agent.MemoryProcess, error) {
	if f.Look != nil {
		f.Look(ctx)
	}
	_, err := f.VM(ref)
	return agent.MemoryProcess{PID: pid, Mappings: []agent.MemoryMapping{{Start: "1000", End: "2000", Pages: 1, Present: 1}}}, err
}

func (f *Agent) ScanMemory() (agent.Operation, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return agent.Operation{ID: "o1", Kind: "memory.scan", State: agent.OperationRunning, CreatedAt: f.Began}, f.Err
}

func (f *Agent) CancelMemoryScan() error {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	return f.Err
}
