// A set of fibers that run in random order, each until it suspends itself or is done. Used by
// Machine, one fiber a thread of the block; knows nothing of warps or memory.
#ifndef STRUCTATTN_TESTS_SIMT_FIBERS_H_
#define STRUCTATTN_TESTS_SIMT_FIBERS_H_

#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <cstdint>
#include <functional>
#include <vector>

namespace structattn::simt {

// Thrown through the body of a fiber that shall not go on.
struct Abandoned {};

class Fibers {
 public:
  Fibers() = default;
  ~Fibers();
  Fibers(const Fibers&) = delete;
  Fibers& operator=(const Fibers&) = delete;

  // Runs body(i) of all i in [0, count); returns whether all came to their end. If not, those that
  // wait have been abandoned after a call of `stuck`. `pick(n)` chooses one of n.
  bool Run(int count, const std::function<void(int)>& body, const std::function<void()>& stuck,
           const std::function<uint64_t(uint64_t)>& pick);

  // ---- Within a body.
  // Until Resume of this fiber. Throws Abandoned if that will not come.
  void Suspend();
  void Resume(int fiber) { runnable_.push_back(fiber); }
  // Ends all bodies, this one by throwing.
  [[noreturn]] void Abandon();

 private:
  boost::context::fiber Make(int index, const std::function<void(int)>& body);
  void Step(int fiber);

  std::vector<boost::context::stack_context> stacks_;  // Kept for the next run.
  std::vector<boost::context::fiber> fibers_;          // False where done.
  std::vector<int> runnable_;
  boost::context::fiber main_;
  bool abandoning_ = false;
};

}  // namespace structattn::simt

#endif  // STRUCTATTN_TESTS_SIMT_FIBERS_H_
