package cloudlet

import (
	"maps"
	"slices"
	"strconv"

	"cloudflash/agent/state"
)

// Weight is the cpu.weight of a cloudlet among those of its VM.
func Weight(sla int) int64 {
	return []int64{state.SLALow: 50, state.SLAMedium: 100, state.SLAHigh: 200}[sla]
}

// Argv is the command, or the built-in burn at the size of the request.
func Argv(r *state.Cloudlet) []string {
	if len(r.Argv) > 0 {
		return r.Argv
	}
	return []string{"burn",
		"--cpus", strconv.FormatFloat(r.Request.CPUs, 'f', -1, 64),
		"--memory", strconv.FormatInt(r.Request.MemoryBytes*3/4, 10), // the rest is its own overhead
		"--seconds", strconv.FormatFloat(r.Duration, 'f', -1, 64)}
}

// Environ is what the cloudlet gets: nothing of the host's.
func Environ(r *state.Cloudlet) []string {
	env := map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/cloudflash/bin",
		"HOME": "/data", "USER": "root", "LANG": "C.UTF-8",
		"CLOUDFLASH_CLOUDLET": r.ID, "CLOUDFLASH_VM": r.VM,
	}
	maps.Copy(env, r.Env)
	var out []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}
