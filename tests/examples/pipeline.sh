# SPDX-License-Identifier: BSL-1.0
#
# sh pipeline.sh PROGRAM: its numbers are those of awk, wc, sort and uniq.
. "$(dirname "$0")/support.sh"

# A log with some of everything: dates, short lines, blank lines, tabs, a line that is longer than
# many blocks, and no newline at the end.
awk 'BEGIN {
    split("install upgrade configure remove status trigproc", events)
    for (i = 0; i < 60000; ++i) {
        day = sprintf("2025-%02d-%02d", 1 + i % 12, 1 + i % 28)
        if (i % 97 == 0) print ""
        else if (i % 89 == 0) print "  \t " day " is indented"
        else if (i % 83 == 0) print "1234-5-67 neither is this"
        else if (i % 79 == 0) print day
        else if (i % 73 == 0) print day "T12:00:00\t12:00:00 status"
        else if (i == 30000) { for (n = 0; n < 200000; ++n) printf "long%d ", n; print "end" }
        else print day, "12:00:0" i % 10, events[1 + i % 6], "package" i % 50 ":amd64", i
    }
    printf "2025-01-01 the end"
}' >"$folder/log"

count() { sort | uniq -c | sort -k1,1nr -k2; }
widen() { awk '{ n = $1; sub(/^ *[0-9]+ /, ""); printf "%9d %s\n", n, $0 }'; }

# What the shell makes of a file.
expect() {
    longest=$(awk '{ if (length() > n) n = length() } END { print n + 0 }' "$1")
    echo "$1: $(awk 'END { print NR }' "$1") lines, $(($(wc -w <"$1"))) words," \
        "$(($(wc -c <"$1"))) bytes, $longest in the longest line"
    dated='/^[ \t]*[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]/'
    awk "$dated { print substr(\$1, 1, 10) }" "$1" | count | widen >"$folder/days"
    awk "$dated && NF > 2 { print (\$3 == \"status\" && NF > 3 ? \$3 \" \" \$4 : \$3) }" "$1" |
        count | widen >"$folder/events"
    tr -s ' \t' '\n\n' <"$1" | sed '/^$/d' | count | widen >"$folder/words"
    for table in days events words; do
        if [ -s "$folder/$table" ]; then
            echo
            echo "$table"
            head -n "$2" "$folder/$table"
        fi
    done
}

# check FILE TOP ARGUMENT...
check() {
    file=$1 top=$2
    shift 2
    expect "$file" "$top" >"$folder/expected"
    "$program" "$@" "$file" >"$folder/out" 2>"$folder/err" || fail "exit code $? for $file, $*"
    [ ! -s "$folder/err" ] || fail "something on stderr, which is no terminal"
    same "$file, arguments: $*" "$folder/expected" "$folder/out"
}

check "$folder/log" 10
for parsers in 1 2 5; do
    check "$folder/log" 1000000 --parsers "$parsers" --top 1000000
done
: >"$folder/empty"
check "$folder/empty" 10
printf '\n' >"$folder/newline"
check "$folder/newline" 10
printf 'one word' >"$folder/word"
check "$folder/word" 10

# Bytes of every kind, and a pipe, whose size nobody knows beforehand.
"$program" "$program" >"$folder/out" || fail "exit code $? for a binary file"
grep -q " $(($(wc -c <"$program"))) bytes, " "$folder/out" || fail "the bytes of a binary file"
expect "$folder/log" 10 | sed '1s|^[^:]*|/dev/stdin|' >"$folder/expected"
cat "$folder/log" | "$program" /dev/stdin >"$folder/out" || fail "exit code $? for a pipe"
same "what comes through a pipe" "$folder/expected" "$folder/out"

rejects "$folder/nowhere"
rejects "$folder"
rejects --parsers 0 "$folder/log"
rejects --parsers many "$folder/log"
rejects --parsers
rejects --top -3 "$folder/log"
rejects --unknown "$folder/log"
rejects "$folder/log" "$folder/log"
