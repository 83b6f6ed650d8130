# SPDX-License-Identifier: BSL-1.0
#
# The installed package: headers, the CMake package and a pkg-config file. There is nothing binary
# in it, so it all goes under share/ and its version file does not ask for a pointer size.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir ${CMAKE_INSTALL_DATADIR}/cmake/multiprocessing)
set(pkgconfig_dir ${CMAKE_INSTALL_DATADIR}/pkgconfig)

install(TARGETS multiprocessing EXPORT multiprocessingTargets
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.hpp")
install(EXPORT multiprocessingTargets NAMESPACE multiprocessing:: DESTINATION ${package_dir})
# A file of its own, which is read only by those who ask for the component.
install(TARGETS multiprocessing_mpi EXPORT multiprocessingMpiTargets)
install(EXPORT multiprocessingMpiTargets NAMESPACE multiprocessing:: DESTINATION ${package_dir})

configure_package_config_file(
    cmake/multiprocessingConfig.cmake.in ${PROJECT_BINARY_DIR}/multiprocessingConfig.cmake
    INSTALL_DESTINATION ${package_dir}
    NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
    ${PROJECT_BINARY_DIR}/multiprocessingConfigVersion.cmake
    COMPATIBILITY SameMinorVersion
    ARCH_INDEPENDENT)
install(FILES
    ${PROJECT_BINARY_DIR}/multiprocessingConfig.cmake
    ${PROJECT_BINARY_DIR}/multiprocessingConfigVersion.cmake
    DESTINATION ${package_dir})

# The prefix is found from the file's own place: `cmake --install --prefix` may yet choose another.
file(RELATIVE_PATH prefix_from_pkgconfig
     ${CMAKE_INSTALL_PREFIX}/${pkgconfig_dir} ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/multiprocessing.pc.in ${PROJECT_BINARY_DIR}/multiprocessing.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/multiprocessing.pc DESTINATION ${pkgconfig_dir})
