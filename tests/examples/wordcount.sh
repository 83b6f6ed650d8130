# SPDX-License-Identifier: BSL-1.0
#
# sh wordcount.sh PROGRAM [RANKS]: its counts are those of tr, sort and uniq.
. "$(dirname "$0")/support.sh"

corpus=$folder/corpus
mkdir -p "$corpus/a/b c" "$corpus/.hidden" "$corpus/nothing in it"
: >"$corpus/empty"
printf 'no newline at the end' >"$corpus/a/open end"
printf 'ends with a letter' >"$corpus/a/open end too"
printf 'Word word WORD word-word word2word \303\251t\303\251 under_score\n' >"$corpus/a/b c/words"
printf '\000\001zero\000one\377two\200\n\r\tthree' >"$corpus/binary"
printf 'hidden\n' >"$corpus/.hidden/.file"
printf 'odd\n' >"$corpus/a/-n"
printf 'names\n' >"$corpus/a/new
line"
ln -s ../empty "$corpus/a/link to a file"
ln -s .. "$corpus/a/link to a directory"
ln -s nowhere "$corpus/a/broken link"
# Two files that are larger than a block, and than a piece: words lie across every border, the
# second one's across all of them.
awk 'BEGIN { for (i = 0; i < 700000; ++i) printf "%c%c%cabcdefghijklmnopqrst %c\n",
             97 + i % 26, 65 + i % 23, 97 + i % 19, 97 + i % 3 }' >"$corpus/large"
{ tr -cd 'A-Za-z' <"$corpus/large"; printf ' end\n'; } >"$corpus/a/one long word"

# What the shell makes of the files: each by itself, for cat would join two words that meet.
words_of() {
    find "$1" -type f -exec sh -c 'for file; do cat "$file"; echo; done' sh {} + |
        tr -cs A-Za-z '\n' | sed '/^$/d'
}
ranked() { sort | uniq -c | sort -k1,1nr -k2; }
words_of "$corpus" | ranked >"$folder/expected"

# counts ARGUMENT...: prints the words and their counts, and keeps the lines after them.
counts() {
    "$program" "$@" >"$folder/out" 2>"$folder/err" || fail "exit code $? for the arguments: $*"
    [ ! -s "$folder/err" ] || fail "something on stderr, which is no terminal"
    sed '1,/^$/d' "$folder/out" >"$folder/report"
    sed '/^$/,$d' "$folder/out"
}

for processes in 1 2 3; do
    counts --processes "$processes" --top 1000000 "$corpus" >"$folder/counts"
    same "counts of $processes processes" "$folder/expected" "$folder/counts"
done
grep -q '^1 process: .* files/s, .* MB/s$' "$folder/report" || fail "no speed of one process"
grep -q "^$(workers 3): .* files/s, .* MB/s\$" "$folder/report" || fail "no speed of the Pool"
grep -q '^speed-up over one process: [0-9.]*$' "$folder/report" || fail "no speed-up"
files=$(find "$corpus" -type f -exec echo x \; | wc -l)
bytes=$(find "$corpus" -type f -exec cat {} + | wc -c)
words=$(words_of "$corpus" | wc -l)
different=$(wc -l <"$folder/expected")
summary="$corpus: $((files)) files, $((bytes)) bytes, $((words)) words, $((different)) different ones"
grep -qxF "$summary" "$folder/report" || fail "the report is not: $summary"

counts --once --top 1000000 "$corpus" >"$folder/counts"
same "counts without a comparison" "$folder/expected" "$folder/counts"
counts "$corpus" >"$folder/counts"
head -n 20 "$folder/expected" >"$folder/twenty"
same "the twenty commonest" "$folder/twenty" "$folder/counts"
words_of "$corpus" | tr A-Z a-z | ranked >"$folder/expected"
counts --ignore-case --top=1000000 -- "$corpus" >"$folder/counts"
same "counts without regard to case" "$folder/expected" "$folder/counts"
words_of "$corpus/large" | ranked >"$folder/expected"
counts --top 1000000 "$corpus/large" >"$folder/counts"
same "counts of a single file" "$folder/expected" "$folder/counts"
counts "$corpus/nothing in it" >"$folder/counts"
[ ! -s "$folder/counts" ] || fail "words in an empty directory"

rejects --unknown
rejects --top
rejects --top x
rejects --top -1
rejects --processes 0
rejects --processes 2.5
rejects "$folder/nowhere"
rejects "$corpus" "$corpus"

# What cannot be read is told and counted, and the rest is counted as ever. Root can read anything,
# so it becomes nobody for this, where it can.
mkdir "$folder/some" "$folder/some/secret"
printf 'legible\n' >"$folder/some/legible"
printf 'illegible\n' >"$folder/some/illegible"
printf 'secret\n' >"$folder/some/secret/file"
chmod 0 "$folder/some/illegible" "$folder/some/secret"
chmod 755 "$folder"
as=
if [ "$(id -u)" -eq 0 ]; then as="setpriv --reuid 65534 --regid 65534 --clear-groups"; fi
if $as test -r "$folder/some/legible" 2>/dev/null && $as "$program" --help >/dev/null 2>&1; then
    code=0
    $as "$program" "$folder/some" >"$folder/out" 2>"$folder/err" || code=$?
    [ "$code" -eq 1 ] || fail "exit code $code where something cannot be read"
    [ "$(head -n 1 "$folder/out")" = "      1 legible" ] || fail "no count of what can be read"
    grep -q "some/illegible: Permission denied" "$folder/err" || fail "no word of the file"
    grep -q "some/secret: Permission denied" "$folder/err" || fail "no word of the directory"
    grep -q "^wordcount: 2 files or directories" "$folder/err" || fail "no number of them"
fi
