// Describes to the thread sanitizer what absl::Mutex, absl::CondVar and absl::Notification order.
// Debian's abseil is not instrumented, so without this every guarded access would be reported as a
// race. Linked into every program of the tsan preset (deploy/cmake/absl_mutex_tsan.cmake), where
// the linker sends each function named __wrap_X here and calls of __real_X to abseil. Never part of
// a release.
//
// Not covered, and so not to be used in the project: absl::Condition with LockWhen and Await.
#include <sanitizer/tsan_interface.h>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"

// Mangled names, as the linker knows them; each stands once in the list of absl_mutex_tsan.cmake.
#define STRUCTATTN_WRAP(result, symbol, ...)      \
  extern "C" result __real_##symbol(__VA_ARGS__); \
  extern "C" result __wrap_##symbol(__VA_ARGS__)

namespace {

// Around a wait, the sanitizer sees an unlock before and a lock after it.
void BeforeWait(absl::Mutex* mutex) {
  __tsan_mutex_pre_unlock(mutex, 0);
  __tsan_mutex_post_unlock(mutex, 0);
}

void AfterWait(absl::Mutex* mutex) {
  __tsan_mutex_pre_lock(mutex, 0);
  __tsan_mutex_post_lock(mutex, 0, 0);
}

}  // namespace

// absl::Mutex::Lock() and the other members, by what c++filt says of their names.
STRUCTATTN_WRAP(void, _ZN4absl7debian35Mutex4LockEv, absl::Mutex* mutex) {
  __tsan_mutex_pre_lock(mutex, 0);
  __real__ZN4absl7debian35Mutex4LockEv(mutex);
  __tsan_mutex_post_lock(mutex, 0, 0);
}

STRUCTATTN_WRAP(void, _ZN4absl7debian35Mutex6UnlockEv, absl::Mutex* mutex) {
  __tsan_mutex_pre_unlock(mutex, 0);
  __real__ZN4absl7debian35Mutex6UnlockEv(mutex);
  __tsan_mutex_post_unlock(mutex, 0);
}

STRUCTATTN_WRAP(bool, _ZN4absl7debian35Mutex7TryLockEv, absl::Mutex* mutex) {
  __tsan_mutex_pre_lock(mutex, __tsan_mutex_try_lock);
  const bool locked = __real__ZN4absl7debian35Mutex7TryLockEv(mutex);
  __tsan_mutex_post_lock(mutex, __tsan_mutex_try_lock | (locked ? 0 : __tsan_mutex_try_lock_failed),
                         0);
  return locked;
}

STRUCTATTN_WRAP(void, _ZN4absl7debian35Mutex10ReaderLockEv, absl::Mutex* mutex) {
  __tsan_mutex_pre_lock(mutex, __tsan_mutex_read_lock);
  __real__ZN4absl7debian35Mutex10ReaderLockEv(mutex);
  __tsan_mutex_post_lock(mutex, __tsan_mutex_read_lock, 0);
}

STRUCTATTN_WRAP(void, _ZN4absl7debian35Mutex12ReaderUnlockEv, absl::Mutex* mutex) {
  __tsan_mutex_pre_unlock(mutex, __tsan_mutex_read_lock);
  __real__ZN4absl7debian35Mutex12ReaderUnlockEv(mutex);
  __tsan_mutex_post_unlock(mutex, __tsan_mutex_read_lock);
}

// The constructor is inline and announces the mutex by itself.
STRUCTATTN_WRAP(void, _ZN4absl7debian35MutexD1Ev, absl::Mutex* mutex) {
  __tsan_mutex_destroy(mutex, 0);
  __real__ZN4absl7debian35MutexD1Ev(mutex);
}

// A lock's first and only member is its mutex, which Release() sets to null.
STRUCTATTN_WRAP(void, _ZN4absl7debian319ReleasableMutexLock7ReleaseEv,
                absl::ReleasableMutexLock* lock) {
  absl::Mutex* mutex = *reinterpret_cast<absl::Mutex**>(lock);
  __tsan_mutex_pre_unlock(mutex, 0);
  __real__ZN4absl7debian319ReleasableMutexLock7ReleaseEv(lock);
  __tsan_mutex_post_unlock(mutex, 0);
}

STRUCTATTN_WRAP(void, _ZN4absl7debian37CondVar4WaitEPNS0_5MutexE, absl::CondVar* condition,
                absl::Mutex* mutex) {
  BeforeWait(mutex);
  __real__ZN4absl7debian37CondVar4WaitEPNS0_5MutexE(condition, mutex);
  AfterWait(mutex);
}

STRUCTATTN_WRAP(bool, _ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE,
                absl::CondVar* condition, absl::Mutex* mutex, absl::Duration timeout) {
  BeforeWait(mutex);
  const bool expired = __real__ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE(
      condition, mutex, timeout);
  AfterWait(mutex);
  return expired;
}

STRUCTATTN_WRAP(bool, _ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE,
                absl::CondVar* condition, absl::Mutex* mutex, absl::Time deadline) {
  BeforeWait(mutex);
  const bool expired = __real__ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE(
      condition, mutex, deadline);
  AfterWait(mutex);
  return expired;
}

STRUCTATTN_WRAP(void, _ZN4absl7debian312Notification6NotifyEv, absl::Notification* event) {
  __tsan_release(event);
  __real__ZN4absl7debian312Notification6NotifyEv(event);
}

STRUCTATTN_WRAP(void, _ZNK4absl7debian312Notification19WaitForNotificationEv,
                absl::Notification* event) {
  __real__ZNK4absl7debian312Notification19WaitForNotificationEv(event);
  __tsan_acquire(event);
}

STRUCTATTN_WRAP(bool,
                _ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE,
                absl::Notification* event, absl::Duration timeout) {
  const bool notified =
      __real__ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE(
          event, timeout);
  if (notified) __tsan_acquire(event);
  return notified;
}
