"""What PyTorch takes for the work that tests/gpu/bench_gpu.c times, under the same names.

    python tools/bench_gpu_reference.py [--small]

A line for each, separated by tabs: timing, name, seconds (median). Exit code 3, and one line, where PyTorch or its CUDA
is missing. --small, for rehearsals, computes tiny sizes on the CPU.
"""

import statistics
import sys
import time

SMALL = "--small" in sys.argv[1:]
NO_TORCH = 3

try:
    import torch
    import torch.nn.functional as F
except ImportError as missing:
    print(f"PyTorch is not here: {missing}")
    sys.exit(NO_TORCH)
if not SMALL and not torch.cuda.is_available():
    print(f"PyTorch {torch.__version__} finds no CUDA device")
    sys.exit(NO_TORCH)

DEVICE = "cpu" if SMALL else "cuda"
RUNS = 1 if SMALL else 5
BATCH_S = 0.02  # short work is timed so long together


def finish():
    if not SMALL:
        torch.cuda.synchronize()


def seconds_of(work, calls):
    finish()
    start = time.perf_counter()
    for _ in range(calls):
        work()
    finish()
    return (time.perf_counter() - start) / calls


def report(name, work):
    try:
        work()
        once = seconds_of(work, 1)
        calls = 1 if once > BATCH_S else int(BATCH_S / once) + 1
        seconds = statistics.median(seconds_of(work, 1 if SMALL else calls) for _ in range(RUNS))
        print(f"timing\t{name}\t{seconds:.9f}\t0\t0", flush=True)
    except torch.OutOfMemoryError:
        print(f"# {name}: no memory", flush=True)
        torch.cuda.empty_cache()


def random(*shape, dtype=torch.bfloat16):
    return torch.rand(*shape, device=DEVICE, dtype=dtype) * 2 - 1


def copy():
    n = (1 << 30) // 4 if not SMALL else 1 << 14
    x, y = random(n, dtype=torch.float32), random(n, dtype=torch.float32)
    report("copy within the device, 1 GiB", lambda: y.copy_(x))


def linear(rows, inputs, outputs, gelu=False):
    name = f"linear {rows} x {inputs} -> {outputs}"
    if SMALL:
        rows, inputs, outputs = 48, 32, 64
    x, w = random(rows, inputs), random(outputs, inputs) * 0.03
    if gelu:
        report(name, lambda: F.gelu(F.linear(x, w), approximate="tanh"))
    else:
        report(name, lambda: F.linear(x, w))


def attention(tokens, width):
    name = f"attention {tokens} tokens, 32 heads of {width}"
    q, k, v = (random(1, *((2, 100) if SMALL else (32, tokens)), width) for _ in range(3))
    report(name, lambda: F.scaled_dot_product_attention(q, k, v))


def conv3d(channels, t, h, w):
    name = f"conv3d {channels} channels, {t}x{h}x{w}"
    if SMALL:
        channels, t, h, w = 32, 2, 4, 6
    layout = torch.channels_last_3d
    x = random(1, channels, t, h, w).to(memory_format=layout)
    weight = (random(channels, channels, 3, 3, 3) * 0.03).to(memory_format=layout)
    report(name, lambda: F.conv3d(x, weight, padding=1))


def rows():
    n, width, hidden = (16, 64, 64) if SMALL else (6144, 2048, 8192)
    x, scale, shift, wide = random(n, width), random(width), random(width), random(n, hidden)
    report("rms norm, modulated, 6144 x 2048",
           lambda: F.rms_norm(x, (width,), eps=1e-6) * (1 + scale) + shift)
    report("silu 6144 x 8192", lambda: F.silu(wide))


def main():
    print(f"# PyTorch {torch.__version__}, CUDA {torch.version.cuda}")
    torch.backends.cudnn.benchmark = True
    with torch.no_grad():
        copy()
        linear(8192, 8192, 8192)
        for d, hidden in (2048, 8192), (4096, 16384):
            linear(6144, d, d)
            linear(6144, d, hidden, gelu=True)
            linear(6144, hidden, d)
        for tokens in 6144, 16384, 32768, 65536:
            for width in 64, 128:
                attention(tokens, width)
        for shape in (1024, 4, 16, 24), (512, 8, 32, 48), (256, 16, 64, 96), (128, 32, 128, 192):
            conv3d(*shape)
        rows()


main()
