/* Names and descriptions of the errors that this library and the emulator give. */
#include <cuda_runtime_api.h>

namespace
{

struct Description {
    cudaError_t error;
    const char *name, *text;
};

#define ERROR(name, text)                                                                          \
    {                                                                                              \
        cuda##name, "cuda" #name, text                                                             \
    }

const Description descriptions[] = {
    ERROR(Success, "no error"),
    ERROR(ErrorInvalidValue, "invalid argument"),
    ERROR(ErrorMemoryAllocation, "out of memory"),
    ERROR(ErrorInitializationError, "initialization error"),
    ERROR(ErrorInvalidConfiguration, "invalid configuration argument"),
    ERROR(ErrorInvalidPitchValue, "invalid pitch argument"),
    ERROR(ErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    ERROR(ErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    ERROR(ErrorInvalidDeviceFunction, "invalid device function"),
    ERROR(ErrorNoDevice, "no CUDA-capable device is detected"),
    ERROR(ErrorInvalidDevice, "invalid device ordinal"),
    ERROR(ErrorNoKernelImageForDevice, "no kernel image is available for execution on the device"),
    ERROR(ErrorECCUncorrectable, "uncorrectable ECC error encountered"),
    ERROR(ErrorInvalidResourceHandle, "invalid resource handle"),
    ERROR(ErrorIllegalState, "the operation cannot be performed in the present state"),
    ERROR(ErrorSymbolNotFound, "named symbol not found"),
    ERROR(ErrorNotReady, "device not ready"),
    ERROR(ErrorIllegalAddress, "an illegal memory access was encountered"),
    ERROR(ErrorLaunchOutOfResources, "too many resources requested for launch"),
    ERROR(ErrorLaunchTimeout, "the launch timed out and was terminated"),
    ERROR(ErrorAssert, "device-side assert triggered"),
    ERROR(ErrorHostMemoryAlreadyRegistered,
          "part or all of the memory range is already registered"),
    ERROR(ErrorHostMemoryNotRegistered,
          "pointer does not correspond to a registered memory region"),
    ERROR(ErrorMisalignedAddress, "misaligned address"),
    ERROR(ErrorLaunchFailure, "unspecified launch failure"),
    ERROR(ErrorNotPermitted, "operation not permitted"),
    ERROR(ErrorNotSupported, "operation not supported"),
    ERROR(ErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    ERROR(ErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    ERROR(ErrorStreamCaptureMerge, "operation would result in a merge of separate captures"),
    ERROR(ErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    ERROR(ErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    ERROR(ErrorStreamCaptureIsolation, "dependency on uncaptured work in another stream"),
    ERROR(ErrorStreamCaptureImplicit, "operation would depend on the legacy stream in a capture"),
    ERROR(ErrorCapturedEvent, "operation not permitted on an event last recorded in a capture"),
    ERROR(ErrorStreamCaptureWrongThread, "capture was not ended by the thread that began it"),
    ERROR(ErrorUnknown, "unknown error"),
};

const Description *describe(cudaError_t error)
{
    for (const Description &d : descriptions)
        if (d.error == error) return &d;
    return nullptr;
}

} // namespace

extern "C" const char *cudaGetErrorName(cudaError_t error)
{
    const Description *d = describe(error);
    return d ? d->name : "unrecognized error code";
}

extern "C" const char *cudaGetErrorString(cudaError_t error)
{
    const Description *d = describe(error);
    return d ? d->text : "unrecognized error code";
}
