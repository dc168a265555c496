cmake_minimum_required(VERSION 3.25)
# cmake -DTESSERA=<program> -DOUT=<folder> -P write_pages.cmake
# What `tessera manual` and `tessera completion` write, in files: man1/tessera.1 with a page for each command that it names.
file(MAKE_DIRECTORY ${OUT}/man1)
function(write file)
  execute_process(COMMAND ${TESSERA} ${ARGN} OUTPUT_FILE ${OUT}/${file} COMMAND_ERROR_IS_FATAL ANY)
endfunction()

write(man1/tessera.1 manual)
file(STRINGS ${OUT}/man1/tessera.1 commands REGEX "^\\.BR tessera.*-[a-z]+ \\(1\\)")
foreach(command IN LISTS commands)
  string(REGEX REPLACE ".*-([a-z]+) .*" "\\1" command ${command})
  write(man1/tessera-${command}.1 manual ${command})
endforeach()
write(tessera.bash completion bash)
write(_tessera completion zsh)
write(tessera.fish completion fish)
file(TOUCH ${OUT}/written)
