# SPDX-License-Identifier: BSL-1.0
#
# cmake -DMODE=… … -P run.cmake: see CMakeLists.txt. Everything happens under WORK.
cmake_minimum_required(VERSION 3.20)

set(consumer "${CMAKE_CURRENT_LIST_DIR}/consumer")
set(prefix "${WORK}/prefix")
set(folder "${WORK}/${MODE}")
set(run COMMAND_ERROR_IS_FATAL ANY)

function(check_output program expected)
    execute_process(COMMAND "${program}" OUTPUT_VARIABLE printed TIMEOUT 60 ${run})
    if(NOT printed STREQUAL expected)
        message(FATAL_ERROR "${program} printed '${printed}'")
    endif()
endfunction()

if(MODE STREQUAL "prefix")
    file(REMOVE_RECURSE "${prefix}")
    execute_process(COMMAND "${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${prefix}" ${run}
        OUTPUT_QUIET)
    if(NOT EXISTS "${prefix}/include/multiprocessing.hpp")
        message(FATAL_ERROR "the headers are not installed")
    endif()
    # What refers to this tree works here and nowhere else.
    file(GLOB_RECURSE files "${prefix}/share/*")
    foreach(file IN LISTS files)
        file(READ "${file}" text)
        foreach(place IN ITEMS "${SOURCE}" "${BUILD}")
            string(FIND "${text}" "${place}/" position)
            if(NOT position EQUAL -1)
                message(FATAL_ERROR "${file} names ${place}")
            endif()
        endforeach()
    endforeach()
    return()
endif()

file(REMOVE_RECURSE "${folder}")
file(MAKE_DIRECTORY "${folder}")

if(MODE STREQUAL "README")
    # The first block of C++, which must be a whole program.
    file(READ "${SOURCE}/README.md" text)
    string(REGEX MATCH "```cpp\n([^`]*)```" block "${text}")
    file(WRITE "${folder}/main.cpp" "${CMAKE_MATCH_1}")
    execute_process(COMMAND "${COMPILER}" -std=c++20 -Wall -Wextra "-I${SOURCE}/include"
        # Without libcrypto, for it makes no connection.
        "${folder}/main.cpp" -o "${folder}/program" -lboost_serialization -pthread ${run})
    check_output("${folder}/program" "hello\n1 4 9 ")
    return()
endif()

if(MODE STREQUAL "pkg-config")
    set(ENV{PKG_CONFIG_PATH} "${prefix}/share/pkgconfig")
    execute_process(COMMAND "${PKG_CONFIG}" --exact-version=${VERSION} multiprocessing ${run})
    execute_process(COMMAND "${PKG_CONFIG}" --cflags --libs multiprocessing
        OUTPUT_VARIABLE flags OUTPUT_STRIP_TRAILING_WHITESPACE ${run})
    separate_arguments(flags UNIX_COMMAND "${flags}")
    execute_process(COMMAND "${COMPILER}" -std=c++20 "${consumer}/main.cpp" -o "${folder}/consumer"
        ${flags} ${run})
else()
    # A warning about policies or deprecation is the library's fault, and an error here.
    execute_process(
        COMMAND "${CMAKE_COMMAND}" -S "${consumer}" -B "${folder}" -G "${GENERATOR}"
            -Werror=dev -Werror=deprecated
            "-DCMAKE_CXX_COMPILER=${COMPILER}" "-DCMAKE_PREFIX_PATH=${prefix}"
            -DMODE=${MODE} "-DFETCHCONTENT_SOURCE_DIR_MULTIPROCESSING=${SOURCE}"
            "-DMULTIPROCESSING_SOURCE=${SOURCE}" -DVERSION=${VERSION}
        OUTPUT_QUIET ${run})
    execute_process(COMMAND "${CMAKE_COMMAND}" --build "${folder}" ${run})
endif()
check_output("${folder}/consumer" "hello from a process\n")
