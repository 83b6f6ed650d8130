# SPDX-License-Identifier: BSL-1.0
#
# Sourced by the tests of the jobs, which are run as `sh JOB.sh PROGRAM [RANKS]`: a folder that goes
# away with the test, and the checks that they share. With RANKS it is mpiexec that runs the program.
set -eu
LC_ALL=C
export LC_ALL

program=$1
ranks=${2-}
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

# rejects ARGUMENT...: the program ends with code 2, and says why on stderr alone. (Over ranks the first
# of them stands for all: it is the same code, and mpiexec takes its time where a program fails.)
rejects() {
    if [ -n "$ranks" ]; then
        [ -z "${rejected-}" ] || return 0
        rejected=yes
    fi
    code=0
    "$program" "$@" >"$folder/out" 2>"$folder/err" || code=$?
    [ "$code" -eq 2 ] || fail "exit code $code for the arguments: $*"
    [ ! -s "$folder/out" ] || fail "something on stdout for the arguments: $*"
    grep -q "^${program##*/}: ." "$folder/err" || fail "no message for the arguments: $*"
    grep -q -e --help "$folder/err" || fail "no way out for the arguments: $*"
}

# workers N: what the program calls the workers of its Pool, asked for N.
workers() {
    if [ "${ranks:-1}" -eq 1 ]; then
        number=$1 name=process names=processes
    else
        # The first is the master of the others.
        number=$((ranks - 1)) name=rank names=ranks
        [ "$1" -ge "$number" ] || number=$1
    fi
    [ "$number" -eq 1 ] || name=$names
    echo "$number $name"
}

# A program that stands for all ranks, and is called as the program calls itself. Its temporary files
# are where whoever runs it may write.
if [ -n "$ranks" ]; then
    name=${program##*/}
    mkdir "$folder/mpi"
    cat >"$folder/mpi/${name%_mpi}" <<END
#!/bin/sh
[ -w "\${TMPDIR:-/tmp}" ] || export TMPDIR=/tmp
exec ${MPIEXEC:-mpiexec} -n $ranks '$(realpath "$program")' "\$@" </dev/null
END
    program=$folder/mpi/${name%_mpi}
    chmod 755 "$program"
    # Open MPI: for root, more ranks than processors, and no words of its own on the exit status.
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_orte_execute_quiet=1
fi

"$program" --help >"$folder/help" 2>"$folder/err" || fail "--help ends with $?"
grep -q '^usage: ' "$folder/help" || fail "--help prints no usage"
[ ! -s "$folder/err" ] || fail "--help prints on stderr"
