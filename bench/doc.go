// Command bench measures the cost of reading the socket tables of a host with many connections: with procnetstat, with
// other programs and libraries, and with bare system calls, which are the floor.
//
// It opens the connections between its own processes, in a separate network namespace. The subjects gather several
// times, in turns. The README explains the rows and the method.
package main
