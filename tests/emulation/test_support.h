/* What the tests share. One source for the emulator, where every case runs in all orders and
 * timings, and for nvcc and a GPU, where it runs once. Speaks TAP, as tests/run.sh reads it. */
#ifndef RINGREEL_TEST_SUPPORT_H
#define RINGREEL_TEST_SUPPORT_H

#include "kernels/cuda/wgmma.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

struct Case {
    const char *name;
    void (*run)();
};

inline bool case_failed;

/* A failed expectation is printed, and the case goes on. */
#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("# %s:%d: %s: ", __FILE__, __LINE__, #condition);                               \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
            case_failed = true;                                                                    \
        }                                                                                          \
    } while (0)

/* ---- device memory --------------------------------------------------------------------------- */

#ifdef CUDA_EMULATION

inline void *device_allocate(size_t bytes)
{
    void *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!p) abort();
    return p;
}
inline void device_release(void *p) { free(p); }
inline void device_copy(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }
inline int capability() { return 90; }

#else

inline void must(cudaError_t error)
{
    if (error == cudaSuccess) return;
    printf("Bail out! %s\n", cudaGetErrorString(error));
    exit(1);
}
inline void *device_allocate(size_t bytes)
{
    void *p;
    must(cudaMalloc(&p, bytes));
    return p;
}
inline void device_release(void *p) { must(cudaFree(p)); }
inline void device_copy(void *to, const void *from, size_t bytes)
{
    must(cudaMemcpy(to, from, bytes, cudaMemcpyDefault)); /* waits for the kernel */
}
/* 80, 90, 100 … */
inline int capability()
{
    int major, minor;
    must(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    must(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    return 10 * major + minor;
}

#endif

template <class T> class OnDevice
{
  public:
    explicit OnDevice(size_t n) : OnDevice(std::vector<T>(n)) {}
    explicit OnDevice(const std::vector<T> &values)
        : n_(values.size()), p_(static_cast<T *>(device_allocate(n_ * sizeof(T))))
    {
        device_copy(p_, values.data(), n_ * sizeof(T));
    }
    OnDevice(const OnDevice &) = delete;
    ~OnDevice() { device_release(p_); }
    operator T *() { return p_; }
    std::vector<T> back() const
    {
        std::vector<T> values(n_);
        device_copy(static_cast<void *>(values.data()), p_, n_ * sizeof(T));
        return values;
    }

  private:
    size_t n_;
    T *p_;
};

/* ---- numbers --------------------------------------------------------------------------------- */

/* Small whole numbers: sums of their products are exact in fp32, in every order. */
inline float small_number(size_t i) { return static_cast<float>((i * 2654435761u >> 7) % 9) - 4; }

inline uint16_t bf16_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
inline std::vector<uint16_t> small_bf16(size_t n)
{
    std::vector<uint16_t> values(n);
    for (size_t i = 0; i < n; i++) values[i] = bf16_bits(small_number(i));
    return values;
}
inline float bf16_value(uint16_t x)
{
    uint32_t bits = uint32_t{x} << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* How many differ; NaN differs from everything. */
template <class T> size_t different(const std::vector<T> &x, const std::vector<T> &y)
{
    size_t count = x.size() == y.size() ? 0 : 1;
    for (size_t i = 0; i < x.size() && i < y.size(); i++) count += !(x[i] == y[i]);
    return count;
}
#define EXPECT_SAME(x, y) EXPECT(different(x, y) == 0, "%zu differ", different(x, y))

/* ---- tensor maps ----------------------------------------------------------------------------- */

inline CUresult encode_tiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                             void *base, const cuuint64_t *extent, const cuuint64_t *stride,
                             const cuuint32_t *box, CUtensorMapSwizzle swizzle)
{
    const cuuint32_t ones[5] = {1, 1, 1, 1, 1};
#ifdef CUDA_EMULATION
    auto encode = cuTensorMapEncodeTiled;
#else
    decltype(&cuTensorMapEncodeTiled) encode;
    cudaDriverEntryPointQueryResult found;
    must(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled",
                                          reinterpret_cast<void **>(&encode), 12000,
                                          cudaEnableDefault, &found));
#endif
    return encode(map, type, rank, base, extent, stride, box, ones, CU_TENSOR_MAP_INTERLEAVE_NONE,
                  swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

/* ---- running --------------------------------------------------------------------------------- */

inline bool run_case(const Case &c, const char *mode)
{
    case_failed = false;
    c.run();
    printf("%s - %s%s\n", case_failed ? "not ok" : "ok", c.name, mode);
    fflush(stdout);
    return !case_failed;
}

#ifdef CUDA_EMULATION

inline void set_modes(const char *order, const char *timing)
{
    setenv("RINGREEL_EMULATION_ORDER", order, 1);
    setenv("RINGREEL_EMULATION_ASYNC", timing, 1);
}

/* slow, and they find what is wrong in whatever order it happens */
#if defined(RACE_CHECK) || defined(__SANITIZE_ADDRESS__)
inline const char *const ORDERS[] = {"forward", "random:1"};
inline const char *const TIMINGS[] = {"eager", "late"};
#else
inline const char *const ORDERS[] = {"forward", "reverse", "random:1"};
inline const char *const TIMINGS[] = {"eager", "late", "random:1"};
#endif

template <size_t N> int run_cases(const Case (&cases)[N])
{
    int failed = 0;
    for (const Case &c : cases)
        for (const char *order : ORDERS)
            for (const char *timing : TIMINGS) {
                set_modes(order, timing);
                failed += !run_case(c, (std::string(", ") + order + ", " + timing).c_str());
            }
    return failed ? 1 : 0;
}

#else

template <size_t N> int run_cases(const Case (&cases)[N])
{
    int failed = 0;
    for (const Case &c : cases) failed += !run_case(c, "");
    return failed ? 1 : 0;
}

#endif
#endif
