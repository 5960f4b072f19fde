/* Device memory: poison, limits, surroundings, guard; pinned memory; copies. */
#include "tests/emulation/runtime/harness.h"

#include <cmath>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif

static void fresh_memory_is_nan(void **)
{
    succeeds({}, [] {
        float values[100];
        OK(cudaMemcpy(values, device_array<float>(100), sizeof values, cudaMemcpyDeviceToHost));
        for (float value : values) EXPECT(std::isnan(value));
    });
}

static void memory_runs_out(void **)
{
    succeeds({"MEMORY=1M"}, [] {
        void *a, *b;
        size_t free, total;
        OK(cudaMalloc(&a, 600 << 10));
        GIVES(cudaErrorMemoryAllocation, cudaMalloc(&b, 600 << 10));
        EXPECT(b == nullptr);
        GIVES(cudaErrorMemoryAllocation, cudaGetLastError());
        GIVES(cudaSuccess, cudaGetLastError()); /* it is not sticky */
        GIVES(cudaErrorMemoryAllocation, cudaMalloc(&b, SIZE_MAX));
        OK(cudaMemGetInfo(&free, &total));
        EXPECT(total == 1 << 20 && free == total - (600 << 10));
        OK(cudaFree(a));
        OK(cudaMalloc(&b, 1 << 20));
        OK(cudaMalloc(&a, 0));
        EXPECT(a == nullptr);
        OK(cudaFree(nullptr));
        OK(cudaSetDevice(1)); /* has memory of its own */
        OK(cudaMalloc(&a, 1 << 20));
    });
}

static void allocation_fails_when_told(void **)
{
    succeeds({"FAIL=malloc:2"}, [] {
        void *p;
        OK(cudaMalloc(&p, 16));
        GIVES(cudaErrorMemoryAllocation, cudaMalloc(&p, 16));
        OK(cudaMalloc(&p, 16));
    });
}

static void freed_twice(void **)
{
    succeeds({}, [] {
        char *p = device_array<char>(16);
        GIVES(cudaErrorInvalidValue, cudaFree(p + 1));
        OK(cudaFree(p));
        GIVES(cudaErrorInvalidValue, cudaFree(p));
    });
}

/* One byte beside an allocation whose size is no multiple of 256. */
static void writes_beside(ptrdiff_t at, bool sync)
{
    char *p = device_array<char>(1000);
    OK(kernel(nullptr, [=] { ((volatile char *)p)[at] = 7; }));
    GIVES(cudaErrorIllegalAddress, sync ? cudaDeviceSynchronize() : cudaFree(p));
    GIVES(cudaErrorIllegalAddress, cudaMalloc((void **)&p, 16)); /* it is sticky */
    _exit(3);
}

static void writing_beside_is_found(void **)
{
    const char *behind = sanitized ? "AddressSanitizer" : "0 bytes behind an allocation of 1000";
    const char *before = sanitized ? "AddressSanitizer" : "1 bytes before an allocation of 1000";
    fails_saying(behind, {}, [] { writes_beside(1000, false); });
    fails_saying(behind, {"GUARD=1"}, [] { writes_beside(1000, true); });
    fails_saying(before, {}, [] { writes_beside(-1, false); });
    fails_saying("operation test touched device memory", {}, [] { writes_beside(1024, false); });
    fails_saying("24 bytes behind the end of an allocation of 1000", {},
                 [] { writes_beside(1024, false); });
}

static void using_freed_memory_is_found(void **)
{
    fails_saying("operation test touched device memory", {}, [] {
        float *p = device_array<float>(4);
        OK(cudaFree(p));
        OK(kernel(nullptr, [=] { *(volatile float *)p = 1; }));
        cudaDeviceSynchronize();
    });
}

static void guard_keeps_the_host_out(void **)
{
    auto read_on_host = [] {
        float *p = device_array<float>(4);
        OK(cudaMemset(p, 0, 16));
        OK(kernel(nullptr, [=] { p[1] = 5; }));
        EXPECT(read_back(p + 1) == 5);
        EXPECT(*(volatile float *)(p + 1) == 5);
    };
    succeeds({"GUARD=0"}, read_on_host);
    fails_saying("the host touched device memory", {"GUARD=1"}, read_on_host);
    fails_saying("byte 4 of an allocation of 16", {"GUARD=1"}, read_on_host);
}

