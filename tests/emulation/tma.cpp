/* The tensor memory accelerator: tiles of up to five dimensions between global and shared memory,
 * optionally swizzled, zeros (or NaN) for what lies outside the tensor. */
#include "block.h"
#include "sanitizers.h"

#include <cuda.h>

#include <cstring>

namespace emulation
{

namespace
{

constexpr uint32_t MAGIC = 0x50414d54;
constexpr uint32_t CHUNK = 16; /* bytes that stay together under every swizzle */

/* Where byte `address` of shared memory really lies: the 16-byte chunks of 2, 4 or 8 rows of 128
 * bytes change places (modes 1, 2, 3: 32, 64, 128 bytes). */
uint32_t swizzled(uint32_t address, unsigned mode)
{
    return address ^ (address >> 7 & ((1u << mode) - 1)) << 4;
}

uint32_t tile_bytes(const TensorMap &m)
{
    uint32_t bytes = m.element_bytes;
    for (int i = 0; i < m.rank; i++) bytes *= m.box[i];
    return bytes;
}

/* Calls visit(bytes from the tile's beginning, first element in global memory, elements of this
 * chunk that exist) for each chunk of the tile. The existing ones may begin late: `skip`. */
template <class Visit> void each_chunk(const Transfer &t, Visit visit)
{
    const TensorMap &m = t.map;
    uint32_t per_chunk = CHUNK / m.element_bytes, row_bytes = m.box[0] * m.element_bytes;
    uint32_t rows = tile_bytes(m) / row_bytes;
    for (uint32_t r = 0; r < rows; r++) {
        const unsigned char *row = m.base;
        bool inside = true;
        uint32_t rest = r;
        for (int i = 1; i < m.rank; i++) {
            int64_t x = int64_t{t.corner[i]} + rest % m.box[i];
            rest /= m.box[i];
            inside = inside && x >= 0 && uint64_t(x) < m.extent[i];
            row += x * int64_t(m.stride[i]);
        }
        for (uint32_t c = 0; c < row_bytes / CHUNK; c++) {
            int64_t x = int64_t{t.corner[0]} + c * per_chunk;
            int64_t first = x < 0 ? -x : 0, last = int64_t(m.extent[0]) - x;
            if (last > per_chunk) last = per_chunk;
            if (!inside || last < first) first = last = 0;
            visit(r * row_bytes + c * CHUNK, row + (x + first) * m.element_bytes,
                  uint32_t(first) * m.element_bytes, uint32_t(last - first) * m.element_bytes);
        }
    }
}

Transfer begin_transfer(const CUtensorMap *map, uint32_t shared, int rank, const int *corner,
                        const char *what, Place at)
{
    Transfer t = {};
    memcpy(&t.map, map, sizeof t.map);
    if (t.map.magic != MAGIC) fail(at, "%s: not an encoded tensor map", what);
    if (reinterpret_cast<uintptr_t>(map) % 64 != 0)
        fail(at, "%s: the tensor map's address is not a multiple of 64", what);
    if (t.map.rank != rank) fail(at, "%s: the tensor map has %d dimensions", what, t.map.rank);
    shared_span(shared, tile_bytes(t.map), 128, what, at);
    memcpy(t.corner, corner, sizeof(int) * static_cast<size_t>(rank));
    t.shared = shared;
    t.by = current;
    t.at = at;
    return t;
}

} // namespace

/* ---- loads ----------------------------------------------------------------------------------- */

void tma_load(uint32_t to, const CUtensorMap *map, uint32_t barrier, int rank, const int *corner,
              Place at)
{
    Transfer load = begin_transfer(map, to, rank, corner, "tma_load", at);
    Block *b = current->block;
    load.barrier = barrier;
    shared_span(barrier, 8, 8, "tma_load", at);
    if (b->async.barriers_unfenced)
        fail(at, "tma_load: no mbarrier_init_fence after mbarrier_init");
    if (done_at_once()) {
        tma_finish_load(b, load);
        return;
    }
    memset(b->shared.arena + to, 0xFF, tile_bytes(load.map));
    Unseen queueing;
    b->async.loads.push_back(load);
}

void tma_finish_load(Block *b, const Transfer &load)
{
    each_chunk(load, [&](uint32_t at, const unsigned char *from, uint32_t skip, uint32_t bytes) {
        unsigned char *to = b->shared.arena + swizzled(load.shared + at, load.map.swizzle);
        note_write(to, CHUNK);
        memset(to, load.map.nan_outside ? 0xFF : 0, CHUNK);
        if (!bytes) return;
        note_read(from, bytes);
        memcpy(to + skip, from, bytes);
    });
    mbarrier_complete_bytes(b, load.barrier, tile_bytes(load.map), load.at);
}

/* ---- stores ---------------------------------------------------------------------------------- */

namespace
{

void read_store(Store *store)
{
    if (store->read) return;
    store->read = true;
    const Transfer &t = store->transfer;
    const unsigned char *arena = t.by->block->shared.arena;
    store->bytes.resize(tile_bytes(t.map));
    for (uint32_t at = 0; at < store->bytes.size(); at += CHUNK) {
        const unsigned char *from = arena + swizzled(t.shared + at, t.map.swizzle);
        note_read(from, CHUNK);
        memcpy(&store->bytes[at], from, CHUNK);
    }
}

} // namespace

void tma_finish_store(Store *store)
{
    read_store(store);
    if (store->done) return;
    store->done = true;
    each_chunk(store->transfer,
               [&](uint32_t at, const unsigned char *p, uint32_t skip, uint32_t bytes) {
                   if (!bytes) return;
                   unsigned char *to = const_cast<unsigned char *>(p);
                   note_write(to, bytes);
                   memcpy(to, &store->bytes[at + skip], bytes);
               });
}

void tma_store(const CUtensorMap *map, uint32_t from, int rank, const int *corner, Place at)
{
    Store store = {begin_transfer(map, from, rank, corner, "tma_store", at), {}, false, false};
    if (done_at_once()) tma_finish_store(&store);
    current->async.stores.push_back(std::move(store));
}

void tma_commit()
{
    ThreadAsync *a = &current->async;
    a->store_groups.push_back(std::move(a->stores));
    a->stores.clear();
}

namespace
{

bool all_done(const std::vector<Store> &group)
{
    for (const Store &store : group)
        if (!store.done) return false;
    return true;
}

} // namespace

/* Groups that were only read stay in the queue until they are waited for, or the thread ends. */
void tma_wait(size_t groups, bool only_read, Place at)
{
    std::vector<std::vector<Store>> *queue = &current->async.store_groups;
    if (queue->size() > groups) let_others_go_first(at);
    for (size_t i = 0; i + groups < queue->size(); i++)
        for (Store &store : (*queue)[i]) {
            if (only_read)
                read_store(&store);
            else
                tma_finish_store(&store);
        }
    while (queue->size() > groups && all_done(queue->front())) queue->erase(queue->begin());
}

} // namespace emulation

