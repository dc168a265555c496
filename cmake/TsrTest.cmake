# Tests of Tessera. A test's name is the stem it tests; its functions are sentences.
find_library(CMOCKA_LIBRARY cmocka REQUIRED)
find_package(Python3 REQUIRED COMPONENTS Interpreter)

# As root, and with more ranks than cores, Open MPI must be told that this is meant.
set(TSR_MPIEXEC_FLAGS --oversubscribe --bind-to none CACHE STRING "Flags of mpirun in tests")
# Open MPI's plugins are gone at exit, so a leak of theirs is known by the whole chain of its callers only.
set(TSR_MPI_ENVIRONMENT OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    OMPI_MCA_btl_vader_single_copy_mechanism=none ASAN_OPTIONS=fast_unwind_on_malloc=0:malloc_context_size=40
    LSAN_OPTIONS=print_suppressions=0:suppressions=${PROJECT_SOURCE_DIR}/tests/support/leaks.supp
    TSAN_OPTIONS=ignore_noninstrumented_modules=1:suppressions=${PROJECT_SOURCE_DIR}/tests/support/races.supp)

# The real model (SmolLM2-135M-Instruct.Q4_1.gguf), which is not part of the tree. Tests that need it skip without.
set(TSR_TEST_MODEL "" CACHE FILEPATH "Model file for the tests that need a real one")

# tsr_test(<name> USES <rooms> [RANKS n...] [ISAS] [MODEL]) - tests/test_<name>.c, one ctest per rank count;
# with ISAS one per instruction set (a set that the machine lacks is said and passed over). With MODEL the test needs
# the real model: it finds its path in the variable TSR_TEST_MODEL (tests/support/real_model.h).
function(tsr_test name)
  cmake_parse_arguments(ARG "ISAS;MODEL" "" "USES;RANKS" ${ARGN})
  add_executable(test_${name} test_${name}.c)
  target_link_libraries(test_${name} PRIVATE tsr_flags tsr_test_support ${CMOCKA_LIBRARY} m)
  target_compile_definitions(test_${name} PRIVATE TSR_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data")
  foreach(used IN LISTS ARG_USES)
    target_link_libraries(test_${name} PRIVATE tsr_${used})
  endforeach()
  if("engine" IN_LIST ARG_USES)
    target_link_libraries(test_${name} PRIVATE tsr_test_model)
  endif()
  set(timeout 300)
  set(environment)
  if(ARG_MODEL)
    set(timeout 900)
    set(environment "TSR_TEST_MODEL=${TSR_TEST_MODEL}")
  endif()
  if(ARG_ISAS)
    foreach(isa plain avx2 avx512)
      add_test(NAME ${name}.${isa} COMMAND test_${name})
      set_tests_properties(${name}.${isa} PROPERTIES LABELS unit TIMEOUT ${timeout}
        ENVIRONMENT "TSR_ISA=${isa};${environment}" SKIP_RETURN_CODE 77)
    endforeach()
  elseif(NOT ARG_RANKS)
    add_test(NAME ${name} COMMAND test_${name})
    set_tests_properties(${name} PROPERTIES LABELS unit TIMEOUT ${timeout}
      ENVIRONMENT "${environment}" SKIP_RETURN_CODE 77)
  endif()
  foreach(n IN LISTS ARG_RANKS)
    add_test(NAME ${name}.np${n} COMMAND ${MPIEXEC_EXECUTABLE} ${TSR_MPIEXEC_FLAGS}
             ${MPIEXEC_NUMPROC_FLAG} ${n} $<TARGET_FILE:test_${name}>)
    set_tests_properties(${name}.np${n} PROPERTIES LABELS ranks PROCESSORS 2 TIMEOUT ${timeout}
      ENVIRONMENT "${TSR_MPI_ENVIRONMENT};${environment}" SKIP_RETURN_CODE 77)
  endforeach()
endfunction()

# tsr_fuzz(<name> USES <rooms>) - tests/fuzz_<name>.c has LLVMFuzzerTestOneInput. With TSR_FUZZ it is
# a libFuzzer program; always, the corpus tests/data/fuzz/<name>/ replays as a plain test.
function(tsr_fuzz name)
  cmake_parse_arguments(ARG "" "" "USES" ${ARGN})
  set(used_rooms)
  foreach(used IN LISTS ARG_USES)
    list(APPEND used_rooms tsr_${used})
  endforeach()
  if("engine" IN_LIST ARG_USES)
    list(APPEND used_rooms tsr_test_model PkgConfig::JANSSON)
  endif()
  add_executable(replay_${name} fuzz_${name}.c fuzz_replay.c)
  target_link_libraries(replay_${name} PRIVATE tsr_flags tsr_test_support ${used_rooms} m)
  add_test(NAME fuzz.${name} COMMAND replay_${name} ${PROJECT_SOURCE_DIR}/tests/data/fuzz/${name})
  set_tests_properties(fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT 120)
  if(TSR_FUZZ)
    add_executable(fuzz_${name} fuzz_${name}.c)
    target_compile_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    target_link_libraries(fuzz_${name} PRIVATE tsr_flags tsr_test_support ${used_rooms} m)
  endif()
endfunction()
