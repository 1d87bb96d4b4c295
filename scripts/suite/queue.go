package main

import (
	"sync"
)

// unknown is how long a test is thought to take that has not run here yet.
const unknown = 10.0

// A queue hands jobs to VMs, those first that take longest.
type queue struct {
	times times

	mu   sync.Mutex
	jobs []job
	vms  map[string]int // running, by kernel
}

func newQueue(jobs []job, t times) *queue {
	return &queue{
		times: t,
		jobs:  jobs,
		vms:   map[string]int{},
	}
}

func (q *queue) cost(j job) float64 {
	if seconds := q.times[j.title()]; seconds > 0 {
		return seconds
	}
	if j.serve != nil {
		return 10 * unknown
	}
	return unknown
}

// open says which kernel the next VM should have: the one with most left to do
// for each VM. It returns false when nothing is left.
func (q *queue) open() (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	left := map[string]float64{}
	for _, j := range q.jobs {
		left[j.kernel] += q.cost(j)
	}

	best, most := "", 0.0
	for kernel, seconds := range left {
		if kernel == native && q.vms[kernel] > 0 {
			continue // there is one such machine
		}
		seconds /= float64(q.vms[kernel] + 1)
		if seconds > most || seconds == most && kernel > best {
			best, most = kernel, seconds
		}
	}
	if best == "" {
		return "", false
	}
	q.vms[best]++
	return best, true
}

// close says that a VM has ended.
func (q *queue) close(kernel string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.vms[kernel]--
}

// next takes the longest job for a VM. Jobs that want a fresh VM come first in
// one, and no other VM gets them.
func (q *queue) next(kernel string, fresh bool) (job, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	best := -1
	for i, j := range q.jobs {
		switch {
		case j.kernel != kernel || j.fresh && !fresh:
			continue
		case best < 0, j.fresh && !q.jobs[best].fresh:
			best = i
		case j.fresh == q.jobs[best].fresh && q.cost(j) > q.cost(q.jobs[best]):
			best = i
		}
	}
	if best < 0 {
		return job{}, false
	}
	j := q.jobs[best]
	q.jobs = append(q.jobs[:best], q.jobs[best+1:]...)
	return j, true
}

// rest takes all that is left for a kernel.
func (q *queue) rest(kernel string) []job {
	q.mu.Lock()
	defer q.mu.Unlock()
	var rest, others []job
	for _, j := range q.jobs {
		if j.kernel == kernel {
			rest = append(rest, j)
		} else {
			others = append(others, j)
		}
	}
	q.jobs = others
	return rest
}
