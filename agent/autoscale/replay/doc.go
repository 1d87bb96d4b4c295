// Package replay runs traces of demand through autoscaling policies, offline and
// always the same way, and measures what each leaves unused and what it withholds.
//
// A policy sees what a live controller sees: use, which is never above the limit,
// and, where it looks at them, throttled periods and stalls as the kernel counts
// them. Only the oracle knows the demand.
//
// Traces are files of others and no part of this repository; without them the
// synthetic ones remain.
package replay
