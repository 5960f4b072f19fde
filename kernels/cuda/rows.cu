/* Rows of tokens: norms, RoPE, gates (kernels.h). */
#include "kernels/cuda/row_norm.h"

int64_t launch_blocks_most = 0x7FFFFFFF;

/* What the rows of a block have in common. All threads of a block come to each of its rows, so that
 * they can meet in row_sum. */
struct Rows {
    int64_t count;
    int cols;
    bool aligned; /* every row of every operand that is as wide as a row */
    const int32_t *index;
};

DEVICE_INLINE int64_t rows_first() { return static_cast<int64_t>(blockIdx.x) * blockDim.y; }
DEVICE_INLINE int64_t rows_step() { return static_cast<int64_t>(gridDim.x) * blockDim.y; }
DEVICE_INLINE int64_t modulation_row(const Rows &rows, int64_t row)
{
    return rows.index && row < rows.count ? rows.index[row] : 0;
}

static dim3 row_grid(int64_t rows, dim3 block)
{
    return blocks_for((rows + block.y - 1) / block.y);
}

/* ---- norm ------------------------------------------------------------------------------------ */

template <class Y, class X>
__global__ void __launch_bounds__(ROW_THREADS_MOST<VECTOR<X, Y>>)
    norm_kernel(Y *y, const X *x, Rows rows, RowNorm norm)
{
    constexpr int V = VECTOR<X, Y>;
    for (int64_t first = rows_first(); first < rows.count; first += rows_step()) {
        int64_t row = first + threadIdx.y, at = row * rows.cols;
        int n = row < rows.count ? rows.cols : 0;
        float values[ROW_CHUNKS][V];
        row_load(values, x + at, n, rows.aligned);
        row_norm(values, rows.cols, norm, modulation_row(rows, row));
        row_store(y + at, values, n, rows.aligned);
    }
}

static int launch_norm(cudaStream_t stream, struct mat y, struct mat x, const RowNorm &norm,
                       const int32_t *row_index)
{
    if (!row_fits(x.cols)) return cudaErrorInvalidValue;
    return with_types(y.dtype, x.dtype, [&](auto to, auto from) {
        using Y = decltype(to);
        using X = decltype(from);
        constexpr int V = VECTOR<X, Y>;
        if (x.rows == 0) return static_cast<int>(cudaSuccess);
        bool aligned = x.cols % V == 0 && aligned_16(x.p) && aligned_16(y.p);
        dim3 block = row_block<V>(x.cols);
        return static_cast<int>(
            launch_kernel(row_grid(x.rows, block), block, 0, stream, norm_kernel<Y, X>,
                          static_cast<Y *>(y.p), static_cast<const X *>(x.p),
                          Rows{x.rows, static_cast<int>(x.cols), aligned, row_index}, norm));
    });
}

int launch_norm_modulate(cudaStream_t stream, struct mat y, struct mat x, enum norm kind, float eps,
                         const float *shift, const float *scale, const int32_t *row_index)
{
    RowNorm norm = {kind, eps, 1.0f, scale, shift, norm_aligned(x.cols, scale, shift)};
    return launch_norm(stream, y, x, norm, row_index);
}

int launch_rms_norm(cudaStream_t stream, struct mat y, struct mat x, float eps, const float *weight)
{
    RowNorm norm = {NORM_RMS, eps, 0.0f, weight, nullptr, norm_aligned(x.cols, weight, nullptr)};
    return launch_norm(stream, y, x, norm, nullptr);
}

/* ---- norm and rotation of queries and keys --------------------------------------------------- */

struct QueriesKeys {
    struct qk_rows of[2]; /* blockIdx.y says which */
    struct rope rope;     /* n 0: none */
};

/* Channel pad + 6j + 2a belongs to frequency j and axis a; pad is even, so a pair never crosses the
 * border of a chunk. */
template <int V>
DEVICE_INLINE void row_rotate(float (&x)[ROW_CHUNKS][V], int cols, const struct rope &rope,
                              const int32_t *coord)
{
    const float2 *turns[3]; /* cos, sin of this token on each axis */
#pragma unroll
    for (int a = 0; a < 3; a++)
        turns[a] = reinterpret_cast<const float2 *>(rope.table[a]) + coord[a] * rope.n;
#pragma unroll
    for (int k = 0; k < ROW_CHUNKS; k++)
#pragma unroll
        for (int i = 0; i < V; i += 2) {
            int channel = row_column(k, V) + i;
            if (channel < rope.pad || channel >= cols) continue;
            unsigned pair = static_cast<unsigned>(channel - rope.pad) / 2, j = pair / 3;
            unsigned a = pair - 3 * j;
            float2 turn = (a == 0 ? turns[0] : a == 1 ? turns[1] : turns[2])[j];
            float even = x[k][i], odd = x[k][i + 1];
            x[k][i] = fmaf(even, turn.x, -(odd * turn.y));
            x[k][i + 1] = fmaf(odd, turn.x, even * turn.y);
        }
}

