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

# LibTorch (the PyPI wheel, unpacked by deploy/setup.sh below .deps): memory, streams and matrix
# products on CUDA. Only targets that link structattn_libtorch see its headers: it carries an old
# protobuf in its include folder.
set(STRUCTATTN_TORCH_DIR ${PROJECT_SOURCE_DIR}/.deps/torch CACHE PATH "LibTorch")
find_library(TORCH_CPU_LIBRARY torch_cpu PATHS ${STRUCTATTN_TORCH_DIR}/lib REQUIRED NO_DEFAULT_PATH)
find_library(C10_LIBRARY c10 PATHS ${STRUCTATTN_TORCH_DIR}/lib REQUIRED NO_DEFAULT_PATH)
add_library(structattn_libtorch INTERFACE)
target_include_directories(structattn_libtorch SYSTEM INTERFACE ${STRUCTATTN_TORCH_DIR}/include)
target_link_libraries(structattn_libtorch INTERFACE ${TORCH_CPU_LIBRARY} ${C10_LIBRARY})
target_link_options(structattn_libtorch INTERFACE -Wl,-rpath,${STRUCTATTN_TORCH_DIR}/lib
                    -Wl,-rpath-link,${STRUCTATTN_TORCH_DIR}/lib)
