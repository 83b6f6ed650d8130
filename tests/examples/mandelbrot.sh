# SPDX-License-Identifier: BSL-1.0
#
# sh mandelbrot.sh PROGRAM [RANKS]: it writes a PNG, the same whatever the number of workers.
. "$(dirname "$0")/support.sh"

bytes_of() { od -An -v -tx1 "$@" | tr -d ' \n'; }

cd "$folder"
for processes in 1 2 3; do
    "$program" --size 301x203 --processes "$processes" --output "$processes.png" >out 2>err ||
        fail "exit code $?"
    [ ! -s err ] || fail "something on stderr, which is no terminal"
    grep -q "^$processes.png: 301 x 203 pixels, rendered in .* s by $(workers "$processes")\$" out ||
        fail "the report is: $(cat out)"
    cmp 1.png "$processes.png" || fail "$processes processes render another picture than one"
done

[ "$(bytes_of -N 8 1.png)" = 89504e470d0a1a0a ] || fail "no PNG"
[ "$(bytes_of -j 12 -N 12 1.png)" = 494844520000012d000000cb ] || fail "not 301 x 203"
[ "$(tail -c 12 1.png | bytes_of)" = 0000000049454e44ae426082 ] || fail "the PNG does not end"
if command -v pngcheck >/dev/null; then pngcheck -q 1.png || fail "pngcheck complains"; fi

"$program" --size=64x48 >out || fail "exit code $? without --output"
[ -s mandelbrot.png ] || fail "no mandelbrot.png in the current directory"
"$program" --size=64x48 --view -0.745,0.11,0.01 --output zoomed.png >out || fail "exit code $?"
if cmp -s mandelbrot.png zoomed.png; then fail "--view changes nothing"; fi
"$program" --size 1x1 --output dot.png >out || fail "exit code $? for a single pixel"

code=0
"$program" --size 8x8 --output nowhere/x.png >out 2>err || code=$?
[ "$code" -eq 1 ] || fail "exit code $code where the file cannot be written"
grep -q "^mandelbrot: nowhere/x.png: " err || fail "no word of the file that cannot be written"

rejects --size 8
rejects --size 0x8
rejects --size 8x-8
rejects --size 8x8x8
rejects --size 30001x8
rejects --view 0,0
rejects --view 0,0,0
rejects --view 0,0,x
rejects --processes none
rejects --output
rejects picture.png
rejects -x
