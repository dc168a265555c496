# libtessera: the rooms up to engine/ as one shared and one static library, with one header, for pkg-config and for CMake.
# Only what engine/tessera.map lists can be seen from outside the shared one; the number behind its name is that of the ABI.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

add_library(tessera_shared SHARED $<TARGET_OBJECTS:tsr_engine>)
set_target_properties(tessera_shared PROPERTIES OUTPUT_NAME tessera EXPORT_NAME tessera LINKER_LANGUAGE C
  VERSION ${TSR_ABI}.${PROJECT_VERSION} SOVERSION ${TSR_ABI}
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}
  LINK_DEPENDS ${PROJECT_SOURCE_DIR}/engine/tessera.map)
target_link_libraries(tessera_shared PRIVATE tsr_flags tsr_engine)
target_link_options(tessera_shared PRIVATE LINKER:--version-script=${PROJECT_SOURCE_DIR}/engine/tessera.map)
target_include_directories(tessera_shared INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

# One archive of all rooms: what the linker takes from it is up to the program.
set(archive ${PROJECT_BINARY_DIR}/libtessera.a)
set(script "create ${archive}\n")
foreach(room base kernels parallel kv engine)
  string(APPEND script "addlib $<TARGET_FILE:tsr_${room}>\n")
endforeach()
file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/archive.mri CONTENT "${script}save\nend\n")
add_custom_command(OUTPUT ${archive}
  COMMAND ${CMAKE_AR} -M < ${PROJECT_BINARY_DIR}/archive.mri
  DEPENDS tsr_base tsr_kernels tsr_parallel tsr_kv tsr_engine
  COMMENT "Gathering libtessera.a")
add_custom_target(tessera_static ALL DEPENDS ${archive})

# The installed header asks for its neighbour tessera/status_code.h in place of base/status_code.h.
file(READ engine/tessera.h header)
string(REPLACE "\"base/status_code.h\"" "\"tessera/status_code.h\"" header "${header}")
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/include/tessera.h CONTENT "${header}" @ONLY)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS engine/tessera.h)

# What a program that takes the archive needs besides.
set(TSR_STATIC_LIBS ${JANSSON_LDFLAGS} ${PCRE2_LDFLAGS} ${UTF8PROC_LDFLAGS} ${HWLOC_LDFLAGS} ${MPI_C_LIBRARIES} -lm -lpthread)
if(TSR_CUDA)
  list(APPEND TSR_STATIC_LIBS ${TSR_CUDA_ROOT}/lib64/libcudart_static.a -ldl -lrt)
endif()
string(JOIN " " TSR_STATIC_LIBS ${TSR_STATIC_LIBS})

# Whatever --prefix is, and wherever the tree is moved then.
file(RELATIVE_PATH TSR_PREFIX_FROM_PC /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" TSR_PREFIX_FROM_PC ${TSR_PREFIX_FROM_PC})

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/tessera)
configure_file(cmake/tessera.pc.in ${PROJECT_BINARY_DIR}/tessera.pc @ONLY)
configure_package_config_file(cmake/tesseraConfig.cmake.in ${PROJECT_BINARY_DIR}/tesseraConfig.cmake
  INSTALL_DESTINATION ${package} PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tesseraConfigVersion.cmake COMPATIBILITY SameMinorVersion)

# Manual pages and completions, written by the program itself.
set(pages ${PROJECT_BINARY_DIR}/pages)
add_custom_command(OUTPUT ${pages}/written
  COMMAND ${CMAKE_COMMAND} -DTESSERA=$<TARGET_FILE:tessera> -DOUT=${pages} -P ${PROJECT_SOURCE_DIR}/cmake/write_pages.cmake
  DEPENDS tessera cmake/write_pages.cmake COMMENT "Writing manual pages and completions")
add_custom_target(tessera_pages ALL DEPENDS ${pages}/written)
install(DIRECTORY ${pages}/man1 DESTINATION ${CMAKE_INSTALL_MANDIR})
install(FILES docs/libtessera.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)
install(FILES ${pages}/tessera.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME tessera)
install(FILES ${pages}/_tessera DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${pages}/tessera.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)

install(TARGETS tessera RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS tessera_shared EXPORT tesseraTargets LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${archive} DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${PROJECT_BINARY_DIR}/include/tessera.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES base/status_code.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tessera)
install(FILES ${PROJECT_BINARY_DIR}/tessera.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${PROJECT_BINARY_DIR}/tesseraConfig.cmake ${PROJECT_BINARY_DIR}/tesseraConfigVersion.cmake DESTINATION ${package})
install(EXPORT tesseraTargets NAMESPACE tessera:: DESTINATION ${package})
