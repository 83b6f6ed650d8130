# SPDX-License-Identifier: BSL-1.0
#
# sh two_hosts.sh PROGRAM: runs a program on two hosts that are namespaces of this machine: each has
# its own network, name, processes, shared memory and temporary folder, and a pair of virtual
# Ethernet devices joins them. Ends with 77 where that cannot be made. Everything is in namespaces
# that are this script's own and go with it, however it ends.
set -eu
LC_ALL=C
export LC_ALL

program=$1

skip() {
    echo "two_hosts.sh: skipped: $*" >&2
    exit 77
}

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# Outside: only what can be told before, and the namespaces.
if [ "${2-}" != inside ]; then
    for tool in ip unshare setpriv timeout mpiexec; do
        command -v "$tool" >/dev/null || skip "there is no $tool"
    done
    # Open MPI 4; the launcher of Open MPI 5 has other options.
    case $(mpiexec --version 2>&1) in
    *OpenRTE*) ;;
    *) skip "mpiexec is not that of Open MPI 4" ;;
    esac
    # A user who is not root may be root of what is his own.
    set -- --net --mount --pid --uts --ipc --fork --kill-child --mount-proc
    [ "$(id -u)" -eq 0 ] || set -- --map-root-user "$@"
    unshare "$@" mount -t tmpfs run /run 2>/dev/null || skip "namespaces cannot be made"
    code=0
    setpriv --pdeathsig KILL unshare "$@" \
        timeout -s KILL 300 sh "$0" "$program" inside || code=$?
    exit "$code"
fi

mount -t tmpfs run /run
mkdir /run/alpha /run/beta
ln -s "$(realpath "$program")" /run/two_hosts
cat >/run/hosts <<END
127.0.0.1 localhost
10.99.0.1 alpha
10.99.0.2 beta
END
mount --bind /run/hosts /etc/hosts || skip "/etc/hosts cannot be replaced"

# sh on HOST COMMAND...: what ssh does.
cat >/run/on <<'END'
host=$1
shift
exec ip netns exec "$host" \
    unshare --mount --pid --uts --ipc --fork --kill-child --mount-proc sh -c '
        hostname "$0" && mount -t tmpfs shm /dev/shm && export TMPDIR="/run/$0" && sh -c "$*"
        exit $?' "$host" "$@"
END

# ends_at HOST ADDRESS
ends_at() {
    ip -n "$1" address add "$2/30" dev veth0 && ip -n "$1" link set lo up &&
        ip -n "$1" link set veth0 up
}
{
    ip netns add alpha && ip netns add beta &&
        ip link add veth0 netns alpha type veth peer name veth0 netns beta &&
        ends_at alpha 10.99.0.1 && ends_at beta 10.99.0.2
} 2>/run/err || skip "no network of namespaces: $(cat /run/err)"
for host in alpha beta; do
    seen=$(timeout 10 sh /run/on "$host" hostname 2>/run/err) || skip "no host: $(cat /run/err)"
    [ "$seen" = "$host" ] || fail "the host $host calls itself $seen"
done

# bytes HOST tx|rx: what its device has sent, or received.
bytes() { ip netns exec "$1" cat "/sys/class/net/veth0/statistics/$2_bytes"; }

OMPI_ALLOW_RUN_AS_ROOT=1
OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM OMPI_MCA_rmaps_base_oversubscribe

# A host is its first process, so the daemon of MPI must not leave that.
launch="mpiexec --leave-session-attached --bind-to none --mca plm rsh"
over="--mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include veth0 --mca oob_tcp_if_include veth0"

# check HOSTS RANKS MODE: alpha's program says what it has moved, in bytes, and that is what its
# device has to have sent and received at least.
check() {
    sent=$(bytes alpha tx) received=$(bytes alpha rx)
    arrived=$(bytes beta rx) returned=$(bytes beta tx)
    code=0
    timeout -s KILL 120 sh /run/on alpha \
        "$launch --mca plm_rsh_agent 'sh /run/on' $over --host $1 -n $2 /run/two_hosts $3" \
        </dev/null >/run/out || code=$?
    cat /run/out
    [ "$code" -ne 137 ] || fail "$3 takes more than two minutes, or was killed"
    [ "$code" -eq 0 ] || fail "exit code $code of $3"
    sent=$(($(bytes alpha tx) - sent)) received=$(($(bytes alpha rx) - received))
    arrived=$(($(bytes beta rx) - arrived)) returned=$(($(bytes beta tx) - returned))
    out=$(sed -n 's/^moved \([0-9]*\) bytes to beta, and [0-9]* back$/\1/p' /run/out)
    back=$(sed -n 's/^moved [0-9]* bytes to beta, and \([0-9]*\) back$/\1/p' /run/out)
    [ -n "$out" ] && [ -n "$back" ] || fail "$3 does not say what it has moved"
    [ "$sent" -ge "$out" ] && [ "$arrived" -ge "$out" ] ||
        fail "$3 moved $out bytes to beta, but alpha sent $sent, and beta received $arrived"
    [ "$received" -ge "$back" ] && [ "$returned" -ge "$back" ] ||
        fail "$3 moved $back bytes back, but alpha received $received, and beta sent $returned"
    echo "$3: the network carried $sent bytes to beta, and $received back"
}

check alpha:2,beta:2 4 direct
check alpha:1,beta:1 2 hybrid
