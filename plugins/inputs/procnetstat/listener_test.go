//go:build linux

package procnetstat

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A series that sums up others has the accept queue fields that any of them has.
func TestMergedAcceptQueues(t *testing.T) {
	for _, queue := range []acceptQueue{
		{}, {waiting: 1}, {limit: 2}, {hasLimit: true}, {hasDrops: true}, {waiting: 3, limit: 4, hasLimit: true, hasDrops: true},
	} {
		var sum acceptQueue
		sum.merge(&queue)
		require.Equal(t, queue, sum)
		sum.merge(&acceptQueue{})
		require.Equal(t, queue, sum)
		sum.merge(&queue)
		require.Equal(t, acceptQueue{2 * queue.waiting, 2 * queue.limit, queue.hasLimit, queue.hasDrops}, sum)
	}
}
