// Command suite runs the tests of this repository; scripts/test builds and
// starts it, `scripts/test --help` lists its options.
//
// Three kinds of work run beside each other, so that both cores are busy:
//
//   - steps on this host, one after the other: style, linter, unit tests (steps.go)
//   - test VMs, each of which takes one test after the other from a queue (vm.go, queue.go)
//   - what needs a VM and this host: the dashboard in Chromium, Prometheus (serve.go)
//
// A kernel test says by its name where it runs (kerneltests.go), and each runs
// in a process of its own. Nothing is tried a second time: a test that fails
// has failed, and the VM it failed in is replaced, so that the next one does
// not suffer for it. A VM that does not boot is the emulator's fault; these are
// counted apart.
package main
