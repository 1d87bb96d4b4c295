package agent

import "testing"

func TestPublishedAddresses(t *testing.T) {
	for ip, ok := range map[string]bool{
		"": true, "127.0.0.1": true, "192.0.2.1": true, "2001:db8::1": true,
		"0.0.0.0": false, "::": false, "::1": false, "0:0:0:0:0:0:0:1": false, "224.0.0.1": false, "ff02::1": false, "255.255.255.255": false,
		"1.2.3": false, "fe80::1%eth0": false, "::ffff:1.2.3.4": false,
	} {
		n := Network{Mode: NetworkNAT, Publish: []Port{{HostIP: ip, HostPort: 80, GuestPort: 80, Protocol: "tcp"}}}
		if err := n.check(); (err == nil) != ok {
			t.Errorf("%q: %v", ip, err)
		}
	}
	twice := Network{Mode: NetworkNAT, Publish: []Port{{HostIP: "2001:db8::1", HostPort: 80, GuestPort: 80, Protocol: "tcp"},
		{HostIP: "2001:db8:0::1", HostPort: 80, GuestPort: 81, Protocol: "tcp"}}}
	if twice.check() == nil {
		t.Error("one address in two spellings is accepted")
	}
}
