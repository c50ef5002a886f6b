package main

import "slices"

var subjects = slices.Concat(floors, ours, peers)

func findSubject(name string) *subject {
	i := slices.IndexFunc(subjects, func(s subject) bool { return s.name == name })
	if i < 0 {
		return nil
	}
	return &subjects[i]
}
