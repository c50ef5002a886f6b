// Package testnet creates real sockets for tests: isolated network namespaces, sockets in every state of the kernel, processes
// with a chosen name and user that hold sockets, and the output of ss as a reference.
//
// A test calls [Isolate], creates a load with [States], [UDP], [Unix], [Overflow] or [Start], and compares the result of the
// code under test with the load's [Socket] values or with the rows of [SS]. Loads end with the test. [Proc.Attempt] makes attempts to connect;
// [StartRouter] and [RejectPort] make them fail or take long.
//
// The package configures the processes that it starts through environment variables that begin with TESTNET_.
//
// Namespaces, raw sockets and processes of other users need root (CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SETUID).
// Without these privileges a test is skipped with the reason; with CI=true it fails: see [SkipOrFail].
//
// Only tests import this package. On other systems than Linux it has only Main, Require, SkipIfShort, SkipOrFail and SkipUnlessSlow.
package testnet
