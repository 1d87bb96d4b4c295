// Package gpu finds the GPUs of this host, says what a process needs to use
// one, chooses free ones, and measures their use. It gives nothing to anybody:
// device nodes, device filter and records belong to the caller.
//
// What a VM gets is a Unit: a whole GPU, or one MIG instance where an NVIDIA GPU
// is cut into them. A unit belongs to one VM at a time; cgroups know no share of
// a GPU and no limit of its memory.
//
// Discovery needs no library. NVIDIA's driver tells of GPUs and instances in
// /proc/driver/nvidia and of its device numbers in /proc/devices; AMD and Intel
// have render nodes in /sys/class/drm. The use of AMD and Intel GPUs comes from
// /proc/PID/fdinfo. Only NVIDIA's memory sizes and use need NVML, which needs
// cgo: build with CGO_ENABLED=1 and the tag nvml. It is opened by dlopen when an
// NVIDIA driver is there, so that such a binary runs on hosts without one too.
// Without the tag these GPUs are found and given, and their use is unknown. The
// binding relies on lazy binding of symbols: under LD_BIND_NOW, or linked with
// -z now, the binary does not start where there is no driver.
//
// NVML without cgo (purego) was weighed and left: the binary it makes is linked
// to libc, libdl and libpthread through the loader (purego 0.11.3, linux/amd64),
// so nothing static is kept, and calls into C run on the runtime's imitation of
// cgo.
//
// A whole GPU and its instances have the same ID in both builds, and after a
// reboot: records keep it.
//
// https://docs.nvidia.com/datacenter/tesla/mig-user-guide/ (device nodes)
// https://docs.kernel.org/gpu/drm-usage-stats.html
package gpu
