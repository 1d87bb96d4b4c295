package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const sysctls = "/proc/sys/net/"

// setting makes a file below /proc/sys/net hold a value. It does not write what
// is there already, so that a read-only one does no harm.
func setting(file, value string) error {
	b, err := os.ReadFile(sysctls + file)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(b)) == value {
		return nil
	}
	return os.WriteFile(sysctls+file, []byte(value), 0)
}

// hasIPv6 says whether interfaces get IPv6 addresses here.
func hasIPv6() bool {
	for _, file := range []string{"ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"} {
		b, err := os.ReadFile(sysctls + file)
		if err != nil || strings.TrimSpace(string(b)) != "0" {
			return false
		}
	}
	return true
}

// bridgeSettings are made before the bridge is up: it would listen to router
// advertisements from VMs.
func (n *Network) bridgeSettings() error {
	b := n.cfg.Bridge
	settings := map[string]string{
		"ipv4/conf/" + b + "/route_localnet":   "1",
		"ipv4/conf/" + b + "/accept_redirects": "0",
		"ipv4/conf/" + b + "/send_redirects":   "0",
	}
	if n.ipv6 {
		settings["ipv6/conf/"+b+"/accept_ra"] = "0"
		settings["ipv6/conf/"+b+"/accept_dad"] = "0" // for a second or two, no VM could be looked for
		settings["ipv6/conf/"+b+"/accept_redirects"] = "0"
	}
	for file, value := range settings {
		if err := setting(file, value); err != nil {
			return fmt.Errorf("set up %s: %w", b, err)
		}
	}
	return nil
}

// openHost turns forwarding on. Setting it on the bridge alone would not do:
// answers are forwarded by the interface they arrive at.
func (n *Network) openHost(context.Context) error {
	if err := setting("ipv4/ip_forward", "1"); err != nil {
		return fmt.Errorf("forward IPv4: %w", err)
	}
	if !n.ipv6 {
		return nil
	}
	if err := forwardIPv6(); err != nil {
		return fmt.Errorf("forward IPv6: %w", err)
	}
	return nil
}

// forwardIPv6 keeps the host's own routes: with forwarding on, the kernel drops
// default routes that came by router advertisement unless accept_ra is 2.
func forwardIPv6() error {
	const all = "ipv6/conf/all/forwarding"
	if b, err := os.ReadFile(sysctls + all); err == nil && strings.TrimSpace(string(b)) != "0" {
		return nil
	}
	files, err := filepath.Glob(sysctls + "ipv6/conf/*/accept_ra")
	if err != nil {
		return err
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) || strings.TrimSpace(string(b)) != "1" {
			continue // the interface has gone, or takes no advertisements
		}
		if err := os.WriteFile(path, []byte("2"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return setting(all, "1")
}
