# The functions that every folder's CMakeLists.txt uses.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(GTest REQUIRED)

# capstan_library(NAME SOURCES a.cc … DEPS base …): the library of one folder, linked as capstan_NAME.
# DEPS may name other folders (base), or any CMake target or -lflag.
function(capstan_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(capstan_${name} STATIC ${ARG_SOURCES})
  target_compile_options(capstan_${name} PRIVATE -Wall -Wextra -Werror=return-type -Wshadow=local)
  _capstan_link(capstan_${name} "${ARG_DEPS}")
endfunction()

# capstan_executable(NAME SOURCES … DEPS …): one program.
function(capstan_executable name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE -Wall -Wextra -Werror=return-type -Wshadow=local)
  _capstan_link(${name} "${ARG_DEPS}")
endfunction()

# capstan_fuzz(NAME SOURCES … DEPS … [ROUNDS 3000]): a fuzzer with its own main for `make test`, under libFuzzer for
# `make fuzz`.
function(capstan_fuzz name)
  cmake_parse_arguments(ARG "" "ROUNDS" "SOURCES;DEPS" ${ARGN})
  capstan_executable(${name} SOURCES ${ARG_SOURCES} DEPS ${ARG_DEPS})
  if(CAPSTAN_FUZZ)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  endif()
  add_test(NAME ${name} COMMAND ${name} ${ARG_ROUNDS} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
endfunction()

# capstan_test(NAME SOURCES a_test.cc … DEPS … [LABELS slow] [TIMEOUT 120]): one GoogleTest program,
# registered with ctest as one test of that name. It runs in the source root, so that it finds golden files.
function(capstan_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE -Wall -Wextra -Werror=return-type)
  _capstan_link(${name} "${ARG_DEPS}")
  target_link_libraries(${name} PRIVATE GTest::gmock GTest::gtest GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()

function(_capstan_link target deps)
  foreach(dep ${deps})
    if(EXISTS ${CMAKE_SOURCE_DIR}/src/${dep}/CMakeLists.txt)
      target_link_libraries(${target} PUBLIC capstan_${dep})
    else()
      target_link_libraries(${target} PUBLIC ${dep})
    endif()
  endforeach()
  target_link_libraries(${target} PUBLIC Threads::Threads)
endfunction()
