# SPDX-License-Identifier: BSL-1.0
#
# cmake -DPROGRAM=… -DEXPECTED=… [-DLAUNCHER=…] -P compare.cmake: runs an example, by the command
# LAUNCHER if there is one, and fails unless it succeeds, prints exactly what the file EXPECTED
# holds, and says nothing on stderr.
cmake_minimum_required(VERSION 3.20)

# Open MPI: for root, and more ranks than processors.
set(ENV{OMPI_ALLOW_RUN_AS_ROOT} 1)
set(ENV{OMPI_ALLOW_RUN_AS_ROOT_CONFIRM} 1)
set(ENV{OMPI_MCA_rmaps_base_oversubscribe} 1)

execute_process(COMMAND ${LAUNCHER} "${PROGRAM}"
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
