package cgroup

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// A DeviceRule lets the processes of a slice use device nodes.
type DeviceRule struct {
	Type         byte   // 'b' or 'c'
	Major, Minor int64  // AnyDevice is every number
	Access       string // of r, w and m: read, write, make nodes
}

// AnyDevice as a major or minor number is every number.
const AnyDevice = -1

// MinimalDevices are those that programs take for granted and that reach
// nobody else: Documentation/admin-guide/devices.txt of the kernel.
func MinimalDevices() []DeviceRule {
	return []DeviceRule{
		{'c', 1, 3, "rw"},           // null
		{'c', 1, 5, "rw"},           // zero
		{'c', 1, 7, "rw"},           // full
		{'c', 1, 8, "rw"},           // random
		{'c', 1, 9, "rw"},           // urandom
		{'c', 5, 0, "rw"},           // tty
		{'c', 5, 2, "rw"},           // ptmx
		{'c', 136, AnyDevice, "rw"}, // pts/*
	}
}

// devicePrefix begins the names of our programs. What follows tells which rules
// they hold; a name has 15 bytes at most.
const devicePrefix = "cfdev_"

// SetDevices lets the processes of the slice use the devices of the rules and no
// others, from the next open on. What several rules allow adds up. The change is
// atomic: at no moment do both sets hold, or neither. It stays when this process
// ends, until the slice is removed, and is idempotent. Two calls for one slice must not
// overlap. An UnsupportedError says that the kernel has no device filter.
//
// A filter is a BPF program attached to the cgroup:
// https://docs.kernel.org/admin-guide/cgroup-v2.html#device-controller
func (s *Slice) SetDevices(rules []DeviceRule) error {
	filter, err := deviceFilter(rules)
	if err != nil {
		return err
	}
	dir, old, err := s.devicePrograms()
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	defer old.close()
	if len(old) == 1 && old[0].name == filter.Name {
		return nil
	}
	program, err := ebpf.NewProgram(filter)
	if err != nil {
		return fmt.Errorf("load device filter of %s: %w", s.path, unsupportedBPF(err))
	}
	defer func() { _ = program.Close() }()
	attach := link.RawAttachProgramOptions{Target: dir, Program: program, Attach: ebpf.AttachCGroupDevice, Flags: unix.BPF_F_ALLOW_MULTI}
	if len(old) > 0 {
		attach.Anchor = link.ReplaceProgram(old[0].program)
		old[0].name = ""
	}
	if err := link.RawAttachProgram(attach); err != nil {
		return fmt.Errorf("attach device filter to %s: %w", s.path, unsupportedBPF(err))
	}
	return old.detach(dir)
}

// Devices is how many of our filters the slice has: one, or none before
// SetDevices.
func (s *Slice) Devices() (int, error) {
	dir, programs, err := s.devicePrograms()
	if err != nil {
		return 0, err
	}
	defer unix.Close(dir)
	defer programs.close()
	return len(programs), nil
}

type attachedProgram struct {
	name    string
	program *ebpf.Program
}

type attachedPrograms []attachedProgram

func (all attachedPrograms) close() {
	for _, p := range all {
		_ = p.program.Close()
	}
}

// detach removes those that still have a name.
func (all attachedPrograms) detach(dir int) error {
	var errs []error
	for _, p := range all {
		if p.name != "" {
			errs = append(errs, link.RawDetachProgram(link.RawDetachProgramOptions{Target: dir, Program: p.program, Attach: ebpf.AttachCGroupDevice}))
		}
	}
	return errors.Join(errs...)
}

// devicePrograms opens the slice and our programs attached to it. Those of
// others, such as systemd's, are left alone.
func (s *Slice) devicePrograms() (int, attachedPrograms, error) {
	dir, err := openRetry(s.path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return -1, nil, goneOr(fmt.Errorf("open %s: %w", s.path, err))
	}
	found, err := link.QueryPrograms(link.QueryOptions{Target: dir, Attach: ebpf.AttachCGroupDevice})
	var ours attachedPrograms
	for i := 0; err == nil && i < len(found.Programs); i++ {
		ours, err = ours.add(found.Programs[i].ID)
	}
	if err != nil {
		ours.close()
		_ = unix.Close(dir)
		return -1, nil, fmt.Errorf("query device filters of %s: %w", s.path, unsupportedBPF(err))
	}
	return dir, ours, nil
}

