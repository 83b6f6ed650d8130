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
    target_compile_options(multiprocessing_development INTERFACE
        -fsanitize=${MULTIPROCESSING_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(multiprocessing_development INTERFACE
        -fsanitize=${MULTIPROCESSING_SANITIZE})
    # g++ takes what sanitizers add for uses of what was never set.
    target_compile_options(multiprocessing_development INTERFACE
        $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
endif()

# For tests in which whole processes take part: the compiler's time counts for more than theirs, and
# half of it goes on what -O3 adds.
set(optimised_less $<$<CONFIG:Release>:-O1>)
