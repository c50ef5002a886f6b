#!/bin/sh
# Builds what a release consists of into a directory: "packages" are the .deb and .rpm of the program for inputs.execd, "release" is
# these, tarballs, and checksums of all. The same commit gives the same bytes, whoever builds it, where and when.
#
# The Makefile calls it with these variables: GO, NFPM, LDFLAGS, DIST, ARCHES. PACKAGE_VERSION takes the place of the version that git
# knows.
set -eu
umask 022
export TZ=UTC LC_ALL=C CGO_ENABLED=0

case "${1-}" in packages | release) ;; *)
	echo "usage: $0 packages|release" >&2
	exit 2
	;;
esac
if ! commit_time=$(git log -1 --format=%ct); then
	echo "$0: the version and the times of a release are those of the commit: this wants a clone with git" >&2
	exit 1
fi
export SOURCE_DATE_EPOCH="$commit_time"

if [ -z "${PACKAGE_VERSION-}" ]; then
	# v1.2.3 is 1.2.3, v1.2.3-rc.1 comes before that, and four commits later is 1.2.3+4.g0123abc. Before the first tag it is 0.
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

# notices prints the licences of all that is in a program.
notices() { # <arch> <command>
	echo "This program is under the licence of procnetstat:"
	echo
	cat LICENSE
	printf '\n\nIt has parts that are under the licences below: the Go standard library'
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

# archive makes a tarball of a directory in the stage.
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
