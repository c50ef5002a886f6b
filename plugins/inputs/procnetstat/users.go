//go:build linux

package procnetstat

import (
	"errors"
	"fmt"
	"os"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/influxdata/telegraf"
	"github.com/moby/sys/user"
)

// userNames are the names of users, by their ids. What could be looked up once is kept.
type userNames struct {
	known  map[uint32]string
	passwd string // the file to look into; empty: whatever this host looks into
	log    telegraf.Logger
	failed bool // it has been said that the file cannot be read
}

// newUserNames takes the names from passwd(5) in the directory that HOST_ETC names: the users of a container are others than those
// of the host, whose processes HOST_PROC shows.
func newUserNames(log telegraf.Logger) *userNames {
	names := &userNames{known: map[uint32]string{}, log: log}
	if etc := os.Getenv("HOST_ETC"); etc != "" {
		names.passwd = filepath.Join(etc, "passwd")
	}
	return names
}

// of returns the name of a user as a tag value, or the number of one that has no name.
func (n *userNames) of(uid uint32) string {
	if name, known := n.known[uid]; known {
		return name
	}
	name, err := n.lookUp(uid)
	if err != nil { // it can be another time
		n.warn(err)
		return strconv.FormatUint(uint64(uid), 10)
	}
	name = tagValue(name)
	n.known[uid] = name
	return name
}

func (n *userNames) warn(err error) {
	if !n.failed {
		n.failed = true
		n.log.Warnf("users are shown by their numbers: %v", err)
	}
}

// lookUp returns the number of a user that has no name; an error is one of reading.
func (n *userNames) lookUp(uid uint32) (string, error) {
	number := strconv.FormatUint(uint64(uid), 10)
	if n.passwd == "" {
		u, err := osuser.LookupId(number)
		if err == nil {
			return u.Username, nil
		}
		if unknown := osuser.UnknownUserIdError(0); errors.As(err, &unknown) {
			err = nil
		}
		return number, err
	}
	found, err := user.ParsePasswdFileFilter(n.passwd, func(u user.User) bool {
		isUser := u.Name != "" && !strings.ContainsAny(u.Name[:1], "+-#") // see nsswitch.conf(5)
		return isUser && u.Uid == int(uid)
	})
	if err != nil {
		return "", fmt.Errorf("HOST_ETC: %w", err)
	}
	if len(found) == 0 {
		return number, nil
	}
	return found[0].Name, nil
}
