// A set of fibers that run in random order, each until it suspends itself or is done. A fiber
// stands for a thread of a thread block, but nothing here knows of warps or memory.
#ifndef STRUCTATTN_TESTS_SIMT_FIBERS_H_
#define STRUCTATTN_TESTS_SIMT_FIBERS_H_

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstdint>
#include <functional>
#include <vector>

#include "tests/simt/context.h"

namespace structattn::simt {

class Fibers {
 public:
  Fibers() = default;
  ~Fibers();
  Fibers(const Fibers&) = delete;
  Fibers& operator=(const Fibers&) = delete;

  // Decides the order of all that follows.
  void SetSeed(uint64_t seed) { random_ = seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du; }
  // A number that is uniform in [0, below) for small `below`, by xorshift64* (Vigna 2014).
  uint32_t Random(uint32_t below) {
    random_ ^= random_ >> 12;
    random_ ^= random_ << 25;
    random_ ^= random_ >> 27;
    return static_cast<uint32_t>((random_ * 0x2545f4914f6cdd1du >> 32) * below >> 32);
  }

  // Runs body(i) for all i in [0, count) and returns whether all came to their end. If not, those
  // that wait have been abandoned after a call of `stuck`.
  bool Run(int count, const std::function<void(int)>& body, const std::function<void()>& stuck);

  // ---- For a body.
  // Waits until Resume of this fiber. Throws Abandoned if that will not come. A body that ends by
  // throwing Abandoned ends all others.
  void Suspend();
  void Resume(int fiber) { runnable_.push_back(fiber); }

 private:
  boost::context::fiber Make(int index, const std::function<void(int)>& body);
  void Step(int fiber);

  std::vector<boost::context::stack_context> stacks_;  // The next run takes them again.
  std::vector<boost::context::fiber> fibers_;          // A fiber that is done is false.
  std::vector<int> runnable_;
  boost::context::fiber main_;
  bool abandoning_ = false;
  uint64_t random_ = 1;
};

}  // namespace structattn::simt

#endif  // STRUCTATTN_TESTS_SIMT_FIBERS_H_
