// The EmulatedCudaOps of simt_faults. It takes the ops that the shared library named by
// STRUCTATTN_FAULTY_KERNELS has from there, and the others from the program. faults_test.py builds
// such libraries.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/ops.cuh"

namespace structattn {
namespace {

CudaOps LoadOps() {
  CudaOps ops = emulated::kOps;
  const char* path = std::getenv("STRUCTATTN_FAULTY_KERNELS");
  if (path == nullptr) return ops;
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  void* const install = library == nullptr ? nullptr : dlsym(library, "StructattnInstall");
  if (install == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    std::exit(3);
  }
  reinterpret_cast<void (*)(CudaOps*)>(install)(&ops);
  return ops;
}

}  // namespace

const CudaOps* EmulatedCudaOps() {
  static const CudaOps ops = LoadOps();
  return &ops;
}

}  // namespace structattn
