# SPDX-License-Identifier: BSL-1.0
#
# Sourced by the tests of the jobs, which are run as `sh JOB.sh PROGRAM`: a folder that goes away
# with the test, and the checks that they share.
set -eu
LC_ALL=C
export LC_ALL

program=$1
folder=$(mktemp -d)
trap 'chmod -R u+rwX "$folder"; rm -rf "$folder"' EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# same WHAT FILE FILE: they hold the same.
same() {
    diff "$2" "$3" >"$folder/diff" || {
        head -n 20 "$folder/diff" >&2
        fail "$1"
    }
}

# rejects ARGUMENT...: the program ends with code 2, and says why on stderr alone.
rejects() {
    code=0
    "$program" "$@" >"$folder/out" 2>"$folder/err" || code=$?
    [ "$code" -eq 2 ] || fail "exit code $code for the arguments: $*"
    [ ! -s "$folder/out" ] || fail "something on stdout for the arguments: $*"
    grep -q "^${program##*/}: ." "$folder/err" || fail "no message for the arguments: $*"
    grep -q -e --help "$folder/err" || fail "no way out for the arguments: $*"
}

"$program" --help >"$folder/help" 2>"$folder/err" || fail "--help ends with $?"
grep -q '^usage: ' "$folder/help" || fail "--help prints no usage"
[ ! -s "$folder/err" ] || fail "--help prints on stderr"
