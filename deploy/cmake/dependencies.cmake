# Every library that structattn stands on, and why. All come from Debian 12 except LibTorch.

# gRPC, Protobuf, abseil, spdlog, GoogleTest: the field's standards; one Debian release keeps their
# versions consistent with each other.
find_package(Threads REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(spdlog CONFIG REQUIRED)
# OpenSSL: SHA-256 of digests; gRPC already links it.
find_package(OpenSSL REQUIRED)
# xxHash (headers alone): the digest of weights, at the speed of memory.
find_path(XXHASH_INCLUDE_DIR xxhash.h REQUIRED)
# nlohmann-json: config.json, tokenizer.json and the client's JSON, by the most used C++ parser.
find_package(nlohmann_json 3.11 REQUIRED)
# CLI11: subcommands, environment defaults and good messages for both programs.
find_package(CLI11 REQUIRED)
# Highway: SIMD with run-time dispatch, for the CPU kernels.
find_path(HIGHWAY_INCLUDE_DIR hwy/highway.h REQUIRED)
find_library(HIGHWAY_LIBRARY hwy REQUIRED)
add_library(structattn_highway INTERFACE)
target_include_directories(structattn_highway SYSTEM INTERFACE ${HIGHWAY_INCLUDE_DIR})
target_link_libraries(structattn_highway INTERFACE ${HIGHWAY_LIBRARY})

# Boost.Context: fibers, for the emulator that runs the CUDA kernels on the host (tests/simt). Only
# programs of the tests link it.
find_package(Boost 1.74 REQUIRED COMPONENTS context)

# LibTorch (the wheel that deploy/setup.sh unpacks below .deps): memory and matrix products on every
# device. Only targets that link structattn_libtorch see its headers. find_package(Torch) is not used:
# it stops where there is no CUDA toolkit. Its libraries find CUDA's relative to themselves, and CMake
# puts this folder into the run path of what links them.
set(STRUCTATTN_TORCH_DIR ${PROJECT_SOURCE_DIR}/.deps/torch CACHE PATH "LibTorch")
if(NOT EXISTS ${STRUCTATTN_TORCH_DIR}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "No LibTorch in ${STRUCTATTN_TORCH_DIR}: run deploy/setup.sh first, or set "
                      "STRUCTATTN_TORCH_DIR to a folder with include/ and lib/.")
endif()
foreach(library torch_cpu c10)
  add_library(structattn_${library} SHARED IMPORTED)
  set_target_properties(structattn_${library} PROPERTIES
    IMPORTED_LOCATION ${STRUCTATTN_TORCH_DIR}/lib/lib${library}.so
    INTERFACE_INCLUDE_DIRECTORIES ${STRUCTATTN_TORCH_DIR}/include)
endforeach()
add_library(structattn_libtorch INTERFACE)
target_link_libraries(structattn_libtorch INTERFACE structattn_torch_cpu structattn_c10)
