# libtessera: the rooms up to engine/ as one shared and one static library, with the one header.
# Only what engine/tessera.h marks TSR_API can be seen from outside the shared one.
add_library(tessera_shared SHARED $<TARGET_OBJECTS:tsr_engine>)
set_target_properties(tessera_shared PROPERTIES OUTPUT_NAME tessera LINKER_LANGUAGE C
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
  LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
target_link_libraries(tessera_shared PRIVATE tsr_flags tsr_engine)

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

# The installed header asks for its neighbour tessera/status.h in place of base/status.h.
include(GNUInstallDirs)
file(READ engine/tessera.h header)
string(REPLACE "\"base/status.h\"" "\"tessera/status.h\"" header "${header}")
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/include/tessera.h CONTENT "${header}" @ONLY)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS engine/tessera.h)
install(TARGETS tessera RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS tessera_shared LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${archive} DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${PROJECT_BINARY_DIR}/include/tessera.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES base/status.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tessera)
configure_file(${PROJECT_SOURCE_DIR}/cmake/tessera.pc.in ${PROJECT_BINARY_DIR}/tessera.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/tessera.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
