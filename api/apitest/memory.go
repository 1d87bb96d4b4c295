package apitest

import (
	"context"
	"time"

	"cloudflash/agent"
	"cloudflash/agent/fault"
	"cloudflash/agent/pages"
)

// MemoryPicture is what the agent draws, whatever part is asked for.
func (f *Agent) MemoryPicture() pages.MemoryMap {
	return pages.MemoryMap{At: f.Began, PageSize: 4096, From: 512, Span: 1024, PagesPerCell: 512, Cells: []pages.MemoryCell{
		{First: 512, Free: 100, Used: 412, Fragmented: 100, Unmovable: 7, LargestFreeRun: 64, Owned: 400, AgeSeconds: 1.5,
			Owners: []pages.MemoryShare{{Owner: "v0", Pages: 400}, {Owner: "host", Pages: 12}}},
		{First: 1024, Absent: 512, Node: -1, Owners: []pages.MemoryShare{}}}}
}

// Memory has one VM's pages.
type Memory struct{ agent *Agent }

func (f Memory) Look() (pages.Memory, error) {
	f.agent.Mu.Lock()
	defer f.agent.Mu.Unlock()
	return pages.Memory{At: f.agent.Began, PageSize: 4096, TotalPages: 1536, Scan: pages.MemoryScan{State: "idle"}}, f.agent.Err
}

func (f Memory) Map(from, span int64, cells int, owner string) (pages.MemoryMap, error) {
	f.agent.Mu.Lock()
	defer f.agent.Mu.Unlock()
	if f.agent.Err == nil && (cells < 1 || cells > 4096 || from < 0 || span < 0) {
		return pages.MemoryMap{}, &fault.Error{Kind: fault.ErrInvalid, Code: "out_of_range", Detail: "cells must be 1 to 4096",
			Fields: []fault.Field{{Pointer: "?cells", Detail: "must be 1 to 4096", Min: 1, Max: 4096}}}
	}
	m := f.agent.MemoryPicture()
	m.Owner = owner
	return m, f.agent.Err
}

func (f Memory) Owners() ([]pages.MemoryOwner, time.Time, error) {
	f.agent.Mu.Lock()
	defer f.agent.Mu.Unlock()
	return []pages.MemoryOwner{{Owner: "v0", Name: "db", Pages: 400, Runs: []pages.MemoryRun{}}}, f.agent.Began, f.agent.Err
}

func (f Memory) Processes(ref string) ([]pages.MemoryProcess, error) {
	_, err := f.agent.VM(ref)
	return []pages.MemoryProcess{{PID: 42, Name: "burn", Scope: "c1"}}, err
}

func (f Memory) Mappings(ctx context.Context, ref string, pid int) (pages.MemoryProcess, error) {
	if f.agent.OnLook != nil {
		f.agent.OnLook(ctx)
	}
	_, err := f.agent.VM(ref)
	return pages.MemoryProcess{PID: pid, Mappings: []pages.MemoryMapping{{Start: "1000", End: "2000", Pages: 1, Present: 1}}}, err
}

func (f Memory) Scan() (agent.Operation, error) {
	f.agent.Mu.Lock()
	defer f.agent.Mu.Unlock()
	return agent.Operation{ID: "o1", Kind: "memory.scan", State: agent.OperationRunning, CreatedAt: f.agent.Began}, f.agent.Err
}

func (f Memory) CancelScan() error {
	f.agent.Mu.Lock()
	defer f.agent.Mu.Unlock()
	return f.agent.Err
}
