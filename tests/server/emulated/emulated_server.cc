// What makes the server's own main.cc a server on emulated kernels: structattn-server-emulated
// takes
// `--device emulated` and ends with kExitReports when the emulator has anything to report.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/server/emulated/torch_memory.h"
#include "tests/simt/simt.h"

namespace structattn {
namespace {

constexpr int kExitReports = 9;  // None of the server's own.

// Around main: static objects are made before it and destroyed after it.
class EmulatorWatch {
 public:
  EmulatorWatch() { RegisterTorchMemory(); }
  ~EmulatorWatch() {
    const std::string reports = simt::Describe(simt::TakeReports());
    if (reports.empty()) return;
    std::fprintf(stderr, "%s\n", reports.c_str());
    std::fflush(stderr);
    _exit(kExitReports);
  }
};

const EmulatorWatch watch;

}  // namespace
}  // namespace structattn
