# SPDX-License-Identifier: BSL-1.0
#
# cmake -DPROGRAM=… -DEXPECTED=… -P compare.cmake: runs an example and fails unless it succeeds,
# prints exactly what the file EXPECTED holds, and says nothing on stderr.
cmake_minimum_required(VERSION 3.20)

execute_process(COMMAND "${PROGRAM}"
    RESULT_VARIABLE result OUTPUT_VARIABLE printed ERROR_VARIABLE complaints TIMEOUT 50)
file(READ "${EXPECTED}" expected)

if(NOT result STREQUAL "0")
    message(FATAL_ERROR "${PROGRAM} ended with ${result}:\n${printed}${complaints}")
endif()
if(NOT complaints STREQUAL "")
    message(FATAL_ERROR "${PROGRAM} complained:\n${complaints}")
endif()
if(NOT printed STREQUAL expected)
    message(FATAL_ERROR "${PROGRAM} printed:\n${printed}\ninstead of what ${EXPECTED} holds:\n${expected}")
endif()
