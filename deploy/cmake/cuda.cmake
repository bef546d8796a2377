# The CUDA language, where nvcc is found and STRUCTATTN_CUDA is on. Sets STRUCTATTN_HAVE_CUDA, by which
# kernels/CMakeLists.txt takes its *.cu files or, without CUDA, cuda/no_cuda.cc. No preprocessor symbol
# follows from it, and no target needs a GPU to build or to start.

set(STRUCTATTN_HAVE_CUDA OFF)
if(STRUCTATTN_CUDA)
  # nvcc of the machine first, then the one that deploy/setup.sh --gpu brings.
  find_program(STRUCTATTN_NVCC nvcc
               HINTS /usr/local/cuda/bin ${PROJECT_SOURCE_DIR}/.deps/cuda/bin)
  if(STRUCTATTN_NVCC)
    set(CMAKE_CUDA_COMPILER ${STRUCTATTN_NVCC})
    # Ampere, Ada, Hopper, Blackwell; the data centre's and the workstation's of each.
    set(CMAKE_CUDA_ARCHITECTURES 80 86 89 90 100 120 CACHE STRING "GPU architectures")
    enable_language(CUDA)
    # CMake 3.25 does not know that this nvcc speaks C++20: tell it.
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_EXTENSIONS OFF)
    add_compile_options(
      "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;--extended-lambda>"
      # A kernel that spills registers or puts an array into local memory, on any architecture, is
      # refused here. Debug code (-G) does both by design and is never built.
      "$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Xptxas -warn-spills,-warn-lmem-usage,-Werror>")
    set(STRUCTATTN_HAVE_CUDA ON)
  endif()
endif()
message(STATUS "CUDA: ${STRUCTATTN_HAVE_CUDA}")
