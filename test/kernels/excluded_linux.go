package main

// excluded are the tests that do not run in the guest, and why.
var excluded = []struct{ test, reason string }{}
