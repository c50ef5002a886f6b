//go:build linux

package procnetstat

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/influxdata/telegraf"
	"github.com/moby/sys/user"
)

// userNames caches the names of users by user ID.
type userNames struct {
	byID     map[uint32]string
	passwd   string // the passwd file to read; empty: use the lookup of this host (NSS)
	log      telegraf.Logger
	warnOnce sync.Once
}

// newUserNames reads the names from passwd in the directory HOST_ETC, if set: inside a container, HOST_PROC shows processes of
// the host, whose users are not those of the container.
func newUserNames(log telegraf.Logger) *userNames {
	names := &userNames{byID: map[uint32]string{}, log: log}
	if etc := os.Getenv("HOST_ETC"); etc != "" {
		names.passwd = filepath.Join(etc, "passwd")
	}
	return names
}

// of returns the name of a user as a tag value, or the user ID if it has no name.
func (n *userNames) of(uid uint32) string {
	if name, known := n.byID[uid]; known {
		return name
	}
	number := strconv.FormatUint(uint64(uid), 10)
	name, err := n.lookUp(uid)
	if err != nil { // not cached: a later lookup can succeed
		n.warnOnce.Do(func() { n.log.Warnf("Cannot look up user names; reporting user IDs instead: %v", err) })
		return number
	}
	if len(n.byID) == maxUsers {
		clear(n.byID)
	}
	n.byID[uid] = tagValue(cmp.Or(name, number))
	return n.byID[uid]
}

// maxUsers bounds the cached names: root of a container can switch to 65,536 users.
const maxUsers = 4096

// lookUp returns an empty string for a user without a name, and an error only if reading fails.
func (n *userNames) lookUp(uid uint32) (string, error) {
	if n.passwd == "" {
		u, err := osuser.LookupId(strconv.FormatUint(uint64(uid), 10))
		if noUser := osuser.UnknownUserIdError(0); errors.As(err, &noUser) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		return u.Username, nil
	}
	found, err := user.ParsePasswdFileFilter(n.passwd, func(u user.User) bool {
		isUser := u.Name != "" && !strings.ContainsAny(u.Name[:1], "+-#") // see nsswitch.conf(5)
		return isUser && u.Uid == int(uid)
	})
	if err != nil {
		return "", fmt.Errorf("HOST_ETC: %w", err)
	}
	if len(found) == 0 {
		return "", nil
	}
	return found[0].Name, nil
}
