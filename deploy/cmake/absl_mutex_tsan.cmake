# Lets the thread sanitizer see what abseil's locks order: every program of the tsan preset links
# tests/tools/absl_mutex_tsan.cc, and the linker sends abseil's functions that it wraps there.
if(NOT "${STRUCTATTN_SANITIZER}" STREQUAL "thread")
  return()
endif()

foreach(symbol
    _ZN4absl7debian35Mutex4LockEv
    _ZN4absl7debian35Mutex6UnlockEv
    _ZN4absl7debian35Mutex7TryLockEv
    _ZN4absl7debian35Mutex10ReaderLockEv
    _ZN4absl7debian35Mutex12ReaderUnlockEv
    _ZN4absl7debian35MutexD1Ev
    _ZN4absl7debian319ReleasableMutexLock7ReleaseEv
    _ZN4absl7debian37CondVar4WaitEPNS0_5MutexE
    _ZN4absl7debian37CondVar15WaitWithTimeoutEPNS0_5MutexENS0_8DurationE
    _ZN4absl7debian37CondVar16WaitWithDeadlineEPNS0_5MutexENS0_4TimeE
    _ZN4absl7debian312Notification6NotifyEv
    _ZNK4absl7debian312Notification19WaitForNotificationEv
    _ZNK4absl7debian312Notification30WaitForNotificationWithTimeoutENS0_8DurationE)
  add_link_options(-Wl,--wrap=${symbol})
endforeach()
add_library(structattn_absl_mutex_tsan STATIC
            ${PROJECT_SOURCE_DIR}/tests/tools/absl_mutex_tsan.cc)
target_link_libraries(structattn_absl_mutex_tsan PRIVATE absl::synchronization)
link_libraries(structattn_absl_mutex_tsan)
