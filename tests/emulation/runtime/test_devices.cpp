/* Devices, settings, names, and the driver's function that is handed out. */
#include "tests/emulation/runtime/harness.h"

#include <cuda.h>

static void devices(void **)
{
    succeeds({"DEVICES=2", "DEVICE=sm_80", "MEMORY=3G"}, [] {
        int count, value;
        cudaDeviceProp p;
        char bus[2][32];
        OK(cudaGetDeviceCount(&count));
        EXPECT(count == 2);
        OK(cudaGetDeviceProperties(&p, 1));
        EXPECT(p.major == 8 && p.minor == 0 && p.totalGlobalMem == 3ull << 30);
        EXPECT(p.warpSize == 32 && p.sharedMemPerBlockOptin == 163 << 10);
        OK(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, 1));
        EXPECT(value == 8);
        GIVES(cudaErrorInvalidValue,
              cudaDeviceGetAttribute(&value, cudaDevAttrMaxTexture1DWidth, 0));
        GIVES(cudaErrorInvalidDevice, cudaSetDevice(2));
        OK(cudaSetDevice(1));
        OK(cudaGetDevice(&value));
        EXPECT(value == 1);
        for (int i = 0; i < 2; i++) OK(cudaDeviceGetPCIBusId(bus[i], sizeof bus[i], i));
        EXPECT(strcmp(bus[0], bus[1]) != 0);
        static int function;
        OK(cudaFuncSetAttribute(&function, cudaFuncAttributeMaxDynamicSharedMemorySize, 163 << 10));
        GIVES(cudaErrorInvalidValue,
              cudaFuncSetAttribute(&function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   164 << 10));
        OK(cudaRuntimeGetVersion(&value));
        EXPECT(value == CUDART_VERSION);
    });
    succeeds({}, [] {
        cudaDeviceProp p;
        OK(cudaGetDeviceProperties(&p, 7));
        EXPECT(p.major == 9 && p.sharedMemPerBlockOptin == 227 << 10);
    });
}

static void no_device(void **)
{
    succeeds({"DEVICES=0"}, [] {
        int count = -1, version;
        void *p;
        cudaStream_t stream;
        GIVES(cudaErrorNoDevice, cudaGetDeviceCount(&count));
        EXPECT(count == 0);
        GIVES(cudaErrorNoDevice, cudaSetDevice(0));
        GIVES(cudaErrorNoDevice, cudaMalloc(&p, 16));
        GIVES(cudaErrorNoDevice, cudaStreamCreate(&stream));
        GIVES(cudaErrorNoDevice, kernel(nullptr, [] {}));
        GIVES(cudaErrorNoDevice, cudaGetLastError());
        OK(cudaDriverGetVersion(&version));
        EXPECT(version == 0);
    });
}

static void wrong_settings_are_named(void **)
{
    const char *wrong[][2] = {
        {"STREAMS=lifo", "RINGREEL_EMULATION_STREAMS: 'lifo'"},
        {"STREAMS=random:x", "RINGREEL_EMULATION_STREAMS: 'x'"},
        {"DEVICE=sm_70", "RINGREEL_EMULATION_DEVICE: 'sm_70'"},
        {"DEVICES=65", "RINGREEL_EMULATION_DEVICES"},
        {"MEMORY=4T", "RINGREEL_EMULATION_MEMORY: '4T'"},
        {"MEMORY=-1", "RINGREEL_EMULATION_MEMORY: '-1'"},
        {"FAIL=launch", "RINGREEL_EMULATION_FAIL: 'launch' lacks"},
        {"FAIL=lunch:1", "'lunch' is none of"},
        {"FAIL=launch:1;ecc:2", "RINGREEL_EMULATION_FAIL"},
    };
    for (auto &[setting, said] : wrong) fails_saying(said, {setting}, [] { cudaFree(nullptr); });
}

static void devices_that_differ(void **)
{
    setenv("OMPI_COMM_WORLD_RANK", "1", 1);
    succeeds({"NAME=H100", "BUS=7", "DEVICES=1", "DEVICES_RANK1=2", "DEVICES_RANK2=3"}, [] {
        int count;
        cudaDeviceProp p;
        char bus[32];
        OK(cudaGetDeviceCount(&count));
        EXPECT(count == 2);
        OK(cudaGetDeviceProperties(&p, 1));
        EXPECT(strcmp(p.name, "H100") == 0 && p.uuid.bytes[15] == 8);
        OK(cudaDeviceGetPCIBusId(bus, sizeof bus, 1));
        EXPECT(strcmp(bus, "0000:08:00.0") == 0);
    });
    unsetenv("OMPI_COMM_WORLD_RANK");
    succeeds({"DRIVER=12080", "RUNTIME=13050"}, [] {
        int count = -1, version;
        GIVES(cudaErrorInsufficientDriver, cudaGetDeviceCount(&count));
        EXPECT(count == 0);
        OK(cudaDriverGetVersion(&version));
        EXPECT(version == 12080);
        OK(cudaRuntimeGetVersion(&version));
        EXPECT(version == 13050);
    });
}

static void names_of_errors(void **)
{
    assert_string_equal(cudaGetErrorName(cudaErrorMemoryAllocation), "cudaErrorMemoryAllocation");
    assert_string_equal(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
    assert_string_equal(cudaGetErrorString((cudaError_t)12345), "unrecognized error code");
}

static CUresult encode(void *function, CUtensorMap *map, void *base, uint32_t box)
{
    const cuuint64_t dims[] = {64, 32}, strides[] = {128};
    const cuuint32_t boxes[] = {box, 16}, ones[] = {1, 1};
    auto f = (decltype(&cuTensorMapEncodeTiled))function;
    return f(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, base, dims, strides, boxes, ones,
             CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

static void *encoder()
{
    void *function;
    cudaDriverEntryPointQueryResult result;
    OK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                        cudaEnableDefault, &result));
    EXPECT(result == cudaDriverEntryPointSuccess && function);
    return function;
}

static void tensor_maps(void **)
{
    succeeds({}, [] {
        CUtensorMap map;
        void *base = device_array<char>(64 * 32 * 2);
        EXPECT(encode(encoder(), &map, base, 64) == CUDA_SUCCESS);
        EXPECT(encode(encoder(), &map, base, 128) == CUDA_ERROR_INVALID_VALUE);
        EXPECT(encode(encoder(), &map, (char *)base + 2, 64) == CUDA_ERROR_INVALID_VALUE);
        void *function = &map;
        cudaDriverEntryPointQueryResult result;
        OK(cudaGetDriverEntryPointByVersion("cuNothing", &function, 12000, 0, &result));
        EXPECT(!function && result == cudaDriverEntryPointSymbolNotFound);
        OK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 11080, 0,
                                            &result));
        EXPECT(!function && result == cudaDriverEntryPointVersionNotSufficent);
    });
    succeeds({"DEVICE=sm_80"}, [] {
        CUtensorMap map;
        EXPECT(encode(encoder(), &map, device_array<char>(4096), 64) == CUDA_ERROR_NOT_SUPPORTED);
    });
}

int main(void)
{
    const CMUnitTest tests[] = {
        cmocka_unit_test(devices),
        cmocka_unit_test(no_device),
        cmocka_unit_test(wrong_settings_are_named),
        cmocka_unit_test(devices_that_differ),
        cmocka_unit_test(names_of_errors),
        cmocka_unit_test(tensor_maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
