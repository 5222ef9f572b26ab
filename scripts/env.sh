# shellcheck shell=bash
# Sourced by every script here: where things are, how to speak, how to become root. It starts and installs nothing.

set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
BUILD="$ROOT/build"
# Servers such as haproxy and dockerd live in sbin, which a plain user's PATH leaves out.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export ROOT BUILD PATH

say() { printf '%s\n' "$*" >&2; }
die() {
    say "error: $*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root: as it is for root, else by sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo -- "$@"
    else
        die "this step needs root, and sudo is not installed: $*"
    fi
}

# True where nobody can answer a question, or where the answer was given beforehand.
unattended() { [ -n "${CI:-}" ] || [ "${YES:-}" = 1 ]; }
