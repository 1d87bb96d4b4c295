// Package meter reads what the host, every VM and every cloudlet use, and
// remembers it for a day.
//
// There is one sampler and many readers: Pass reads everything that is due, once
// a second, from one goroutine; what it found is handed out by value. Files stay
// open and are parsed in place, so that a sample allocates nothing.
//
// Rates: the CPU time, memory in use, events, processes, pressure and traffic of
// a VM are read every second; memory.stat, memory.swap.current and io.stat,
// which cost the kernel more, every five. A VM that has stood still for three
// seconds is asked for its CPU time alone (its pulse), which tells at once when
// it moves again, and for the rest every ten. Which second that is differs from
// VM to VM. Look reads what cannot wait for the next second.
//
// History has three tiers: one second for five minutes, ten for an hour, two
// minutes for a day; the two coarser ones keep mean, least and most. A value
// takes 16 bits, exact to 0.05 %, and what has been filled is packed. Seconds
// without a sample are gaps and stay gaps.
//
// A clock set back by a minute or less takes the history after the new time with
// it. One set back further is believed after two minutes, in which nothing is
// recorded, and one before 2025 never: a board without a battery for its clock
// begins in 1970 and keeps what it remembers until a time server has answered.
//
// https://docs.kernel.org/admin-guide/cgroup-v2.html,
// https://docs.kernel.org/accounting/psi.html
package meter
