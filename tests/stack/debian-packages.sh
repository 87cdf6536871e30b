#!/usr/bin/env bash
# Unpacks Debian packages into a folder of the project: debian-packages.sh DIR PACKAGE...
# Nothing is installed and no service is started; the programs end up in DIR/usr/bin. Programs that are
# on PATH already are left alone, and a machine without apt is told what the tests will miss.
set -euo pipefail

dir=$1
shift
mkdir -p "$dir"

declare -A program=(
    [prometheus]=prometheus [prometheus-alertmanager]=prometheus-alertmanager
    [prometheus-node-exporter]=prometheus-node-exporter [prometheus-pushgateway]=prometheus-pushgateway
    [systemd]=systemd-analyze [libsystemd-shared]=systemd-analyze
)

for package in "$@"; do
    if command -v "${program[$package]}" >/dev/null; then
        continue
    fi
    if ! command -v apt-get >/dev/null; then
        echo "debian-packages: ${program[$package]} is not on PATH and there is no apt-get; tests that need it will say so" >&2
        continue
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # Downloading needs no root; only refreshing the package lists does, so try without first.
    (cd "$work" && apt-get download --quiet=2 "$package") || {
        apt-get update --quiet=2
        (cd "$work" && apt-get download --quiet=2 "$package")
    }
    dpkg-deb --extract "$work"/*.deb "$dir"
    if [ "$package" = prometheus-alertmanager ]; then
        # Debian's build reads its templates from /usr/share, where nothing was installed: it is started with a view of
        # its own of that folder, with what was unpacked laid over it.
        mv "$dir/usr/bin/$package" "$dir/usr/bin/$package.unpacked"
        cat >"$dir/usr/bin/$package" <<'WRAPPER'
#!/bin/sh
here=$(CDPATH= cd "$(dirname "$0")/.." && pwd)
[ "$(id -u)" = 0 ] || as_root="--user --map-root-user"
exec unshare ${as_root-} --mount sh -c '
    mount -t overlay overlay -o lowerdir="$1/share":/usr/share /usr/share && shift && exec "$@"
' sh "$here" "$0.unpacked" "$@"
WRAPPER
        chmod +x "$dir/usr/bin/$package"
    fi
    rm -rf "$work"
    trap - EXIT
    echo "debian-packages: unpacked $package into $dir"
done
