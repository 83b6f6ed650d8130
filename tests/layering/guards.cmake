# SPDX-License-Identifier: BSL-1.0
#
# cmake -DREADELF=readelf -DPROGRAM=file -P guards.cmake: fails if a function of the library in the
# program has a static variable that is made at its first use. A child forked while another thread
# makes it would wait for that thread for ever; os::Lazy is for that. (A thread's own variable is
# nobody else's to wait for.)
cmake_minimum_required(VERSION 3.20)

execute_process(COMMAND "${READELF}" --symbols --wide "${PROGRAM}"
    OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
# The Itanium ABI's names: of something in namespace multiprocessing; and of a guard (GV) of
# something local (Z) to a function in that namespace.
if(NOT symbols MATCHES "_ZNK?15multiprocessing")
    message(FATAL_ERROR "'${PROGRAM}' has nothing of the library in it, or no symbols")
endif()

string(REGEX MATCHALL "OBJECT[^\n]* _ZGVZNK?15multiprocessing[^\n]*" guards "${symbols}")
foreach(guard IN LISTS guards)
    string(REGEX REPLACE ".* " "" name "${guard}")
    message("made at first use, behind a guard that a fork may catch locked: ${name}")
endforeach()
list(LENGTH guards count)
if(count GREATER 0)
    message(FATAL_ERROR "${count} guarded static variables")
endif()
