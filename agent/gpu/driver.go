package gpu

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// driverLibraries are what CUDA, OpenCL, NVML and the video engines load. They
// must be of the kernel module's very version. Nothing here draws on a screen.
var driverLibraries = regexp.MustCompile(`^lib(cuda|cudadebugger|nvcuvid|nvidia-(ml|ptxjitcompiler|nvvm|nvvm70|gpucomp|cfg|opencl|allocator|encode|opticalflow|pkcs11|pkcs11-openssl3|tileiras))\.so(\.[0-9.]+)?$`)

// libraryDirs lists where distributions and NVIDIA's installer put the driver,
// beside the directories that the linker's cache names.
func libraryDirs() []string {
	return []string{
		"/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib",
		"/usr/lib/x86_64-linux-gnu/nvidia/current", "/usr/lib/aarch64-linux-gnu/nvidia/current",
		"/usr/local/nvidia/lib64",
	}
}

// driverFiles are the host's paths of the driver's libraries, under every name
// that programs load them by, and of nvidia-smi. Links lead to files of the same
// version, or are left out: an old libcuda.so.1 beside a new module only fails.
func (h host) driverFiles(version string) []string {
	if version == "" {
		return nil
	}
	dirs := append(h.cachedDirs(), libraryDirs()...)
	slices.Sort(dirs)
	var files []string
	for _, dir := range slices.Compact(dirs) {
		names, _ := h.names(dir) // most of them are not there
		for _, name := range names {
			path := filepath.Join(dir, name)
			if driverLibraries.MatchString(name) && h.isVersion(path, version) {
				files = append(files, path)
			}
		}
	}
	if len(files) == 0 {
		return nil
	}
	for _, program := range []string{"/usr/bin/nvidia-smi", "/usr/local/nvidia/bin/nvidia-smi"} {
		if h.exists(program) {
			return append(files, program)
		}
	}
	return files
}

// cachedDirs are the directories in which the linker finds NVIDIA's libraries.
func (h host) cachedDirs() []string {
	b, err := os.ReadFile(h.path("/etc/ld.so.cache"))
	if err != nil {
		return nil
	}
	libs, err := parseLinkerCache(b)
	if err != nil {
		return nil // the usual directories are left
	}
	var dirs []string
	for _, l := range libs {
		if l.native() && driverLibraries.MatchString(l.name) && filepath.IsAbs(l.path) {
			dirs = append(dirs, filepath.Dir(filepath.Clean(l.path)))
		}
	}
	return dirs
}

// isVersion reports whether a path leads to a file whose name ends in version.
func (h host) isVersion(path, version string) bool {
	real, err := filepath.EvalSymlinks(h.path(path))
	return err == nil && strings.HasSuffix(real, ".so."+version)
}
