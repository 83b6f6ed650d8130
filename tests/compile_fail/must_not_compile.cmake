# SPDX-License-Identifier: BSL-1.0
#
# cmake -DCOMPILER=… -DINCLUDES=… -DCASE=file.cpp -P must_not_compile.cmake
cmake_minimum_required(VERSION 3.20)

get_filename_component(name "${CASE}" NAME)
file(STRINGS "${CASE}" expectation REGEX "^// EXPECT: ")
if(NOT expectation)
    message(FATAL_ERROR "${name} has no line '// EXPECT: regular expression'")
endif()
string(REGEX REPLACE "^// EXPECT: " "" expectation "${expectation}")

set(options "")
foreach(folder IN LISTS INCLUDES)
    if(NOT folder STREQUAL "/usr/include")
        list(APPEND options "-I${folder}")
    endif()
endforeach()

# Messages in English, with plain quotes. The first is to be the expected one; that the compiler looks
# for no more saves half of its time.
set(ENV{LC_ALL} C)
execute_process(
    COMMAND "${COMPILER}" -std=c++20 -fsyntax-only -Wfatal-errors ${options} "${CASE}"
    RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)

if(result STREQUAL "0")
    message(FATAL_ERROR "${name} compiles, which it must not")
endif()
# Compilers break long lines as they please.
string(REGEX REPLACE "[ \t\r\n]+" " " output_in_one_line "${output}")
if(NOT output_in_one_line MATCHES "${expectation}")
    message(FATAL_ERROR "${name} is not refused with '${expectation}' but with:\n${output}")
endif()
