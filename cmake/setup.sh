# SPDX-License-Identifier: BSL-1.0
#
# What examples/run, tests/run and .ci/run need before they can start. To be sourced by a POSIX
# shell that has set `root` to the top of the source tree:
#
#     . "$root/cmake/setup.sh"
#     setup compiler cmake make boost serialization catch2
#     configure build/tests -DCMAKE_BUILD_TYPE=Release
#
# `setup` looks for each thing itself, not for a package of that name, and installs with apt-get only
# what is not found; where there is no apt-get it says what to install. It leaves the compiler to use
# in CXX. Nothing is written but packages and what is under build/.

say() { printf '%s: %s\n' "${0#"$root"/}" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# Whether $1 is a C++ compiler that is new enough, and has a standard library that is.
good_compiler() {
    command -v "$1" >/dev/null 2>&1 && "$1" -std=c++20 -E -x c++ - >/dev/null 2>&1 <<'SOURCE'
#include <cstdlib>
#include <version>
#if defined __clang__ ? __clang_major__ < 14 : __GNUC__ < 12
#error "g++ 12 or clang 14 is the oldest that will do"
#endif
#if defined _GLIBCXX_RELEASE && _GLIBCXX_RELEASE < 12
#error "so is the libstdc++ of g++ 12"
#endif
SOURCE
}

# Sets CXX, to what it is already if the user has chosen.
find_compiler() {
    if [ -n "${CXX-}" ]; then
        # More than one word (a launcher, flags) is the user's own affair.
        case $CXX in *' '*) return 0 ;; esac
        good_compiler "$CXX" || die "CXX=$CXX is not g++ 12, clang 14 or newer"
        return 0
    fi
    for compiler in c++ g++ clang++ g++-15 g++-14 g++-13 g++-12 \
        clang++-19 clang++-18 clang++-17 clang++-16 clang++-15 clang++-14; do
        if good_compiler "$compiler"; then
            export CXX="$compiler"
            return 0
        fi
    done
    return 1
}

# Whether an expression of the preprocessor holds, after including the header $1 if there is one.
preprocessor_says() {
    printf '#if __has_include(<%s>)\n#include <%s>\n#endif\n#if %s\nyes\n#endif\n' \
        "$1" "$1" "$2" | ${CXX:-false} -std=c++20 -E -P -x c++ - 2>/dev/null | grep -q '^yes$'
}

# Whether the linker would find the library $1.
has_library() {
    for file in "lib$1.so" "lib$1.a"; do
        case $(${CXX:-false} -print-file-name="$file" 2>/dev/null) in */*) return 0 ;; esac
    done
    return 1
}

# Whether the compiler $1 has what these sanitizers need.
has_sanitizers() {
    mkdir -p "$root/build"
    echo 'int main() {}' | $1 -fsanitize="$2" -x c++ - -o "$root/build/sanitizers.probe" 2>/dev/null &&
        rm "$root/build/sanitizers.probe"
}

has() {
    case $1 in
    compiler) find_compiler ;;
    cmake)
        version=$(cmake --version 2>/dev/null | sed -n '1s/[^0-9]*\([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
        [ -n "$version" ] && [ $((${version% *} * 100 + ${version#* })) -ge 320 ]
        ;;
    make) command -v ninja >/dev/null || command -v make >/dev/null ;;
    boost)
        preprocessor_says boost/version.hpp 'BOOST_VERSION >= 107400' &&
            preprocessor_says version '__has_include(<boost/interprocess/mapped_region.hpp>)'
        ;;
    serialization)
        preprocessor_says version '__has_include(<boost/serialization/nvp.hpp>)' &&
            has_library boost_serialization
        ;;
    openssl) preprocessor_says version '__has_include(<openssl/hmac.h>)' && has_library crypto ;;
    # Its headers may be where only its own compiler looks for them.
    mpi)
        command -v mpiexec >/dev/null 2>&1 && command -v mpicxx >/dev/null 2>&1 &&
            preprocessor_says version '__has_include(<boost/mpi.hpp>)' && has_library boost_mpi
        ;;
    png) preprocessor_says version '__has_include(<png.h>)' && has_library png ;;
    catch2)
        preprocessor_says version \
            '__has_include(<catch2/catch_test_macros.hpp>) || __has_include(<catch2/catch.hpp>)'
        ;;
    clang) good_compiler clang++ ;;
    python3) command -v python3 >/dev/null 2>&1 ;;
    sanitizers) has_sanitizers "${CXX:-false}" thread ;;
    clang_sanitizers) has_sanitizers clang++ address,undefined ;;
    *) die "setup: nothing is known of $1" ;;
    esac
}

describe() {
    case $1 in
    compiler) echo "a C++20 compiler (g++ 12, clang 14 or newer)" ;;
    cmake) echo "CMake 3.20 or newer" ;;
    make) echo "make or ninja" ;;
    boost) echo "the headers of Boost 1.74 or newer" ;;
    serialization) echo "Boost.Serialization" ;;
    openssl) echo "OpenSSL's libcrypto, with its headers" ;;
    mpi) echo "MPI (Open MPI or MPICH), and Boost.MPI" ;;
    png) echo "libpng, with its headers" ;;
    catch2) echo "Catch2 (2.13 or 3)" ;;
    clang) echo "clang++ 14 or newer" ;;
    python3) echo "Python 3.8 or newer, which some tests talk to" ;;
    sanitizers) echo "the sanitizers' run-time libraries of $CXX" ;;
    clang_sanitizers) echo "the sanitizers' run-time libraries of clang++" ;;
    esac
}

# The Debian or Ubuntu package of a thing.
package_of() {
    case $1 in
    # Where the default is too old, the newest of the others: Ubuntu 22.04 has both.
    compiler)
        for package in g++ g++-14 g++-13 g++-12; do
            version=$(apt-cache policy "$package" 2>/dev/null | sed -n "/^$package:\$/,/Candidate:/ \
                s/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9]*\).*/\2/p")
            if [ "${version:-0}" -ge 12 ]; then
                echo "$package"
                return
            fi
        done
        echo g++
        ;;
    boost) echo libboost-dev ;;
    serialization) echo libboost-serialization-dev ;;
    openssl) echo libssl-dev ;;
    mpi) echo libboost-mpi-dev ;;
    png) echo libpng-dev ;;
    # Those of g++ come with it.
    sanitizers | clang_sanitizers) echo libclang-rt-dev ;;
    *) echo "$1" ;;
    esac
}

