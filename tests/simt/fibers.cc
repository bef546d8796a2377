// See fibers.h. Each fiber has a stack with a guard page.
#include "tests/simt/fibers.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace structattn::simt {
namespace {

// A stack has room for a thread's local arrays, in unoptimised builds, too. Only touched pages take
// memory.
constexpr size_t kStackBytes = 256 * 1024;

boost::context::protected_fixedsize_stack StackAllocator() {
  return boost::context::protected_fixedsize_stack(kStackBytes);
}

// Lends a stack to a fiber, whose end does not free it.
struct KeepStack {
  void deallocate(boost::context::stack_context&) noexcept {}
};

}  // namespace

Fibers::~Fibers() {
  for (boost::context::stack_context& stack : stacks_) StackAllocator().deallocate(stack);
}

boost::context::fiber Fibers::Make(int index, const std::function<void(int)>& body) {
  while (static_cast<int>(stacks_.size()) <= index) stacks_.push_back(StackAllocator().allocate());
  const boost::context::stack_context& stack = stacks_[index];
  const boost::context::preallocated place(stack.sp, stack.size, stack);
  return boost::context::fiber(std::allocator_arg, place, KeepStack(),
                               [this, index, &body](boost::context::fiber&& main) {
                                 main_ = std::move(main);
                                 try {
                                   if (!abandoning_) body(index);
                                 } catch (const Abandoned&) {
                                   abandoning_ = true;
                                 }
                                 return std::move(main_);
                               });
}

void Fibers::Step(int fiber) { fibers_[fiber] = std::move(fibers_[fiber]).resume(); }

bool Fibers::Run(int count, const std::function<void(int)>& body,
                 const std::function<void()>& stuck) {
  abandoning_ = false;
  fibers_.clear();
  runnable_.clear();
  for (int i = 0; i < count; ++i) {
    fibers_.push_back(Make(i, body));
    runnable_.push_back(i);
  }
  while (!runnable_.empty() && !abandoning_) {
    const int next =
        std::exchange(runnable_[Random(static_cast<uint32_t>(runnable_.size()))], runnable_.back());
    runnable_.pop_back();
    Step(next);
  }
  const auto waits = [](const boost::context::fiber& fiber) { return static_cast<bool>(fiber); };
  if (!abandoning_) {
    if (std::none_of(fibers_.begin(), fibers_.end(), waits)) return true;
    stuck();
    abandoning_ = true;
  }
  for (int i = 0; i < count; ++i) {
    if (fibers_[i]) Step(i);
  }
  return false;
}

void Fibers::Suspend() {
  main_ = std::move(main_).resume();
  if (abandoning_) throw Abandoned();
}

}  // namespace structattn::simt