template <class T>
__global__ void __launch_bounds__(ROW_THREADS_MOST<VECTOR<T>>)
    qk_kernel(QueriesKeys both, Rows rows, float eps)
{
    constexpr int V = VECTOR<T>;
    struct qk_rows own = blockIdx.y == 0 ? both.of[0] : both.of[1];
    RowNorm norm = {NORM_RMS, eps, 0.0f, own.weight, nullptr, rows.aligned};
    for (int64_t first = rows_first(); first < rows.count; first += rows_step()) {
        int64_t row = first + threadIdx.y;
        int n = row < rows.count ? rows.cols : 0;
        T *p = static_cast<T *>(own.p) + row * own.stride;
        float values[ROW_CHUNKS][V];
        row_load(values, p, n, rows.aligned);
        row_norm(values, rows.cols, norm, 0);
        if (both.rope.n && n) row_rotate(values, n, both.rope, both.rope.coord + 3 * row);
        row_store(p, values, n, rows.aligned);
    }
}

int launch_qk_norm_rope(cudaStream_t stream, struct qk_rows q, struct qk_rows k, enum dtype type,
                        int64_t rows, int64_t cols, float eps, const struct rope *rope)
{
    if (!row_fits(cols) || (rope && rope->pad % 2)) return cudaErrorInvalidValue;
    return with_type(type, [&](auto value) {
        using T = decltype(value);
        constexpr int V = VECTOR<T>;
        if (rows == 0) return static_cast<int>(cudaSuccess);
        bool aligned = cols % V == 0;
        for (const struct qk_rows &r : {q, k})
            if (r.p) aligned &= r.stride % V == 0 && aligned_16(r.p) && aligned_16(r.weight);
        dim3 block = row_block<V>(cols), grid = row_grid(rows, block);
        grid.y = k.p ? 2 : 1;
        QueriesKeys both = {{q, k}, {}};
        if (rope) both.rope = *rope;
        return static_cast<int>(launch_kernel(grid, block, 0, stream, qk_kernel<T>, both,
                                              Rows{rows, static_cast<int>(cols), aligned, nullptr},
                                              eps));
    });
}

/* ---- gate and residual ----------------------------------------------------------------------- */

struct Gate {
    const float *rows; /* NULL: 1 */
    bool aligned;
};

/* What becomes of the new x besides: nothing, z = x, z = norm(x). */
enum class After { NOTHING, COPY, NORM };

template <After AFTER, class Z, class Y>
__global__ void __launch_bounds__(ROW_THREADS_MOST<4>)
    gate_kernel(Z *z, float *x, const Y *y, Gate gate, Rows rows, RowNorm norm)
{
    constexpr int V = VECTOR<float>;
    for (int64_t first = rows_first(); first < rows.count; first += rows_step()) {
        int64_t row = first + threadIdx.y, at = row * rows.cols;
        int64_t modulation = modulation_row(rows, row);
        int n = row < rows.count ? rows.cols : 0;
        float sum[ROW_CHUNKS][V];
        row_load(sum, x + at, n, rows.aligned);
#pragma unroll
        for (int k = 0; k < ROW_CHUNKS; k++) {
            int column = row_column(k, V);
            float gain[V] = {}, more[V];
            load_values(more, y + at + column, n - column, rows.aligned);
            if (gate.rows)
                load_values(gain, gate.rows + modulation * rows.cols + column, n - column,
                            gate.aligned);
#pragma unroll
            for (int i = 0; i < V; i++)
                sum[k][i] = fmaf(gate.rows ? gain[i] : 1.0f, more[i], sum[k][i]);
        }
        row_store(x + at, sum, n, rows.aligned);
        if constexpr (AFTER == After::NORM) row_norm(sum, rows.cols, norm, modulation);
        if constexpr (AFTER != After::NOTHING) row_store(z + at, sum, n, rows.aligned);
    }
}

template <After AFTER>
static int launch_gate(cudaStream_t stream, struct mat z, struct mat x, struct mat y,
                       const float *gate, const RowNorm &norm, const int32_t *row_index)
{
    if (!row_fits(x.cols) || x.dtype != DTYPE_F32) return cudaErrorInvalidValue;
    return with_types(z.dtype, y.dtype, [&](auto to, auto from) {
        using Z = decltype(to);
        using Y = decltype(from);
        if (x.rows == 0) return static_cast<int>(cudaSuccess);
        bool aligned = x.cols % 4 == 0 && aligned_16(x.p) && aligned_16(y.p) && aligned_16(z.p);
        dim3 block = row_block<4>(x.cols);
        return static_cast<int>(launch_kernel(
            row_grid(x.rows, block), block, 0, stream, gate_kernel<AFTER, Z, Y>,
            static_cast<Z *>(z.p), static_cast<float *>(x.p), static_cast<const Y *>(y.p),
            Gate{gate, norm_aligned(x.cols, gate, nullptr)},
            Rows{x.rows, static_cast<int>(x.cols), aligned, row_index}, norm));
    });
}

int launch_gate_residual(cudaStream_t stream, struct mat x, struct mat y, const float *gate,
                         const int32_t *row_index)
{
    struct mat none = {nullptr, 0, 0, DTYPE_F32};
    return launch_gate<After::NOTHING>(stream, none, x, y, gate, RowNorm{}, row_index);
}

int launch_gate_residual_norm(cudaStream_t stream, struct mat z, struct mat x, struct mat y,
                              const float *gate, const struct next_norm *norm,
                              const int32_t *row_index)
{
    if (norm->none) return launch_gate<After::COPY>(stream, z, x, y, gate, RowNorm{}, row_index);
    const float *scale = static_cast<const float *>(norm->scale.p);
    const float *shift = static_cast<const float *>(norm->shift.p);
    RowNorm row = {norm->kind, norm->eps, 1.0f, scale, shift, norm_aligned(x.cols, scale, shift)};
    return launch_gate<After::NORM>(stream, z, x, y, gate, row, row_index);
}
