#!/bin/sh
# Builds the files of a release: "packages" builds the .deb and .rpm of the program for inputs.execd, "release" also tarballs and
# checksums. Builds are reproducible: the same commit gives the same bytes.
#
# The Makefile sets GO, NFPM, LDFLAGS, DIST and ARCHES. PACKAGE_VERSION overrides the version from git.
set -eu
umask 022
export TZ=UTC LC_ALL=C CGO_ENABLED=0

case "${1-}" in packages | release) ;; *)
	echo "usage: $0 packages|release" >&2
	exit 2
	;;
esac
if ! commit_time=$(git log -1 --format=%ct); then
	echo "$0: no git commit; the version and the timestamps of a release come from it" >&2
	exit 1
fi
export SOURCE_DATE_EPOCH="$commit_time"

if [ -z "${PACKAGE_VERSION-}" ]; then
	# v1.2.3 becomes 1.2.3; v1.2.3-rc.1 becomes 1.2.3~rc.1, which sorts before 1.2.3; four commits after v1.2.3 it is
	# 1.2.3+4.g0123abc. Before the first tag it begins with 0.
	described=$(git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null) ||
		described=v0~git$(git log -1 --date=format:%Y%m%d --format=%cd.%h --abbrev=7)
	PACKAGE_VERSION=$(echo "$described" | sed -E 's/^v//; s/-dirty$/+dirty/; s/-([0-9]+)-g([0-9a-f]+)/+\1.g\2/; s/-/~/g')
fi
export PACKAGE_VERSION

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$DIST"

build() { # <arch> <command>
	GOOS=linux GOARCH=$1 $GO build -trimpath -buildvcs=false -ldflags "$LDFLAGS" -o "$stage/$1/$2" "./cmd/$2"
}

# notices prints the licences of a program and of all modules in it.
notices() { # <arch> <command>
	echo "This program is under the licence of procnetstat:"
	echo
	cat LICENSE
	printf '\n\nIt contains parts under the licences below: the Go standard library'
	GOOS=linux GOARCH=$1 $GO list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' "./cmd/$2" |
		sort -u >"$stage/modules"
	while read -r path version _; do printf ',\n%s %s' "$path" "$version"; done <"$stage/modules"
	printf '\n\n--- Go standard library\n\n'
	cat "$($GO env GOROOT)/LICENSE"
	while read -r path version dir; do
		found=
		for file in "$dir"/LICEN[CS]E* "$dir"/COPYING* "$dir"/NOTICE*; do
			[ -f "$file" ] || continue
			found=yes
			printf '\n\n--- %s %s, %s\n\n' "$path" "$version" "${file##*/}"
			cat "$file"
		done
		if [ -z "$found" ]; then
			echo "$0: $path has no licence" >&2
			exit 1
		fi
	done <"$stage/modules"
}

# archive creates a tarball of a directory in $stage.
archive() { # <directory>
	tar --create --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" \
		--directory "$stage" "$1" | gzip -9n >"$DIST/$1.tar.gz"
}

for arch in $ARCHES; do
	mkdir -p "$stage/$arch"
	build "$arch" procnetstat
	notices "$arch" procnetstat >"$stage/$arch/copyright"
	gzip -9nc packaging/procnetstat.1 >"$stage/$arch/procnetstat.1.gz"
	gzip -9nc CHANGELOG.md >"$stage/$arch/CHANGELOG.md.gz"
	for packager in deb rpm; do
		ARCH=$arch STAGE=$stage/$arch $NFPM package --config packaging/nfpm.yaml --packager $packager --target "$DIST/"
	done
	[ "$1" = release ] || continue

	name=procnetstat_${PACKAGE_VERSION}_linux_$arch
	mkdir "$stage/$name"
	cp "$stage/$arch/procnetstat" packaging/procnetstat.1 "$stage/$name"
	cp plugins/inputs/procnetstat/sample.conf "$stage/$name/procnetstat.conf"
	cp "$stage/$arch/copyright" "$stage/$name/LICENSES"
	archive "$name"

	build "$arch" telegraf
	name=procnetstat-telegraf_${PACKAGE_VERSION}_linux_$arch
	mkdir "$stage/$name"
	cp "$stage/$arch/telegraf" sample.conf "$stage/$name"
	notices "$arch" telegraf >"$stage/$name/LICENSES"
	archive "$name"
done
if [ "$1" = release ]; then
	(cd "$DIST" && sha256sum -- * >"$stage/sums" && mv "$stage/sums" SHA256SUMS && sha256sum --check --quiet SHA256SUMS)
fi
ls -l "$DIST"