/* ---- the driver's encoder -------------------------------------------------------------------- */

namespace
{

int element_bytes(CUtensorMapDataType type)
{
    switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
        return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
        return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ:
        return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
        return 8;
    default:
        return 0;
    }
}

} // namespace

/* Refuses what the driver's documentation refuses, and what is not emulated (interleaving, element
 * strides, the newer swizzles). */
extern "C" CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type,
                                           cuuint32_t rank, void *base, const cuuint64_t *extent,
                                           const cuuint64_t *stride, const cuuint32_t *box,
                                           const cuuint32_t *element_stride,
                                           CUtensorMapInterleave interleave,
                                           CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                                           CUtensorMapFloatOOBfill fill)
{
    static const cuuint32_t span[] = {256 * 8, 32, 64, 128}; /* bytes of a row, by swizzle */
    int bytes = element_bytes(type);
    if (!bytes || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || swizzle > 3)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!map || reinterpret_cast<uintptr_t>(map) % 64 || reinterpret_cast<uintptr_t>(base) % 16 ||
        rank < 1 || rank > 5)
        return CUDA_ERROR_INVALID_VALUE;
    emulation::TensorMap m = {};
    m.magic = emulation::MAGIC;
    m.rank = static_cast<uint8_t>(rank);
    m.element_bytes = static_cast<uint8_t>(bytes);
    m.swizzle = static_cast<uint8_t>(swizzle);
    m.nan_outside = fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
    m.base = static_cast<unsigned char *>(base);
    uint64_t least = extent[0] * static_cast<uint64_t>(bytes);
    for (cuuint32_t i = 0; i < rank; i++) {
        if (extent[i] < 1 || extent[i] > UINT64_C(1) << 32 || box[i] < 1 || box[i] > 256 ||
            element_stride[i] != 1)
            return CUDA_ERROR_INVALID_VALUE;
        m.extent[i] = extent[i];
        m.box[i] = static_cast<uint16_t>(box[i]);
        if (i == 0) continue;
        m.stride[i] = stride[i - 1];
        if (m.stride[i] % 16 || m.stride[i] >= UINT64_C(1) << 40 || m.stride[i] < least)
            return CUDA_ERROR_INVALID_VALUE;
        least = m.stride[i];
    }
    cuuint32_t row = box[0] * static_cast<cuuint32_t>(bytes);
    if (row % 16 || row > span[swizzle]) return CUDA_ERROR_INVALID_VALUE;
    memset(map, 0, sizeof *map);
    memcpy(map, &m, sizeof m);
    return CUDA_SUCCESS;
}
