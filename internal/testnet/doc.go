// Package testnet gives tests real sockets to look at: network namespaces of their own, sockets in every state the kernel
// knows, processes of a chosen name and user that hold them, and what ss says about all of that.
//
// A test starts with [Isolate], makes a load with [States], [UDP], [Unix], [Overflow] or [Start], and compares what the code
// under test reads with the load's [Socket] values or with the rows of [SS]. Loads end with the test.
//
// The environment tells the processes that this package starts what they are, in variables that begin with TESTNET_.
//
// Namespaces, raw sockets and processes of other users want root (CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SETUID). A
// test that is not allowed them is skipped with the reason, and fails where CI=true: see [SkipOrFail].
//
// Only tests import this package. On other systems than Linux it has no more than Main, SkipOrFail and Require.
package testnet
