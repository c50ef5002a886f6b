// Command bench measures what it costs to read the socket tables of a host with many connections: with procnetstat, with
// what there is beside it, and with bare system calls, which are the floor.
//
// It makes the connections itself, between processes of its own in a network namespace of its own, and lets each subject
// gather several times, in turns. The README says what the rows are, and how fairness is kept.
package main
