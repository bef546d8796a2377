// See machine.h: launches, thread blocks, warps and barriers.
#include "tests/simt/machine.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

namespace structattn::simt {
namespace {

constexpr unsigned kLargestGridX = 0x7fffffffu;
constexpr unsigned kLargestGridYZ = 0xffffu;

bool Same(Place a, Place b) {
  return a.line() == b.line() && a.column() == b.column() && a.file_name() == b.file_name();
}

// Throws for what cudaLaunchKernel and cudaFuncSetAttribute refuse.
void RefuseImpossible(const Launch& launch) {
  const LaunchShape& shape = launch.shape;
  const auto refuse = [&](const std::string& what) {
    throw std::runtime_error(std::string(launch.kernel) + ": " + what);
  };
  if (shape.grid_x > kLargestGridX || shape.grid_y > kLargestGridYZ ||
      shape.grid_z > kLargestGridYZ) {
    refuse("grid of " + std::to_string(shape.grid_x) + " x " + std::to_string(shape.grid_y) +
           " x " + std::to_string(shape.grid_z) + " blocks; up to 2147483647 x 65535 x 65535");
  }
  const int allowed = std::min(launch.max_shared_bytes, kMaxSharedBytes);
  if (shape.shared_bytes < 0 || shape.shared_bytes > allowed) {
    refuse(std::to_string(shape.shared_bytes) + " bytes of shared memory; up to " +
           std::to_string(allowed));
  }
}

}  // namespace

Machine& Machine::Get() {
  static Machine machine;
  return machine;
}

void Machine::SetSeed(uint64_t seed) {
  const auto lock = global_.Lock();
  fibers_.SetSeed(seed);
}

std::vector<Report> Machine::TakeReports() {
  const auto lock = global_.Lock();
  return context_.reports.Take();
}

std::vector<LaunchCounts> Machine::TakeLaunches() {
  const auto lock = global_.Lock();
  return std::exchange(launches_, {});
}

void Machine::Run(const Launch& launch) {
  RefuseImpossible(launch);
  const auto lock = global_.Lock();
  BeginLaunch(launch);
  std::vector<uint32_t> blocks(context_.counts.blocks);
  std::iota(blocks.begin(), blocks.end(), 0u);
  for (size_t left = blocks.size(); left > 0; --left) {
    std::swap(blocks[fibers_.Random(static_cast<uint32_t>(left))], blocks[left - 1]);
    BeginBlock(launch, blocks[left - 1]);
    if (!RunBlock(launch)) break;
  }
  launches_.push_back(std::exchange(context_.counts, {}));
}

void Machine::BeginLaunch(const Launch& launch) {
  const LaunchShape& shape = launch.shape;
  context_.kernel = launch.kernel;
  context_.reports_left = Context::kMostReports;
  context_.clock.launch_first = context_.clock.now + 1;
  context_.counts.kernel = launch.kernel;
  context_.counts.blocks = int64_t{shape.grid_x} * shape.grid_y * shape.grid_z;
  context_.counts.threads = launch.threads;
  context_.counts.shared_bytes = shape.shared_bytes;
  block_threads_ = launch.threads;
  threads_.resize(launch.threads);
  warps_.resize(launch.threads / kLanes);
}

void Machine::BeginBlock(const Launch& launch, uint32_t block) {
  const LaunchShape& shape = launch.shape;
  context_.block = {static_cast<int>(block % shape.grid_x),
                    static_cast<int>(block / shape.grid_x % shape.grid_y),
                    static_cast<int>(block / shape.grid_x / shape.grid_y)};
  context_.clock.block_first = ++context_.clock.now;
  shared_.Begin(shape.shared_bytes);
  for (Thread& thread : threads_) {
    thread.state = State::kRunnable;
    thread.committed = 0;
    thread.copies.clear();
  }
  for (Warp& warp : warps_) {
    warp.waiting = 0;
    warp.exited = 0;
  }
  at_barrier_ = 0;
  exited_ = 0;
}

bool Machine::RunBlock(const Launch& launch) {
  const bool done = fibers_.Run(
      block_threads_,
      [&](int thread) {
        context_.thread = thread;
        launch.run(launch.params);
        Exit();
      },
      [&] { ReportDeadlock(); });
  for (Warp& warp : warps_) warp.log.Flush(context_.counts);
  return done;
}

void Machine::CopyAsync16(int offset, const void* from, bool valid, Place place) {
  if (valid && !global_.NoteRead(from, kCopyBytes, place)) valid = false;
  if (!shared_.BeginCopy(offset, place)) return;
  own().copies.push_back({offset, valid ? from : nullptr, own().committed, place});
  ++(valid ? context_.counts.copies : context_.counts.zero_fills);
  context_.counts.shared_stored_bytes += kCopyBytes;
  Log({static_cast<uint64_t>(offset), place, AccessKind::kCopy, kCopyBytes});
  if (!valid) return;
  context_.counts.global_loaded_bytes += kCopyBytes;
  Log({reinterpret_cast<uintptr_t>(from), place, AccessKind::kGlobalLoad, kCopyBytes});
}

void Machine::WaitCopies(int commits) {
  constexpr unsigned char kZeros[kCopyBytes] = {};
  Thread& thread = own();
  const auto under_way = [&](const Copy& copy) {
    return copy.commits + commits >= thread.committed;
  };
  const auto left = std::find_if(thread.copies.begin(), thread.copies.end(), under_way);
  for (auto copy = thread.copies.begin(); copy != left; ++copy) {
    const bool readable =
        copy->from != nullptr && global_.NoteRead(copy->from, kCopyBytes, copy->place);
    shared_.EndCopy(copy->offset, copy->place, readable ? copy->from : kZeros);
  }
  thread.copies.erase(thread.copies.begin(), left);
}

void Machine::Wait(State state, Place place) {
  const int me = thread();
  threads_[me].state = state;
  threads_[me].place = place;
  fibers_.Suspend();
  context_.thread = me;
  threads_[me].state = State::kRunnable;
}

bool Machine::Arrive(Warp& warp, Collective kind, Place place) {
  const bool differs = warp.waiting > 0 && (warp.kind != kind || !Same(warp.place, place));
  if (differs || warp.exited > 0) {
    ReportDivergence(ReportKind::kDivergentCollective, "is here", place);
  }
  warp.kind = kind;
  warp.place = place;
  if (++warp.waiting == kLanes) return true;
  Wait(State::kAtCollective, place);
  return false;
}

void Machine::Release(Warp& warp) {
  warp.waiting = 0;
  warp.log.Flush(context_.counts);
  const int first = thread() / kLanes * kLanes;
  for (int i = first; i < first + kLanes; ++i) {
    if (i != thread()) fibers_.Resume(i);
  }
}

void Machine::Barrier(Place place) {
  if (exited_ > 0 || (at_barrier_ > 0 && !Same(barrier_place_, place))) {
    ReportDivergence(ReportKind::kBarrierDivergence, "is here", place);
  }
  barrier_place_ = place;
  if (++at_barrier_ < block_threads_) return Wait(State::kAtBarrier, place);
  at_barrier_ = 0;
  ++context_.clock.now;
  ++context_.counts.barriers;
  for (Warp& warp : warps_) warp.log.Flush(context_.counts);
  for (int i = 0; i < block_threads_; ++i) {
    if (i != thread()) fibers_.Resume(i);
  }
}

void Machine::Exit() {
  Thread& thread = own();
  Warp& warp = warps_[context_.thread / kLanes];
  if (!thread.copies.empty()) {
    context_.Add(ReportKind::kPendingCopyAtExit, {{context_.thread, thread.copies[0].place}},
                 std::to_string(thread.copies.size()) + " copies, the first from here");
  }
  if (warp.waiting > 0) {
    ReportDivergence(ReportKind::kDivergentCollective, "has exited", warp.place);
  }
  if (at_barrier_ > 0) {
    ReportDivergence(ReportKind::kBarrierDivergence, "has exited", barrier_place_);
  }
  thread.state = State::kExited;
  ++exited_;
  if (++warp.exited == kLanes) warp.log.Flush(context_.counts);
}

std::string Machine::WhereThreadsWait(int begin, int end) const {
  const auto where = [&](int i) {
    switch (threads_[i].state) {
      case State::kRunnable:
        return std::string("can go on");
      case State::kAtCollective:
        return "at the collective " + ToString(threads_[i].place);
      case State::kAtBarrier:
        return "at the barrier " + ToString(threads_[i].place);
      case State::kExited:
        return std::string("exited");
    }
    return std::string();
  };
  std::string text;
  for (int first = begin; first < end;) {
    int last = first;
    while (last + 1 < end && where(last + 1) == where(first)) ++last;
    text += (text.empty() ? "threads " : ", ") + std::to_string(first) + "-" +
            std::to_string(last) + " " + where(first);
    first = last + 1;
  }
  return text;
}

void Machine::ReportDivergence(ReportKind kind, const std::string& here, Place place) {
  const bool in_warp = kind == ReportKind::kDivergentCollective;
  const int begin = in_warp ? thread() / kLanes * kLanes : 0;
  const int end = in_warp ? begin + kLanes : block_threads_;
  context_.Add(kind, {{thread(), place}}, here + "; " + WhereThreadsWait(begin, end));
  throw Abandoned();
}

void Machine::ReportDeadlock() {
  std::vector<Party> parties;
  for (int i = 0; i < block_threads_; ++i) {
    const Place place = threads_[i].place;
    const bool waits = threads_[i].state != State::kExited;
    if (waits && std::none_of(parties.begin(), parties.end(),
                              [&](const Party& party) { return Same(party.place, place); })) {
      parties.push_back({i, place});
    }
  }
  context_.reports_left = Context::kMostReports;  // No thread runs that could be ended.
  context_.Add(ReportKind::kDeadlock, parties, WhereThreadsWait(0, block_threads_));
}

void Machine::LoadMatrices(int offset, bool transposed, Place place, uint32_t (&m)[4]) {
  MatrixLoad mine = {.offset = offset, .matrices = {}};
  const Collective kind =
      transposed ? Collective::kLoadMatricesTransposed : Collective::kLoadMatrices;
  Collect(kind, place, &mine, [&](const std::array<MatrixLoad*, kLanes>& lanes) {
    const int me = thread();
    std::array<Row, kLanes> rows;
    for (int lane = 0; lane < kLanes; ++lane) {
      context_.thread = me / kLanes * kLanes + lane;  // A bad address belongs to that lane.
      shared_.Read(lanes[lane]->offset, sizeof(Row), place, &rows[lane], kSeveralThreads);
    }
    context_.thread = me;
    Distribute(rows, transposed, lanes);
    CheckBankConflicts(lanes, place);
  });
  std::copy(mine.matrices.begin(), mine.matrices.end(), m);
}

void Machine::CheckBankConflicts(const std::array<MatrixLoad*, kLanes>& lanes, Place place) {
  std::array<uint64_t, kLanes> offsets;
  for (int lane = 0; lane < kLanes; ++lane) offsets[lane] = lanes[lane]->offset;
  const Wavefronts wavefronts = CountWavefronts(offsets, sizeof(Row));
  LaunchCounts& counts = context_.counts;
  ++counts.matrix_loads;
  counts.shared_loaded_bytes += kLanes * sizeof(Row);
  counts.matrix_load_wavefronts.actual += wavefronts.actual;
  counts.matrix_load_wavefronts.ideal += wavefronts.ideal;
  if (wavefronts.actual == wavefronts.ideal) return;
  context_.Add(ReportKind::kBankConflict, {{thread(), place}},
               std::to_string(wavefronts.actual) + " wavefronts for " +
                   std::to_string(wavefronts.ideal) + " matrices");
}

// ---- simt.h.
void RegisterMemory(const void* begin, size_t bytes, Access access) {
  Machine::Get().global().Register(begin, bytes, access);
}
void UnregisterMemory(const void* begin) { Machine::Get().global().Unregister(begin); }
void SetSeed(uint64_t seed) { Machine::Get().SetSeed(seed); }
std::vector<Report> TakeReports() { return Machine::Get().TakeReports(); }
std::vector<LaunchCounts> TakeLaunches() { return Machine::Get().TakeLaunches(); }

bool CountsWork() { return true; }

}  // namespace structattn::simt
