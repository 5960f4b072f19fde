/* Tiles by TMA: every swizzle, two to five dimensions, corners outside the tensor; stores. */
#include "tests/emulation/test_support.h"

constexpr int TILE_BYTES = 4096;

struct Corner {
    int at[5];
};

template <int RANK>
__global__ void load_kernel(const __grid_constant__ CUtensorMap map, Corner c, uint4 *out)
{
    SMEM_DYN(uint4, tile);
    SMEM_STATIC(uint64_t, arrived, [1]);
    uint32_t to = shared_address(tile), barrier = shared_address(arrived);
    if (threadIdx.x == 0) {
        mbarrier_init(barrier, 1);
        mbarrier_init_fence();
        mbarrier_arrive_expect_tx(barrier, TILE_BYTES);
        if (RANK == 2) tma_load_2d(to, &map, barrier, c.at[0], c.at[1]);
        if (RANK == 3) tma_load_3d(to, &map, barrier, c.at[0], c.at[1], c.at[2]);
        if (RANK == 4) tma_load_4d(to, &map, barrier, c.at[0], c.at[1], c.at[2], c.at[3]);
        if (RANK == 5) tma_load_5d(to, &map, barrier, c.at[0], c.at[1], c.at[2], c.at[3], c.at[4]);
    }
    __syncthreads();
    mbarrier_wait(barrier, 0);
    for (int i = threadIdx.x; i < TILE_BYTES / 16; i += 32) out[i] = tile[i];
}

template <int RANK>
__global__ void store_kernel(const __grid_constant__ CUtensorMap map, Corner c, const uint4 *in)
{
    SMEM_DYN(uint4, tile);
    for (int i = threadIdx.x; i < TILE_BYTES / 16; i += 32) tile[i] = in[i];
    fence_proxy_async();
    __syncthreads();
    if (threadIdx.x != 0) return;
    if (RANK == 2) tma_store_2d(&map, shared_address(tile), c.at[0], c.at[1]);
    if (RANK == 3) tma_store_3d(&map, shared_address(tile), c.at[0], c.at[1], c.at[2]);
    tma_commit();
    tma_wait_read<0>();
    tma_wait<0>();
}

/* ---- the same with plain loops --------------------------------------------------------------- */

struct Shape {
    int rank, extent[5], box[5];
    CUtensorMapSwizzle swizzle;
    int elements() const
    {
        int n = 1;
        for (int i = 0; i < rank; i++) n *= extent[i];
        return n;
    }
};

static CUtensorMap map_of(const Shape &s, uint16_t *base)
{
    cuuint64_t extent[5], stride[5] = {};
    cuuint32_t box[5];
    cuuint64_t bytes = 2;
    for (int i = 0; i < s.rank; i++) {
        extent[i] = static_cast<cuuint64_t>(s.extent[i]);
        box[i] = static_cast<cuuint32_t>(s.box[i]);
        bytes *= extent[i];
        if (i + 1 < s.rank) stride[i] = bytes;
    }
    CUtensorMap map;
    EXPECT(encode_tiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(s.rank),
                        base, extent, stride, box, s.swizzle) == CUDA_SUCCESS,
           "encoding");
    return map;
}

/* The element of the tensor for element i of the tile; -1 outside. */
static int in_tensor(const Shape &s, const Corner &c, int i)
{
    int index = 0, step = 1;
    for (int d = 0; d < s.rank; d++) {
        int x = c.at[d] + i % s.box[d];
        if (x < 0 || x >= s.extent[d]) return -1;
        index += x * step;
        step *= s.extent[d];
        i /= s.box[d];
    }
    return index;
}

/* Where element i of the tile lies in shared memory. */
static int in_tile(const Shape &s, int i)
{
    int byte = i * 2, chunk = byte / 16, line = byte / 128;
    int mask = s.swizzle == CU_TENSOR_MAP_SWIZZLE_128B  ? 7
               : s.swizzle == CU_TENSOR_MAP_SWIZZLE_64B ? 3
               : s.swizzle == CU_TENSOR_MAP_SWIZZLE_32B ? 1
                                                        : 0;
    return ((chunk ^ (line & mask)) * 16 + byte % 16) / 2;
}

static std::vector<uint16_t> numbered(int n, int first)
{
    std::vector<uint16_t> values(static_cast<size_t>(n));
    for (int i = 0; i < n; i++) values[i] = static_cast<uint16_t>(first + i);
    return values;
}