# setup THING...: sees to it that every THING is there, or ends the script.
setup() {
    missing=$(list_missing "$@") || exit 1
    if [ -n "$missing" ]; then
        install_missing $missing
        missing=$(list_missing $missing) || exit 1
        for thing in $missing; do say "still not found: $(describe "$thing")"; done
        [ -z "$missing" ] || exit 1
    fi
    case " $* " in *' compiler '*) find_compiler ;; esac
}

list_missing() {
    # Libraries are looked for with the compiler, so without one they count as missing.
    find_compiler || true
    for thing in "$@"; do has "$thing" || printf '%s ' "$thing"; done
}

install_missing() {
    for thing in "$@"; do say "not found: $(describe "$thing")"; done
    command -v apt-get >/dev/null 2>&1 ||
        die "this system has no apt-get: please install the above with its own package manager"

    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
        as_root=sudo
    else
        packages=$(for thing in "$@"; do package_of "$thing"; done | tr '\n' ' ')
        die "neither root nor sudo here: please have this run: apt-get install $packages"
    fi

    mkdir -p "$root/build"
    log=$root/build/setup.log
    # A broken third-party source need not matter: whether the packages can be had decides.
    $as_root apt-get update >"$log" 2>&1 </dev/null || true
    packages=$(for thing in "$@"; do package_of "$thing"; done | tr '\n' ' ')
    say "installing $packages"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 $packages >>"$log" 2>&1 </dev/null || {
        tail -n 20 "$log" >&2
        die "apt-get install $packages failed; all of its output is in build/setup.log"
    }
}

# How many compilers to run at once: one a processor, and no more than there is memory for.
jobs() {
    gibibytes=$(awk '/^MemTotal:/ { print int($2 / 1048576) }' /proc/meminfo 2>/dev/null)
    processors=$(nproc 2>/dev/null || echo 2)
    if [ "${gibibytes:-$processors}" -lt "$processors" ]; then processors=${gibibytes}; fi
    [ "$processors" -ge 1 ] && echo "$processors" || echo 1
}

# How many tests run at once: more than can, for they wait a lot.
test_jobs() { echo $(($(jobs) * 3 / 2)); }

# configure FOLDER OPTION...: cmake, with ninja where there is one; silent unless it fails.
configure() {
    folder=$1
    shift
    if command -v ninja >/dev/null 2>&1; then export CMAKE_GENERATOR="${CMAKE_GENERATOR-Ninja}"; fi
    mkdir -p "$root/$folder"
    log=$root/$folder/configure.log
    (cd "$root" && cmake -B "$folder" "$@") >"$log" 2>&1 </dev/null || {
        cat "$log" >&2
        die "cmake failed"
    }
}
