# CUDA sources without CMake's CUDA language: a tree without the toolkit configures, builds and tests as a whole.
#
# TSR_NVCC, TSR_CUDA_ROOT      the compiler, or NOTFOUND; the toolkit
# TSR_CUBLASLT_LIBRARY         part of the toolkit, in a package of its own
# TSR_NCCL_INCLUDE, TSR_NCCL_LIBRARY      where NCCL is, or NOTFOUND
# tsr_cuda_objects(<out> ARCHS <sm...> SOURCES <files>)     host objects with device code for each architecture
# tsr_emulated_objects(<out> SOURCES <files>)               host objects, and the kernels translated to C (tests/emulator)
find_program(TSR_NVCC nvcc HINTS /usr/local/cuda/bin $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin)
find_program(TSR_NVCC_HOST_COMPILER g++)
if(NOT TSR_NVCC_HOST_COMPILER)
  set(TSR_NVCC TSR_NVCC-NOTFOUND) # of no use without
endif()
if(TSR_NVCC)
  get_filename_component(TSR_CUDA_ROOT ${TSR_NVCC} REALPATH)
  get_filename_component(TSR_CUDA_ROOT ${TSR_CUDA_ROOT} DIRECTORY)
  get_filename_component(TSR_CUDA_ROOT ${TSR_CUDA_ROOT} DIRECTORY)
endif()
if(TSR_NVCC AND NOT EXISTS ${TSR_CUDA_ROOT}/include/cublasLt.h)
  message(STATUS "nvcc is there and cuBLASLt's header is not: the CUDA sources are left out")
  set(TSR_NVCC TSR_NVCC-NOTFOUND)
endif()
find_library(TSR_CUBLASLT_LIBRARY cublasLt HINTS ${TSR_CUDA_ROOT}/lib64 ${TSR_CUDA_ROOT}/lib)
find_path(TSR_NCCL_INCLUDE nccl.h HINTS ${TSR_CUDA_ROOT}/include)
find_library(TSR_NCCL_LIBRARY nccl HINTS ${TSR_CUDA_ROOT}/lib64 ${TSR_CUDA_ROOT}/lib)

# Warnings are errors, in the host's part too; so are spilled registers and local memory. -fmad=false: as on the CPU, a fused
# multiply-add happens where the source says so.
set(TSR_NVCC_FLAGS -std=c++17 -O2 -fmad=false -lineinfo -Werror all-warnings -I${PROJECT_SOURCE_DIR}
    -Xcompiler=-Wall,-Wextra,-fPIC,-fvisibility=hidden,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics
    -Xptxas=-warn-spills,-warn-lmem-usage,-Werror)

function(tsr_cuda_objects out)
  cmake_parse_arguments(ARG "" "" "ARCHS;SOURCES" ${ARGN})
  set(targets)
  foreach(arch IN LISTS ARG_ARCHS)
    list(APPEND targets -gencode arch=compute_${arch},code=sm_${arch})
  endforeach()
  list(GET ARG_ARCHS -1 newest)
  list(APPEND targets -gencode arch=compute_${newest},code=compute_${newest}) # for what comes after
  set(objects)
  foreach(source IN LISTS ARG_SOURCES)
    string(REPLACE "/" "_" stem ${source})
    set(object ${CMAKE_CURRENT_BINARY_DIR}/${stem}.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${TSR_NVCC} ${TSR_NVCC_FLAGS} ${targets} -MD -MT ${object} -MF ${object}.d
              -c ${CMAKE_CURRENT_SOURCE_DIR}/${source} -o ${object}
      DEPENDS ${source} DEPFILE ${object}.d VERBATIM COMMENT "nvcc ${source}")
    list(APPEND objects ${object})
  endforeach()
  set(${out} ${objects} PARENT_SCOPE)
endfunction()

function(tsr_emulated_objects out)
  cmake_parse_arguments(ARG "" "" "SOURCES" ${ARGN})
  set(translator ${PROJECT_SOURCE_DIR}/tests/emulator/ptx_to_c.py)
  set(outputs)
  foreach(source IN LISTS ARG_SOURCES)
    get_filename_component(path ${source} ABSOLUTE)
    get_filename_component(stem ${source} NAME_WE)
    set(folder ${CMAKE_CURRENT_BINARY_DIR}/emulated_${stem})
    file(MAKE_DIRECTORY ${folder})
    add_custom_command(OUTPUT ${folder}/${stem}.o ${folder}/${stem}.ptx
      COMMAND ${TSR_NVCC} ${TSR_NVCC_FLAGS} -arch=sm_90 -cudart none --keep --keep-dir ${folder}
              -MD -MT ${folder}/${stem}.o -MF ${folder}/${stem}.d -c ${path} -o ${folder}/${stem}.o
      DEPENDS ${path} DEPFILE ${folder}/${stem}.d VERBATIM COMMENT "nvcc ${stem}.cu")
    add_custom_command(OUTPUT ${folder}/${stem}_kernels.c
      COMMAND ${Python3_EXECUTABLE} -B ${translator} ${folder}/${stem}.ptx ${folder}/${stem}_kernels.c
      DEPENDS ${folder}/${stem}.ptx ${translator} ${PROJECT_SOURCE_DIR}/tests/emulator/ptx_instructions.py
      VERBATIM COMMENT "Translating ${stem}.ptx")
    # Made by a program and read by nobody: without warnings. Every access asks the stand-ins first, so a sanitizer would find nothing there.
    set_source_files_properties(${folder}/${stem}_kernels.c PROPERTIES COMPILE_OPTIONS "-w;-fno-sanitize=all")
    list(APPEND outputs ${folder}/${stem}.o ${folder}/${stem}_kernels.c)
  endforeach()
  set(${out} ${outputs} PARENT_SCOPE)
endfunction()
