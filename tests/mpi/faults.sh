# SPDX-License-Identifier: BSL-1.0
#
# sh faults.sh PROGRAM OTHER_BUILD: how a run ends when a rank is lost, or was never right. Nothing may
# hang, and every end says why.
set -eu

program=$1
other=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1

fail() {
    echo "FAILED: $*" >&2
    cat "$folder/out" "$folder/err" >&2
    exit 1
}
# run COMMAND...: it ends within a minute; its code is in $code.
run() {
    code=0
    began=$(date +%s)
    timeout -k 5 60 "$@" >"$folder/out" 2>"$folder/err" </dev/null || code=$?
    [ $(($(date +%s) - began)) -lt 60 ] || fail "no end of: $*"
}
says() { grep -q -e "$1" "$folder/out" || fail "no word of: $1"; }
complains() { grep -q -e "$1" "$folder/err" || fail "no complaint of: $1"; }
well() { [ "$code" -eq 0 ] || fail "ended with $code"; }
# gone: no process of the run is left after a while.
gone() {
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        pgrep -f "$program $1" >/dev/null || return 0
        sleep 0.5
    done
    fail "processes are left: $(pgrep -f -l "$program $1")"
}

# Without mpiexec: the pool is one of processes of this machine, or refused if so asked.
run "$program" none
well
says '^-1: 81$'
run "$program" need
says 'minimum_ranks is 3.*mpiexec -n 4'
run "$program" forgotten
says 'AssertionError: .*freeze_support'
run "$program" spawn
well
says '^2 ranks, 81$'
says '^1 ranks, 81$'
run mpiexec -n 2 "$program" spawn
well
says '^2 ranks, 81$'

# A program that has started MPI itself, for one thread.
run mpiexec -n 1 "$program" single
says 'exception: MPI was started for a program without threads'

# Two builds.
run mpiexec -n 1 "$program" build : -n 1 "$other" build
says 'exception: .*another build of this program runs in rank 1 (pid [0-9]* on '

# An exception of the program's own ends the run, and in order.
run mpiexec -n 3 "$program" throw
well
says 'exception: of the program'

# A rank that dies ends the run, whoever finds out first, and so does one that leaves.
for what in kill leave; do
    run mpiexec -n 3 "$program" "$what"
    [ "$code" -ne 0 ] || fail "a lost rank is no failure"
    gone "$what"
done
# The master too.
run mpiexec -n 3 "$program" master
[ "$code" -ne 0 ] || fail "a lost master is no failure"
gone master

# Tasks that do not end keep the program for its patience, and no longer.
run mpiexec -n 3 "$program" endless
[ "$code" -ne 0 ] || fail "an endless task is no failure"
complains '^multiprocessing::mpi: 1 of 2 ranks are still at tasks.*; the run ends here$'

# Where the launcher leaves it to us.
if ! mpiexec --version 2>/dev/null | grep -q 'OpenRTE\|Open MPI'; then exit 0; fi
run mpiexec --enable-recovery -n 3 "$program" kill
complains '^multiprocessing::mpi: rank [12] (pid [0-9]* on .*) has died; the run ends here$'
gone kill
run mpiexec --enable-recovery -n 3 "$program" kill raise
says '^RankLostError of rank [12]: rank [12] (pid [0-9]* on .*) has died$'
gone kill
# One that says nothing any more.
run mpiexec --enable-recovery -n 3 "$program" stop raise
says '^RankLostError of rank [12]: .* has not been heard of for [23] s$'
pkill -KILL -f "$program stop" || true
