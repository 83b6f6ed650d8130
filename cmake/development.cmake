# SPDX-License-Identifier: BSL-1.0
#
# What our own targets are built with and a consumer's never: warnings that are errors, sanitizers,
# and a build type where none is chosen.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES AND top_level)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

add_library(multiprocessing_development INTERFACE)
target_link_libraries(multiprocessing_development INTERFACE multiprocessing)
target_compile_options(multiprocessing_development INTERFACE
    -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
if(MULTIPROCESSING_WERROR)
    target_compile_options(multiprocessing_development INTERFACE -Werror)
endif()

if(MULTIPROCESSING_SANITIZE)
    # vptr is left out: it finds objects of wrong classes where the process has no descriptor left to
    # look with, as some tests have not.
    target_compile_options(multiprocessing_development INTERFACE
        -fsanitize=${MULTIPROCESSING_SANITIZE} -fno-sanitize=vptr -fno-sanitize-recover=all
        -fno-omit-frame-pointer)
    target_link_options(multiprocessing_development INTERFACE
        -fsanitize=${MULTIPROCESSING_SANITIZE})
    if(CMAKE_CXX_COMPILER_ID MATCHES Clang AND MULTIPROCESSING_SANITIZE MATCHES address)
        # A library of its own, as g++ has it: the tests' new and delete stand before the sanitizer's.
        execute_process(
            COMMAND ${CMAKE_CXX_COMPILER}
                -print-file-name=libclang_rt.asan-${CMAKE_SYSTEM_PROCESSOR}.so
            OUTPUT_VARIABLE runtime OUTPUT_STRIP_TRAILING_WHITESPACE)
        get_filename_component(runtime ${runtime} DIRECTORY)
        target_link_options(multiprocessing_development INTERFACE
            -shared-libasan LINKER:-rpath,${runtime})
    endif()
    # g++ takes what sanitizers add for uses of what was never set.
    target_compile_options(multiprocessing_development INTERFACE
        $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
endif()

# For tests in which whole processes take part: the compiler's time counts for more than theirs, and
# half of it goes on what -O3 adds.
set(optimised_less $<$<CONFIG:Release>:-O1>)
