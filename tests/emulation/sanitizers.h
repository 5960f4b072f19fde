/* What AddressSanitizer and ThreadSanitizer must be told; nothing in other builds.
 *
 * In the race build kernels are instrumented and the emulator is not (EMULATION_TSAN): the emulator
 * says itself which thread reads or writes what, and which meetings order one thread after another.
 */
#ifndef RINGREEL_EMULATION_SANITIZERS_H
#define RINGREEL_EMULATION_SANITIZERS_H

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(EMULATION_TSAN)
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void *p, unsigned long bytes);
extern "C" void __tsan_write_range(void *p, unsigned long bytes);
extern "C" void AnnotateIgnoreReadsBegin(const char *file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char *file, int line);
extern "C" void AnnotateIgnoreWritesBegin(const char *file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char *file, int line);
#endif

/* For a loop over arrays of its own that takes most of the time. */
#if defined(__SANITIZE_ADDRESS__)
#define NOT_INSTRUMENTED __attribute__((no_sanitize("address", "undefined")))
#else
#define NOT_INSTRUMENTED
#endif

namespace emulation
{

#if defined(__SANITIZE_ADDRESS__)
inline void forbid(void *p, size_t bytes) { ASAN_POISON_MEMORY_REGION(p, bytes); }
inline void allow(void *p, size_t bytes) { ASAN_UNPOISON_MEMORY_REGION(p, bytes); }
#else
inline void forbid(void *, size_t) {}
inline void allow(void *, size_t) {}
#endif

#if defined(EMULATION_TSAN)
/* What the current thread did before release(p) comes before what another does after acquire(p). */
inline void release(void *p) { __tsan_release(p); }
inline void acquire(void *p) { __tsan_acquire(p); }
inline void note_read(const void *p, size_t bytes)
{
    __tsan_read_range(const_cast<void *>(p), bytes);
}
inline void note_write(void *p, size_t bytes) { __tsan_write_range(p, bytes); }
/* What the emulator does for itself until the end of the scope is no access of the thread's: it
 * calls memcpy and malloc, which ThreadSanitizer sees in any build. No switch of threads inside. */
struct Unseen {
    Unseen()
    {
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~Unseen()
    {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    }
};
/* What follows is done in the name of another fiber, until the end of the scope. */
struct InTheNameOf {
    void *before;
    explicit InTheNameOf(void *tsan) : before(__tsan_get_current_fiber())
    {
        __tsan_switch_to_fiber(tsan, __tsan_switch_to_fiber_no_sync);
    }
    ~InTheNameOf() { __tsan_switch_to_fiber(before, __tsan_switch_to_fiber_no_sync); }
};
#else
inline void release(void *) {}
inline void acquire(void *) {}
inline void note_read(const void *, size_t) {}
inline void note_write(void *, size_t) {}
struct Unseen {
    Unseen() {}
};
struct InTheNameOf {
    explicit InTheNameOf(void *) {}
};
#endif

} // namespace emulation

#endif