template <int RANK> static void check_load(const Shape &s, const Corner &c)
{
    std::vector<uint16_t> tensor = numbered(s.elements(), 1), want(TILE_BYTES / 2);
    for (int i = 0; i < TILE_BYTES / 2; i++) {
        int from = in_tensor(s, c, i);
        want[in_tile(s, i)] = from < 0 ? 0 : tensor[from];
    }
    OnDevice<uint16_t> x(tensor), out(TILE_BYTES / 2);
    launch_kernel(dim3(1), dim3(32), TILE_BYTES, nullptr, load_kernel<RANK>, map_of(s, x), c,
                  reinterpret_cast<uint4 *>(static_cast<uint16_t *>(out)));
    EXPECT_SAME(out.back(), want);
}

template <int RANK> static void check_store(const Shape &s, const Corner &c)
{
    std::vector<uint16_t> tile = numbered(TILE_BYTES / 2, 1), want(s.elements());
    for (int i = 0; i < TILE_BYTES / 2; i++) {
        int to = in_tensor(s, c, i);
        if (to >= 0) want[to] = tile[in_tile(s, i)];
    }
    OnDevice<uint16_t> x(s.elements()), in(tile);
    launch_kernel(dim3(1), dim3(32), TILE_BYTES, nullptr, store_kernel<RANK>, map_of(s, x), c,
                  reinterpret_cast<const uint4 *>(static_cast<uint16_t *>(in)));
    EXPECT_SAME(x.back(), want);
}

/* ---- cases ----------------------------------------------------------------------------------- */

static const Corner CORNERS[] = {{{0, 0}}, {{16, 5}}, {{-8, -3}}, {{100, 40}}, {{4000, 0}}};

template <int ROW_BYTES> static void test_2d()
{
    CUtensorMapSwizzle swizzle = ROW_BYTES == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                                 : ROW_BYTES == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                 : ROW_BYTES == 32 ? CU_TENSOR_MAP_SWIZZLE_32B
                                                   : CU_TENSOR_MAP_SWIZZLE_NONE;
    Shape s = {2, {120, 50}, {ROW_BYTES / 2, TILE_BYTES / ROW_BYTES}, swizzle};
    if (capability() < 90) return;
    for (const Corner &c : CORNERS) {
        check_load<2>(s, c);
        check_store<2>(s, c);
    }
}

static void test_more_dimensions()
{
    if (capability() < 90) return;
    Shape three = {3, {72, 10, 6}, {64, 8, 4}, CU_TENSOR_MAP_SWIZZLE_128B};
    check_load<3>(three, Corner{{8, -1, 3}});
    check_store<3>(three, Corner{{-8, 4, -1}});
    check_load<4>({4, {40, 5, 6, 7}, {32, 4, 4, 4}, CU_TENSOR_MAP_SWIZZLE_64B},
                  Corner{{8, 2, -1, 4}});
    check_load<5>({5, {24, 3, 4, 5, 6}, {16, 2, 4, 4, 4}, CU_TENSOR_MAP_SWIZZLE_32B},
                  Corner{{-8, 1, 2, -2, 3}});
}

/* What the driver refuses. */
static void test_refused_maps()
{
    if (capability() < 90) return;
    OnDevice<uint16_t> x(4096);
    auto encode = [&](void *base, cuuint64_t columns, cuuint64_t row_bytes, cuuint32_t box,
                      CUtensorMapSwizzle swizzle) {
        CUtensorMap map;
        cuuint64_t extent[2] = {columns, 8};
        cuuint32_t boxes[2] = {box, 8};
        return encode_tiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, base, extent, &row_bytes,
                            boxes, swizzle);
    };
    uint16_t *base = x;
    EXPECT(encode(base, 64, 128, 64, CU_TENSOR_MAP_SWIZZLE_128B) == CUDA_SUCCESS, "good");
    EXPECT(encode(base + 1, 64, 128, 64, CU_TENSOR_MAP_SWIZZLE_128B) != CUDA_SUCCESS, "base");
    EXPECT(encode(base, 60, 120, 64, CU_TENSOR_MAP_SWIZZLE_128B) != CUDA_SUCCESS, "stride");
    EXPECT(encode(base, 64, 128, 128, CU_TENSOR_MAP_SWIZZLE_128B) != CUDA_SUCCESS, "swizzle");
    EXPECT(encode(base, 64, 128, 300, CU_TENSOR_MAP_SWIZZLE_NONE) != CUDA_SUCCESS, "box");
}

int main()
{
    const Case cases[] = {{"2D, plain", test_2d<16>},
                          {"2D, 32-byte swizzle", test_2d<32>},
                          {"2D, 64-byte swizzle", test_2d<64>},
                          {"2D, 128-byte swizzle", test_2d<128>},
                          {"three to five dimensions", test_more_dimensions},
                          {"maps that are refused", test_refused_maps}};
    return run_cases(cases);
}
