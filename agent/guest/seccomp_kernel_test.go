package guest_test

import (
	"strings"
	"testing"
)

// snake has children by fork and by posix_spawn, and threads.
const snake = `import os, time, _thread
p = os.fork() or os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]))
print(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1])
x = []
for i in range(8): _thread.start_new_thread(x.append, (i,))
while len(x) < 8: time.sleep(0.01)
print(len(x))`

// Programs as they come from a distribution work under the filter.
func TestKernelSeccompLetsProgramsRun(t *testing.T) {
	v := newVM(t, nil)
	for name, c := range map[string]struct{ script, want string }{
		"shell and pipes": {"seq 1 1000 | sort -rn | head -1", "1000"},
		"tar and xz":      {"mkdir -p d/e; seq 1 5000 >d/e/f; XZ_OPT=-0 tar -cJf a.tar.xz d && rm -r d && tar -xJf a.tar.xz && wc -l <d/e/f", "5000"},
		"threads of xz":   {"head -c 300000 /dev/urandom >r; xz -0 -T2 -k -f r && xz -dc r.xz | cmp - r && echo same", "same"},
		"gzip":            {"seq 1 100 | gzip | gzip -dc | tail -1", "100"},
		"find and grep":   {"find /usr/bin/tar /usr/bin/touch -name tar -exec grep -l ELF {} +", "/usr/bin/tar"},
		"awk and jq":      {`echo '{"a":[1,2]}' | jq '.a|add' | awk '{print $1*2}'`, "6"},
		"python":          {"python3 -c '" + snake + "'", "3\n0\n8"},
		"a Go program":    {"burn --cpus 0.1 --memory 8MiB --seconds 0.3 | cut -c1-10", `{"seconds"`},
		"a connection":    {"(echo hello | nc -N -l 127.0.0.1 4444 &); until nc -d 127.0.0.1 4444; do sleep 0.1; done", "hello"},
		"a unix socket":   {"(echo hello | socat - UNIX-LISTEN:s &); until socat -u UNIX-CONNECT:s - 2>&-; do sleep 0.1; done", "hello"},
		"a terminal":      {"socat -u EXEC:'echo on a terminal',pty,stderr - | tr -d '\\r'", "on a terminal"},
		"curl":            {"echo body >w; curl -s file:///data/w; curl -s http://127.0.0.1:1/; echo $?", "body\n7"},
		"ip":              {"ip -o -4 addr show lo | awk '{print $4}'", "127.0.0.1/8"},
		"ss": {"nc -l 127.0.0.1 4445 & until ss -ltnH 2>/dev/null | grep -q 127.0.0.1:4445; do sleep 0.1; done; kill $!; echo listens",
			"listens"},
		"names":            {"getent hosts localhost | awk '{print $2}'", "localhost"},
		"ps":               {"ps -o comm= -p 1", "cloudflash-init"},
		"a fifo":           {"mkfifo p; (echo through >p &); cat p", "through"},
		"links and modes":  {"echo x >l1; ln l1 l2; ln -s l1 l3; chmod 600 l3; chown 7:8 l1; cp -a l1 l4; stat -c '%a %u %g %h' l4 l2 | tr '\\n' ' '", "600 7 8 1 600 7 8 2 "},
		"locks":            {"flock lock echo locked", "locked"},
		"users":            {"setpriv --reuid 1000 --regid 1000 --clear-groups id -u", "1000"},
		"chroot":           {"chroot / id -u", "0"},
		"nice and ionice":  {"nice -n 5 ionice -c 3 nice", "5"},
		"timeout":          {"timeout 0.2 sleep 5; echo $?", "124"},
		"sqlite-like sync": {"dd if=/dev/zero of=z bs=4k count=4 conv=fsync 2>/dev/null && fallocate -l 1M z2 && stat -c %s z2", "1048576"},
	} {
		out, e := v.run("cd $(mktemp -d /data/XXXXXX); " + strings.ReplaceAll(c.script, "/data/w", "$PWD/w"))
		if strings.TrimSuffix(out, "\n") != c.want {
			t.Errorf("%s: %q, want %q (%+v)", name, out, c.want, e)
		}
	}
}
