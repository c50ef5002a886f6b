#!/bin/sh
# Prepares and checks the Go modules of a release. Both commands work on the last commit.
#
# set    writes the version into go.work and the go.mod files, and the hashes of the modules at that version into the go.sum files.
# check  does the same in a clone, tags the clone, and has the go command fetch the modules from these tags, as the module proxy
#        does. With GOWORK=off and outside the checkout, it builds programs that require them and tests the library.
set -eu
export LC_ALL=C GOWORK=off

fail() {
	echo "$0: $*" >&2
	exit 1
}

usage() {
	echo "$0: $*" >&2
	echo "usage: $0 set|check VERSION" >&2
	exit 2
}

command=${1-} version=${2-}
case "$command" in set | check) ;; *) usage "the command is set or check" ;; esac
[ -n "$version" ] || usage "VERSION is missing, for example VERSION=v1.2.3"
# https://semver.org without build metadata, which Go does not allow in tags.
number='(0|[1-9][0-9]*)'
identifier='(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)'
echo "$version" | grep -qxE "v$number\.$number\.$number(-$identifier(\.$identifier)*)?" ||
	usage "VERSION is not a semantic version such as v1.2.3 or v1.2.3-rc.1: $version"
case $version in v0.* | v1.*) ;; *) usage "$version needs module paths that end in /${version%%.*}" ;; esac

path=github.com/procnetstat/procnetstat
published='internal/testnet netstat .'
tag() { # <directory of a module>
	if [ "$1" = . ]; then echo "$version"; else echo "$1/$version"; fi
}

checkout=$(git rev-parse --show-toplevel)
[ -z "$(git -C "$checkout" status --porcelain --untracked-files=no)" ] || fail "commit the changes first"
for module in $published; do
	tagged=$(git -C "$checkout" rev-parse --quiet --verify "refs/tags/$(tag "$module")^{commit}") || continue
	[ "$tagged" = "$(git -C "$checkout" rev-parse HEAD)" ] || fail "the tag $(tag "$module") exists, on another commit"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
candidate=$work/candidate
git clone --quiet --no-tags "$checkout" "$candidate"
cd "$candidate"
base=$(git rev-parse HEAD)
git config user.name release
git config user.email release@localhost
git config commit.gpgSign false

# The go command fetches the modules of this repository from the clone, and all others from the module cache or the proxy. Its own
# module cache is temporary: the user's would keep the candidate, and reject the release if that differs.
GOPROXY=file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)
GOFLAGS="$(go env GOFLAGS) -trimpath -modcacherw"
export GOPROXY GOFLAGS GOPRIVATE='' GONOPROXY=$path GONOSUMDB=$path
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.$candidate.insteadOf" GIT_CONFIG_VALUE_0="https://$path"

commit() {
	git -C "$candidate" commit --quiet --allow-empty --all --message "Release $version"
}

# hash adds the hashes of the modules that a module requires to its go.sum. Its own hash depends on that go.sum, so this goes from
# the module that requires none to those that require all.
hash() { # <directory of the module> <path of a required module>...
	cd "$candidate/$1"
	shift
	sed -i "\,^$path[ /],d" go.sum
	for required; do
		set -- "$@" "$required@$version"
		shift
	done
	go get "$@"
	commit
}

export GOMODCACHE="$work/cache-set"
sed -i -E "s,($path[^ ]*) v[^ ]+,\1 $version," go.work go.mod netstat/go.mod bench/go.mod
commit
git tag "$(tag internal/testnet)"
hash netstat $path/internal/testnet
git tag "$(tag netstat)"
hash . $path/internal/testnet $path/netstat
git tag "$(tag .)"
hash bench $path/internal/testnet $path/netstat $path
cd "$candidate"

changed=$(git diff --name-only "$base")
if [ "$command" = set ]; then
	for file in $changed; do cp "$file" "$checkout/$file"; done
	exit
fi
if [ -n "$changed" ] && git grep -q "$path $version " "$base" -- go.work; then
	fail "these files do not have the hashes of $version, run $0 set $version:" $changed
fi

for module in $published; do git tag --force "$(tag "$module")" >/dev/null; done
export GOMODCACHE="$work/cache-check" GOBIN="$work/bin"

program() { # <directory below testdata> <package that it imports>
	echo "--- A program that imports $2"
	mkdir "$work/$1"
	cd "$work/$1"
	cp "$candidate/packaging/testdata/$1/main.go" .
	go mod init example.com/program
	go get "$2@$version"
	go mod tidy
	go vet .
	go build -o program .
	./program
}

program library $path/netstat
go list -m all >modules
echo "$(wc -l <modules) modules in all"
if grep influxdata modules; then fail "the library requires modules of Telegraf"; fi

echo "--- The tests of the library"
cp -R "$(go list -m -f '{{.Dir}}' $path/netstat)" "$work/netstat"
cd "$work/netstat"
go vet ./...
go test -short ./...

echo "--- go install $path/cmd/procnetstat@$version"
cd "$work"
go install "$path/cmd/procnetstat@$version"
"$GOBIN/procnetstat" -version | grep -x "procnetstat $version"

program plugin $path/plugins/inputs/procnetstat
echo "--- $version is ready to be tagged"
