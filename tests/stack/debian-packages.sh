#!/usr/bin/env bash
# Unpacks the programs of Debian packages into a folder: debian-packages.sh DIR PACKAGE...
#
# Needs no root, installs nothing and starts nothing. The programs are in DIR/usr/bin afterwards. Programs that are on
# PATH or in DIR already are skipped. Without apt or a network it prints one line and ends with status 0: the demo and
# the tests run without the program.
set -euo pipefail

dir=$1
shift

# The program that each package is fetched for, and its name in messages.
declare -A program=(
    [prometheus]=prometheus [prometheus-alertmanager]=prometheus-alertmanager
    [prometheus-node-exporter]=prometheus-node-exporter [prometheus-pushgateway]=prometheus-pushgateway
    [systemd]=systemd-analyze [libsystemd-shared]=systemd-analyze
)
declare -A title=(
    [prometheus]=Prometheus [prometheus-alertmanager]=Alertmanager
    [prometheus-node-exporter]="Node exporter" [prometheus-pushgateway]=Pushgateway
    [systemd]=systemd-analyze [libsystemd-shared]=
)

missing=()
names=""
for package in "$@"; do
    # Upstream calls it alertmanager, Debian prometheus-alertmanager; the demo uses either.
    if [ -x "$dir/usr/bin/${program[$package]}" ] || command -v "${program[$package]}" "${package#prometheus-}" >/dev/null; then
        continue
    fi
    missing+=("$package")
    if [ -n "${title[$package]}" ]; then
        names+="${names:+ and }${title[$package]}"
    fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

give_up() {
    echo "Continuing without $names: $1" >&2
    exit 0
}

command -v apt-get >/dev/null || give_up "they are not on PATH, and there is no apt-get to fetch them with"
echo "Fetching $names with apt into $dir, once; nothing is installed"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/unpacked" "$work/download" "$work/state/lists/partial" "$work/cache/archives/partial"

# A user may not write to apt's own folders, so the cache is in the working folder. So are the lists of packages, if the
# machine's are absent or out of date. The sandbox user is root, or apt would warn that it cannot change users.
download() {
    (cd "$work/download" && rm -f ./*.deb && timeout 300 apt-get "${options[@]}" "$@" download "${missing[@]}") >"$work/log" 2>&1
}
options=(--quiet=2 -o APT::Sandbox::User=root -o "Dir::Cache=$work/cache" -o Acquire::Retries=1 -o Acquire::http::Timeout=20)
private=(-o "Dir::State=$work/state" -o "Dir::State::lists=$work/state/lists" -o Dir::State::status=/var/lib/dpkg/status)
if ! download; then
    # `update` ends with 0 if there is no network; then the download fails.
    timeout 300 apt-get "${options[@]}" "${private[@]}" update >"$work/log" 2>&1 || true
    reason=$(grep -m1 '^[EW]: ' "$work/log" || true)
    download "${private[@]}" || give_up "apt-get cannot download them (${reason:-$(tail -n1 "$work/log")})"
fi

for package in "$work"/download/*.deb; do
    dpkg-deb --extract "$package" "$work/unpacked" || give_up "$(basename "$package") cannot be unpacked"
done

alertmanager=$work/unpacked/usr/bin/prometheus-alertmanager
if [ -e "$alertmanager" ]; then
    # Debian's build reads its templates and pages from /usr/share, where nothing was installed. It is changed to read
    # them from file descriptor 9, a path of the same length, which the script that starts it opens.
    sed 's#/usr/share/prometheus/alertmanager#/dev/fd/9//prometheus/alertmanager#g' "$alertmanager" >"$alertmanager.unpacked"
    cat >"$alertmanager" <<'WRAPPER'
#!/bin/sh
here=$(CDPATH= cd "$(dirname "$0")/.." && pwd)
exec 9<"$here/share"
exec "$0.unpacked" "$@"
WRAPPER
    chmod +x "$alertmanager" "$alertmanager.unpacked"
fi

for package in "${missing[@]}"; do
    file=$work/unpacked/usr/bin/${program[$package]}
    case $package in prometheus | prometheus-alertmanager)
        "$file" --version >"$work/log" 2>&1 || give_up "${program[$package]} does not run here ($(tail -n1 "$work/log"))"
        ;;
    esac
done
mkdir -p "$dir"
cp -a "$work/unpacked/." "$dir/"