func (all attachedPrograms) add(id ebpf.ProgramID) (attachedPrograms, error) {
	program, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, unix.ENOENT) {
		return all, nil // detached by its owner just now
	}
	if err != nil {
		return all, err
	}
	info, err := program.Info()
	if err == nil && strings.HasPrefix(info.Name, devicePrefix) {
		return append(all, attachedProgram{info.Name, program}), nil
	}
	return all, errors.Join(err, program.Close())
}

// Numbers of linux/bpf.h: BPF_DEVCG_*.
const (
	deviceMknod = 1 << iota
	deviceRead
	deviceWrite
	deviceUnknown // ours: no rule has spoken of this device
)

// deviceFilter is a program that strikes out what each matching rule allows, and
// says yes when nothing is left of what was asked for.
func deviceFilter(rules []DeviceRule) (*ebpf.ProgramSpec, error) {
	code := asm.Instructions{
		// struct bpf_cgroup_dev_ctx: access << 16 | type, major, minor.
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R4, asm.R1, 4, asm.Word),
		asm.LoadMem(asm.R5, asm.R1, 8, asm.Word),
		asm.Mov.Reg(asm.R3, asm.R2),
		asm.RSh.Imm(asm.R3, 16),
		asm.Or.Imm(asm.R3, deviceUnknown),
		asm.And.Imm(asm.R2, 0xffff),
	}
	hash := sha256.New()
	for i, r := range rules {
		lines, err := r.match(fmt.Sprintf("rule%d", i+1))
		if err != nil {
			return nil, fmt.Errorf("device rule %d: %w", i, err)
		}
		if i > 0 {
			lines[0] = lines[0].WithSymbol(fmt.Sprintf("rule%d", i))
		}
		code = append(code, lines...)
		fmt.Fprintf(hash, "%c %d:%d %d\n", r.Type, r.Major, r.Minor, lines[len(lines)-1].Constant)
	}
	end := asm.Mov.Imm(asm.R0, 0)
	if len(rules) > 0 {
		end = end.WithSymbol(fmt.Sprintf("rule%d", len(rules)))
	}
	code = append(code, end, asm.JNE.Imm(asm.R3, 0, "exit"), asm.Mov.Imm(asm.R0, 1), asm.Return().WithSymbol("exit"))
	name := devicePrefix + strings.ToLower(base32.StdEncoding.EncodeToString(hash.Sum(nil)))[:15-len(devicePrefix)]
	return &ebpf.ProgramSpec{Name: name, Type: ebpf.CGroupDevice, AttachType: ebpf.AttachCGroupDevice, Instructions: code, License: "MIT"}, nil
}

// match is the code of one rule; what comes after it is called next.
func (r DeviceRule) match(next string) (asm.Instructions, error) {
	types := map[byte]int32{'b': unix.BPF_DEVCG_DEV_BLOCK, 'c': unix.BPF_DEVCG_DEV_CHAR}
	kind, ok := types[r.Type]
	if !ok {
		return nil, fmt.Errorf("type %q is neither b nor c", r.Type)
	}
	code := asm.Instructions{asm.JNE.Imm(asm.R2, kind, next)}
	for _, n := range []struct {
		in     asm.Register
		number int64
	}{{asm.R4, r.Major}, {asm.R5, r.Minor}} {
		if n.number < AnyDevice || n.number > 1<<20-1 { // MINORBITS of linux/kdev_t.h
			return nil, fmt.Errorf("number %d is not one of a device", n.number)
		}
		if n.number != AnyDevice {
			code = append(code, asm.JNE.Imm(n.in, int32(n.number), next))
		}
	}
	mask := int32(deviceUnknown)
	for _, a := range r.Access {
		switch a {
		case 'r':
			mask |= deviceRead
		case 'w':
			mask |= deviceWrite
		case 'm':
			mask |= deviceMknod
		default:
			return nil, fmt.Errorf("access %q is not made of r, w and m", r.Access)
		}
	}
	if mask == deviceUnknown {
		return nil, errors.New("no access")
	}
	return append(code, asm.And.Imm(asm.R3, ^mask)), nil
}

func unsupportedBPF(err error) error {
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.ENOSYS) {
		return &UnsupportedError{Feature: "the device filter", Needs: needsDevices}
	}
	return err
}
