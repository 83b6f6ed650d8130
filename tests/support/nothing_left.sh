# SPDX-License-Identifier: BSL-1.0
#
# nothing_left.sh record|check BUILD_TREE TEMPORARY_FOLDER: before the tests, writes down what there
# is; after them, fails if a process of the build tree's programs, a name in /dev/shm or a temporary
# file has been left behind.
set -eu
action=$1
build_tree=$(cd "$2" && pwd -P)
temporary=$3
record=$build_tree/dev_shm_before_tests

names() { ls -A /dev/shm 2>/dev/null | sort || true; }

processes() {
    for link in /proc/[0-9]*/exe; do
        program=$(readlink "$link" 2>/dev/null) || continue
        case $program in
        "$build_tree"/*) echo "$link $program" ;;
        esac
    done
}

# Whether a process has the file mapped: then it is in use, by something that is none of ours.
in_use() { grep -q -s -F -- "$1" /proc/[0-9]*/maps; }

case $action in
record)
    rm -rf "$temporary"
    mkdir -p "$temporary"
    names >"$record"
    ;;
check)
    failed=0
    # Workers whose parent was killed have a second to notice.
    for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        left=$(processes)
        [ -n "$left" ] || break
        sleep 0.1
    done
    if [ -n "$left" ]; then
        printf 'left running:\n%s\n' "$left"
        failed=1
    fi
    for name in $(names | comm -13 "$record" -); do
        if ! in_use "/dev/shm/$name"; then
            printf 'left in /dev/shm: %s\n' "$name"
            failed=1
        fi
    done
    for file in $(ls -A "$temporary"); do
        printf 'left in the temporary folder: %s\n' "$temporary/$file"
        failed=1
    done
    rm -rf "$temporary" "$record"
    exit $failed
    ;;
esac
