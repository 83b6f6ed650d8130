# SPDX-License-Identifier: BSL-1.0
#
# cmake -DROOT=include -P check.cmake: fails if a header under ROOT/multiprocessing reaches where its
# layer may not, or has what every program that includes it would have to compile. One line for each
# offence.
cmake_minimum_required(VERSION 3.20)

# What every layer may use, then the layers from the lowest to the highest: a header may include its
# own layer and those before it. What has no folder of a layer's is public. The distributed engine stands
# above all, for nobody is to have MPI who does not ask for it.
set(foundation exceptions.hpp timeout.hpp bytes.hpp none.hpp version.hpp result.hpp pool_stats.hpp)
set(layers foundation os shm pickle runtime public umbrella mpi)

function(layer_of header result)
    set(layer public)
    string(REGEX REPLACE "^multiprocessing/" "" name "${header}")
    if(header STREQUAL "multiprocessing.hpp")
        set(layer umbrella)
    elseif(name IN_LIST foundation)
        set(layer foundation)
    elseif(name MATCHES "^mpi[/.]")
        set(layer mpi)
    elseif(name MATCHES "^(os|shm|pickle|runtime)/")
        set(layer ${CMAKE_MATCH_1})
    endif()
    set(${result} ${layer} PARENT_SCOPE)
endfunction()

set(offences 0)
macro(offence text)
    message("${header}: ${text}")
    math(EXPR offences "${offences} + 1")
endmacro()

file(GLOB_RECURSE headers RELATIVE "${ROOT}" "${ROOT}/*.hpp")
if(NOT headers)
    message(FATAL_ERROR "there are no headers under '${ROOT}'")
endif()

foreach(header IN LISTS headers)
    layer_of("${header}" layer)
    list(FIND layers ${layer} rank)

    file(STRINGS "${ROOT}/${header}" first_line LIMIT_COUNT 1)
    if(NOT first_line STREQUAL "// SPDX-License-Identifier: BSL-1.0")
        offence("does not begin with its licence")
    endif()
    file(STRINGS "${ROOT}/${header}" once REGEX "^#pragma once$")
    if(NOT once)
        offence("has no #pragma once")
    endif()

    file(STRINGS "${ROOT}/${header}" includes REGEX "^[ \t]*#[ \t]*include")
    foreach(include IN LISTS includes)
        if(NOT include MATCHES "include[ \t]*<([^>]+)>")
            offence("includes with quotes: ${include}")
            continue()
        endif()
        set(included "${CMAKE_MATCH_1}")
        if(included MATCHES "^multiprocessing[/.]")
            layer_of("${included}" included_layer)
            list(FIND layers ${included_layer} included_rank)
            if(included_rank GREATER rank)
                offence("is of the layer ${layer} and includes <${included}> of ${included_layer}")
            endif()
        elseif(included MATCHES "^boost/(archive|serialization)/" AND NOT layer STREQUAL "pickle")
            offence("names an archive outside pickle/: <${included}>")
        elseif(included MATCHES "^(boost/mpi[/.]|mpi[.]h$)" AND NOT layer STREQUAL "mpi")
            offence("includes MPI outside mpi/: <${included}>")
        elseif(included MATCHES "[.]h$" AND NOT layer STREQUAL "os"
               AND NOT included STREQUAL "cxxabi.h"
               AND NOT (layer STREQUAL "mpi" AND included STREQUAL "mpi.h")
               AND NOT (layer STREQUAL "shm" AND included STREQUAL "pthread.h"))
            offence("includes a system header outside os/: <${included}>")
        endif()
    endforeach()

    if(NOT layer STREQUAL "os")
        file(STRINGS "${ROOT}/${header}" conditions
            REGEX "^[ \t]*#[ \t]*(el)?if.*(__linux__|__unix__|__APPLE__|_WIN32|__GLIBC__|__x86_64__)")
        foreach(condition IN LISTS conditions)
            offence("asks for the platform outside os/: ${condition}")
        endforeach()
    endif()

    # Such a function would be its class's key function: programs that never use the class would have
    # its table, and all that its functions call.
    file(READ "${ROOT}/${header}" text)
    string(REPLACE ";" "@" text "${text}")
    string(REGEX MATCHALL "[^@{}]*[ )]override@" declarations "${text}")
    foreach(declaration IN LISTS declarations)
        if(NOT declaration MATCHES "inline")
            string(REGEX REPLACE "^.*\n *([^\n]*)@$" "\\1" line "${declaration}")
            offence("declares a virtual function that is defined elsewhere without inline: ${line}")
        endif()
    endforeach()
endforeach()

if(offences GREATER 0)
    message(FATAL_ERROR "${offences} offences against the layers")
endif()
