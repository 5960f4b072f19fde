/* Devices and what they can do. */
#include "tests/emulation/runtime/state.h"

#include <cstdio>
#include <cstring>

namespace emulation::runtime
{

static thread_local int chosen;

int current_device() { return chosen; }

static cudaDeviceProp properties(int device)
{
    bool hopper = compute_capability() == 90;
    cudaDeviceProp p = {};
    snprintf(p.name, sizeof p.name, "emulated sm_%d", compute_capability());
    if (!settings().name.empty()) snprintf(p.name, sizeof p.name, "%s", settings().name.c_str());
    p.uuid.bytes[0] = 'R';
    p.uuid.bytes[15] = (char)(settings().first_bus + device);
    p.totalGlobalMem = settings().memory;
    p.major = compute_capability() / 10;
    p.minor = compute_capability() % 10;
    p.multiProcessorCount = hopper ? 132 : 108;
    p.warpSize = 32;
    p.maxThreadsPerBlock = p.maxThreadsDim[0] = p.maxThreadsDim[1] = 1024;
    p.maxThreadsDim[2] = 64;
    p.maxGridSize[0] = 0x7fffffff;
    p.maxGridSize[1] = p.maxGridSize[2] = 65535;
    p.maxThreadsPerMultiProcessor = 2048;
    p.maxBlocksPerMultiProcessor = 32;
    p.regsPerBlock = p.regsPerMultiprocessor = 65536;
    p.sharedMemPerBlock = 48 << 10;
    p.sharedMemPerBlockOptin = (size_t)(hopper ? 227 : 163) << 10;
    p.sharedMemPerMultiprocessor = (size_t)(hopper ? 228 : 164) << 10;
    p.reservedSharedMemPerBlock = 1 << 10;
    p.totalConstMem = 64 << 10;
    p.l2CacheSize = (hopper ? 50 : 40) << 20;
    p.memoryBusWidth = 5120;
    p.memPitch = 0x7fffffff;
    p.textureAlignment = 512;
    p.pciBusID = settings().first_bus + device;
    p.asyncEngineCount = 3;
    p.canMapHostMemory = p.concurrentKernels = p.unifiedAddressing = 1;
    p.streamPrioritiesSupported = p.hostRegisterSupported = p.ECCEnabled = 1;
    p.canUseHostPointerForRegisteredMem = p.cooperativeLaunch = p.computePreemptionSupported = 1;
    p.clusterLaunch = hopper;
    return p;
}

/* The attributes that are asked for; others are refused, so that nobody takes a zero for true. */
static bool attribute(cudaDeviceAttr which, const cudaDeviceProp &p, int *value)
{
    switch (which) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = p.maxThreadsPerBlock;
        return true;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = (int)p.sharedMemPerBlock;
        return true;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)p.sharedMemPerBlockOptin;
        return true;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)p.sharedMemPerMultiprocessor;
        return true;
    case cudaDevAttrWarpSize:
        *value = p.warpSize;
        return true;
    case cudaDevAttrMultiProcessorCount:
        *value = p.multiProcessorCount;
        return true;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = p.maxThreadsPerMultiProcessor;
        return true;
    case cudaDevAttrMaxRegistersPerBlock:
        *value = p.regsPerBlock;
        return true;
    case cudaDevAttrL2CacheSize:
        *value = p.l2CacheSize;
        return true;
    case cudaDevAttrComputeCapabilityMajor:
        *value = p.major;
        return true;
    case cudaDevAttrComputeCapabilityMinor:
        *value = p.minor;
        return true;
    case cudaDevAttrPciBusId:
        *value = p.pciBusID;
        return true;
    case cudaDevAttrPciDeviceId:
        *value = p.pciDeviceID;
        return true;
    case cudaDevAttrPciDomainId:
        *value = p.pciDomainID;
        return true;
    case cudaDevAttrClockRate:
        *value = 1755000;
        return true;
    case cudaDevAttrMemoryClockRate:
        *value = 2619000;
        return true;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = p.memoryBusWidth;
        return true;
    case cudaDevAttrAsyncEngineCount:
        *value = p.asyncEngineCount;
        return true;
    case cudaDevAttrUnifiedAddressing:
        *value = p.unifiedAddressing;
        return true;
    case cudaDevAttrConcurrentKernels:
        *value = p.concurrentKernels;
        return true;
    case cudaDevAttrEccEnabled:
        *value = p.ECCEnabled;
        return true;
    case cudaDevAttrCooperativeLaunch:
        *value = p.cooperativeLaunch;
        return true;
    case cudaDevAttrMemoryPoolsSupported:
        *value = p.memoryPoolsSupported;
        return true;
    default:
        return false;
    }
}

static bool valid(int device) { return device >= 0 && device < settings().devices; }

} // namespace emulation::runtime

using namespace emulation::runtime;

extern "C" {

cudaError_t cudaGetDeviceCount(int *count)
{
    Api api;
    if (!count) return fail(cudaErrorInvalidValue);
    *count = api.error ? 0 : settings().devices;
    return fail(api.error);
}

cudaError_t cudaSetDevice(int device)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!valid(device)) return fail(cudaErrorInvalidDevice);
    chosen = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!device) return fail(cudaErrorInvalidValue);
    *device = chosen;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!p) return fail(cudaErrorInvalidValue);
    if (!valid(device)) return fail(cudaErrorInvalidDevice);
    *p = properties(device);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr which, int device)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!valid(device)) return fail(cudaErrorInvalidDevice);
    if (!value || !attribute(which, properties(device), value)) {
        say("cudaDeviceGetAttribute of %d is not emulated", (int)which);
        return fail(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int device)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!valid(device)) return fail(cudaErrorInvalidDevice);
    if (!text || bytes < 13) return fail(cudaErrorInvalidValue);
    snprintf(text, (size_t)bytes, "0000:%02X:00.0", properties(device).pciBusID);
    return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!can || !valid(device) || !valid(peer)) return fail(cudaErrorInvalidDevice);
    *can = 0; /* devices of one process do not see each other's memory here */
    return cudaSuccess;
}

cudaError_t cudaSetDeviceFlags(unsigned)
{
    Api api;
    return fail(api.error);
}

cudaError_t cudaInitDevice(int device, unsigned, unsigned)
{
    Api api;
    if (api.error) return fail(api.error);
    return fail(valid(device) ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    if (!version) return fail(cudaErrorInvalidValue);
    *version = settings().devices ? settings().driver : 0;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    if (!version) return fail(cudaErrorInvalidValue);
    *version = (int)number_setting("RUNTIME", CUDART_VERSION);
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute which, int value)
{
    Api api;
    if (api.error) return fail(api.error);
    if (!function) return fail(cudaErrorInvalidDeviceFunction);
    switch (which) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
        return fail(value >= 0 && (size_t)value <= properties(0).sharedMemPerBlockOptin
                        ? cudaSuccess
                        : cudaErrorInvalidValue);
    case cudaFuncAttributePreferredSharedMemoryCarveout:
        return fail(value >= -1 && value <= 100 ? cudaSuccess : cudaErrorInvalidValue);
    case cudaFuncAttributeNonPortableClusterSizeAllowed:
        return cudaSuccess;
    default:
        return fail(cudaErrorInvalidValue);
    }
}

} // extern "C"
