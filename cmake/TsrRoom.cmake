# tsr_room(<folder> USES <rooms or single headers it may include> SOURCES <files>)
#
# One library per folder. USES is the rule of which room may include which, and the only copy
# of it: the test `rooms` (cmake/check_rooms.cmake) reads this list.
function(tsr_room room)
  cmake_parse_arguments(ARG "" "" "USES;SOURCES" ${ARGN})
  add_library(tsr_${room} STATIC ${ARG_SOURCES})
  target_link_libraries(tsr_${room} PRIVATE tsr_flags)
  foreach(used IN LISTS ARG_USES)
    string(REGEX REPLACE "/.*" "" used_room ${used}) # engine/tessera.h -> engine
    target_link_libraries(tsr_${room} PUBLIC tsr_${used_room})
  endforeach()
  string(JOIN " " uses ${ARG_USES})
  set_property(GLOBAL APPEND PROPERTY TSR_ROOMS "${room}: ${uses}")
endfunction()