static void pinned_memory(void **)
{
    succeeds({}, [] {
        void *p, *same;
        cudaPointerAttributes a;
        OK(cudaHostAlloc(&p, 64, cudaHostAllocMapped));
        OK(cudaHostGetDevicePointer(&same, p, 0));
        EXPECT(p == same);
        OK(cudaPointerGetAttributes(&a, (char *)p + 63));
        EXPECT(a.type == cudaMemoryTypeHost && a.hostPointer == (char *)p + 63);
        EXPECT(emulation::device_memory(p));
        OK(cudaFreeHost(p));
        GIVES(cudaErrorInvalidValue, cudaFreeHost(p));

        static char own[64];
        OK(cudaHostRegister(own, sizeof own, cudaHostRegisterDefault));
        GIVES(cudaErrorHostMemoryAlreadyRegistered, cudaHostRegister(own + 8, 8, 0));
        GIVES(cudaErrorInvalidValue, cudaFreeHost(own));
        OK(cudaHostUnregister(own));
        GIVES(cudaErrorHostMemoryNotRegistered, cudaHostUnregister(own));
        OK(cudaPointerGetAttributes(&a, own));
        EXPECT(a.type == cudaMemoryTypeUnregistered && !emulation::device_memory(own));

        char *device = device_array<char>(8);
        OK(cudaPointerGetAttributes(&a, device));
        EXPECT(a.type == cudaMemoryTypeDevice && a.device == 0 && a.devicePointer == device);
        EXPECT(emulation::device_memory(device + 7) && !emulation::device_memory(device + 8));
    });
}

static void copies_of_every_kind(void **)
{
    succeeds({"GUARD=1", "STREAMS=random:3"}, [] {
        int host[8] = {1, 2, 3, 4, 5, 6, 7, 8}, back[8] = {};
        int *a = device_array<int>(8), *b = device_array<int>(8);
        OK(cudaMemcpy(a, host, sizeof host, cudaMemcpyHostToDevice));
        OK(cudaMemcpy(b, a, sizeof host, cudaMemcpyDeviceToDevice));
        OK(cudaMemset(a, 0, sizeof host));
        OK(cudaMemcpy(back, b, sizeof host, cudaMemcpyDefault));
        EXPECT(!memcmp(host, back, sizeof host));
        EXPECT(read_back(a + 7) == 0);
        GIVES(cudaErrorInvalidMemcpyDirection,
              cudaMemcpy(back, b, sizeof host, cudaMemcpyHostToDevice));
        GIVES(cudaErrorInvalidMemcpyDirection,
              cudaMemcpy(a, b, sizeof host, cudaMemcpyDeviceToHost));
        GIVES(cudaErrorInvalidValue, cudaMemcpy(a, host, sizeof host + 4, cudaMemcpyHostToDevice));
        GIVES(cudaErrorInvalidValue, cudaMemset(b + 1, 0, sizeof host));
        OK(cudaMemcpy(a, host, 0, cudaMemcpyHostToDevice));
    });
}

static void copies_of_rows(void **)
{
    succeeds({"STREAMS=fifo"}, [] {
        int host[3][4] = {{1, 2, 3, 4}, {5, 6, 7, 8}, {9, 10, 11, 12}}, back[3][2] = {};
        int *a = device_array<int>(3 * 5);
        OK(cudaMemset2D(a, 20, 0, 20, 3));
        OK(cudaMemcpy2D(a, 20, host, 16, 8, 3, cudaMemcpyHostToDevice));
        OK(cudaMemcpy2D(back, 8, a, 20, 8, 3, cudaMemcpyDeviceToHost));
        EXPECT(back[0][0] == 1 && back[2][0] == 9 && back[2][1] == 10);
        EXPECT(read_back(a + 2) == 0);
        GIVES(cudaErrorInvalidPitchValue, cudaMemcpy2D(a, 4, host, 16, 8, 3, cudaMemcpyDefault));
        GIVES(cudaErrorInvalidValue, cudaMemcpy2D(a, 20, host, 16, 8, 4, cudaMemcpyDefault));
        GIVES(cudaErrorInvalidValue, cudaMemset2D(a, SIZE_MAX / 2, 0, 8, 4));
    });
}

/* Pageable memory is read when the call is made, pinned memory when the copy runs. */
static void when_the_host_is_read(void **)
{
    succeeds({"STREAMS=fifo"}, [] {
        int pageable = 1, *pinned, *a = device_array<int>(2);
        cudaStream_t stream;
        OK(cudaHostAlloc((void **)&pinned, sizeof *pinned, 0));
        OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        *pinned = 1;
        OK(cudaMemcpyAsync(a, &pageable, 4, cudaMemcpyHostToDevice, stream));
        OK(cudaMemcpyAsync(a + 1, pinned, 4, cudaMemcpyHostToDevice, stream));
        pageable = *pinned = 2;
        OK(cudaStreamSynchronize(stream));
        EXPECT(read_back(a) == 1 && read_back(a + 1) == 2);

        int back = 0;
        *pinned = 0;
        OK(cudaMemcpyAsync(pinned, a, 4, cudaMemcpyDeviceToHost, stream));
        EXPECT(*pinned == 0); /* not yet */
        OK(cudaMemcpyAsync(&back, a, 4, cudaMemcpyDeviceToHost, stream));
        EXPECT(back == 1 && *pinned == 1);
    });
}

int main(void)
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(fresh_memory_is_nan),        cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(allocation_fails_when_told), cmocka_unit_test(freed_twice),
        cmocka_unit_test(writing_beside_is_found),    cmocka_unit_test(using_freed_memory_is_found),
        cmocka_unit_test(guard_keeps_the_host_out),   cmocka_unit_test(pinned_memory),
        cmocka_unit_test(copies_of_every_kind),       cmocka_unit_test(copies_of_rows),
        cmocka_unit_test(when_the_host_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
