package cgroup

import (
	"regexp"
	"strings"
	"testing"
)

func TestDeviceFilter(t *testing.T) {
	plain := regexp.MustCompile(`^cfdev_[a-z2-7]{9}$`)
	names := map[string]string{}
	for name, rules := range map[string][]DeviceRule{
		"none":         nil,
		"minimal":      MinimalDevices(),
		"null":         {{'c', 1, 3, "rw"}},
		"null to read": {{'c', 1, 3, "r"}},
		"any":          {{'b', AnyDevice, AnyDevice, "rwm"}},
		"a disk":       {{'b', 8, 0, "r"}},
		"two":          {{'c', 1, 3, "rw"}, {'c', 1, 5, "rw"}},
	} {
		filter, err := deviceFilter(rules)
		if err != nil || !plain.MatchString(filter.Name) {
			t.Errorf("%s: %v, %v", name, filter, err)
			continue
		}
		if other, taken := names[filter.Name]; taken {
			t.Errorf("%s and %s are both called %s", name, other, filter.Name)
		}
		names[filter.Name] = name
		again, err := deviceFilter(rules)
		if err != nil || again.Name != filter.Name {
			t.Errorf("%s: called %s, then %v, %v", name, filter.Name, again, err)
		}
	}
}

func TestDeviceRuleErrors(t *testing.T) {
	for want, r := range map[string]DeviceRule{
		`type 'a' is neither`:   {'a', 1, 3, "rw"},
		"number -2 is not":      {'c', -2, 3, "rw"},
		"number 1048576 is not": {'c', 1, 1 << 20, "rw"},
		`access "rx" is not`:    {'c', 1, 3, "rx"},
		"no access":             {'c', 1, 3, ""},
	} {
		if _, err := deviceFilter([]DeviceRule{{'c', 1, 3, "rw"}, r}); err == nil || !strings.Contains(err.Error(), "device rule 1: "+want) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}
