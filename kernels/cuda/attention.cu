/* Attention but for the products: sizes, packing of keys and values, beginning and end of a state,
 * and the choice of the kernel. */
#include "kernels/cuda/attention_tile.h"

namespace
{

constexpr int THREADS = 256;
constexpr int64_t LARGEST = INT64_C(1) << 31; /* rows and blocks of a launch stay below */

bool valid_width(int64_t d) { return d == 32 || d == 64 || d == 128; }
bool valid_rows(const attention_rows &x, int64_t heads)
{
    return heads > 0 && heads < 65536 && x.rows > 0 && x.rows < LARGEST && x.cols % heads == 0 &&
           valid_width(x.cols / heads);
}
bool valid_granule(int64_t granule)
{
    return granule > 0 && granule % 16 == 0 && granule <= 1 << 20;
}

/* One thread for each of n items; an invalid value where they are too many for one grid. */
template <class... Parameters, class... Arguments>
cudaError_t launch_items(cudaStream_t stream, int64_t n, void (*kernel)(Parameters...),
                         Arguments... arguments)
{
    int64_t blocks = (n + THREADS - 1) / THREADS;
    if (n <= 0 || blocks >= LARGEST) return cudaErrorInvalidValue;
    return launch_kernel(dim3(static_cast<unsigned>(blocks)), dim3(THREADS), 0, stream, kernel,
                         arguments...);
}

TILE_FUNCTION int64_t item() { return static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x; }

/* An item is 16 bytes of `packed`; rows that are not there become zeros. */
__global__ void __launch_bounds__(THREADS)
    kv_pack_kernel(uint4 *packed, const void *k, const void *v, int k_bf16, int v_bf16,
                   int64_t rows, int heads, int head_dim, int granule, int64_t items)
{
    int64_t i = item();
    if (i >= items) return;
    int chunks = head_dim / 8;
    int64_t chunk = i % chunks, key = i / chunks % granule, rest = i / chunks / granule;
    int64_t is_value = rest % 2, head = rest / 2 % heads, row = rest / 2 / heads * granule + key;
    int64_t from = (row * heads + head) * head_dim + chunk * 8;
    uint4 eight = make_uint4(0, 0, 0, 0);
    if (row < rows) eight = is_value ? eight_bf16(v, from, v_bf16) : eight_bf16(k, from, k_bf16);
    packed[i] = eight;
}

/* An item is four floats of the output or one of the maxima and sums. */
__global__ void __launch_bounds__(THREADS)
    begin_kernel(float *state, int64_t rows, int head_dim, int64_t items)
{
    int64_t i = item(), fours = rows * head_dim / 4;
    if (i >= items) return;
    if (i < fours)
        reinterpret_cast<float4 *>(state)[i] = make_float4(0, 0, 0, 0);
    else
        state[4 * fours + (i - fours)] = i - fours < rows ? NO_MAXIMUM : 0;
}

/* An item is four neighbours of o. */
__global__ void __launch_bounds__(THREADS)
    finish_kernel(void *o, int bf16, const float *state, int64_t queries, int heads, int head_dim,
                  int64_t items)
{
    int64_t i = item();
    if (i >= items) return;
    int fours = head_dim / 4;
    int64_t four = i % fours, head = i / fours % heads, row = i / fours / heads;
    int64_t at = head * queries + row, all = queries * heads;
    float4 x = reinterpret_cast<const float4 *>(state)[at * fours + four];
    float factor = 1.0f / state[all * (head_dim + 1) + at];
    x = make_float4(x.x * factor, x.y * factor, x.z * factor, x.w * factor);
    if (bf16)
        static_cast<uint2 *>(o)[i] = make_uint2(bf16_pair(x.x, x.y), bf16_pair(x.z, x.w));
    else
        static_cast<float4 *>(o)[i] = x;
}

} // namespace

enum attention_kernel attention_choose(int capability, int64_t head_dim)
{
    return capability == 90 && head_dim >= 64 ? ATTENTION_WGMMA : ATTENTION_MMA;
}

int64_t attention_kv_granule_floats(int64_t granule, int64_t heads, int64_t head_dim)
{
    return granule * heads * head_dim; /* keys and values, half a float each */
}

int64_t attention_state_floats(int64_t queries, int64_t heads, int64_t head_dim)
{
    return queries * heads * (head_dim + 2);
}

int attention_kv_pack(cudaStream_t stream, float *packed, struct attention_rows k,
                      struct attention_rows v, int64_t heads, int64_t granule)
{
    if (!valid_rows(k, heads) || !valid_granule(granule) || v.rows != k.rows || v.cols != k.cols)
        return cudaErrorInvalidValue;
    int64_t granules = (k.rows + granule - 1) / granule, d = k.cols / heads;
    int64_t items = granules * heads * 2 * granule * d / 8;
    return launch_items(stream, items, kv_pack_kernel, reinterpret_cast<uint4 *>(packed),
                        static_cast<const void *>(k.p), static_cast<const void *>(v.p), k.bf16,
                        v.bf16, k.rows, static_cast<int>(heads), static_cast<int>(d),
                        static_cast<int>(granule), items);
}

int attention_begin(cudaStream_t stream, float *state, int64_t queries, int64_t heads,
                    int64_t head_dim)
{
    if (!valid_width(head_dim) || heads <= 0 || queries <= 0 || queries >= LARGEST)
        return cudaErrorInvalidValue;
    int64_t rows = queries * heads, items = rows * head_dim / 4 + 2 * rows;
    return launch_items(stream, items, begin_kernel, state, rows, static_cast<int>(head_dim),
                        items);
}

int attention_block(cudaStream_t stream, enum attention_kernel kernel, float *state,
                    struct attention_rows q, const float *packed, int64_t keys, int64_t granule,
                    int64_t heads, float scale)
{
    return attention_part(stream, kernel, {}, state, q, packed, keys, granule, heads, scale, 0, 0);
}

int attention_part(cudaStream_t stream, enum attention_kernel kernel, struct attention_rows o,
                   float *state, struct attention_rows q, const float *packed, int64_t keys,
                   int64_t granule, int64_t heads, float scale, int first, int last)
{
    if (!valid_rows(q, heads) || !valid_granule(granule) || keys <= 0 || keys >= LARGEST ||
        !(scale > 0) || (last && (o.rows != q.rows || o.cols != q.cols)))
        return cudaErrorInvalidValue;
    AttentionTask task = {state,
                          q.p,
                          reinterpret_cast<const __nv_bfloat16 *>(packed),
                          q.rows,
                          keys,
                          static_cast<int>(heads),
                          static_cast<int>(granule),
                          q.bf16,
                          scale * 1.44269504f,
                          first != 0,
                          last ? o.p : nullptr,
                          o.bf16};
    int d = static_cast<int>(q.cols / heads);
    return kernel == ATTENTION_WGMMA ? attention_block_wgmma(stream, task, d)
                                     : attention_block_mma(stream, task, d);
}

int attention_finish(cudaStream_t stream, struct attention_rows o, const float *state,
                     int64_t heads)
{
    if (!valid_rows(o, heads)) return cudaErrorInvalidValue;
    int64_t items = o.rows * o.cols / 4;
    return launch_items(stream, items, finish_kernel, o.p, o.bf16, state, o.rows,
                        static_cast<int>(heads), static_cast<int>(o.cols / heads), items);
}
