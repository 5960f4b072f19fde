#include "mma.h"
#include "block.h"
#include "sanitizers.h"

#include <cstring>

namespace emulation
{

namespace
{

/* ---- ldmatrix, stmatrix ---------------------------------------------------------------------- */

struct Rows {
    uint32_t address, fragments[4];
};

/* Lane t of a fragment holds elements (t / 4, 2 (t % 4)) and the one to its right; transposed: of
 * the matrix seen as its transpose. */
struct Element {
    int row, column;
};
Element element_of(int lane, int half, bool transposed)
{
    int major = lane / 4, minor = 2 * (lane % 4) + half;
    return transposed ? Element{minor, major} : Element{major, minor};
}

unsigned char *element_at(const LaneBytes *data, int matrix, Element e)
{
    Rows rows;
    memcpy(&rows, data[8 * matrix + e.row], sizeof rows);
    return current->block->shared.arena + rows.address + 2 * e.column;
}

template <bool TRANSPOSED> void load_all(LaneBytes *data)
{
    uint32_t out[32][4];
    for (int lane = 0; lane < 32; lane++)
        for (int j = 0; j < 4; j++) {
            uint16_t half[2];
            for (int h = 0; h < 2; h++)
                memcpy(&half[h], element_at(data, j, element_of(lane, h, TRANSPOSED)), 2);
            out[lane][j] = half[0] | uint32_t{half[1]} << 16;
        }
    for (int lane = 0; lane < 32; lane++) memcpy(data[lane], out[lane], sizeof out[lane]);
}

template <bool TRANSPOSED> void store_all(LaneBytes *data)
{
    for (int lane = 0; lane < 32; lane++) {
        Rows from;
        memcpy(&from, data[lane], sizeof from);
        for (int j = 0; j < 4; j++)
            for (int h = 0; h < 2; h++) {
                uint16_t half = static_cast<uint16_t>(from.fragments[j] >> 16 * h);
                memcpy(element_at(data, j, element_of(lane, h, TRANSPOSED)), &half, 2);
            }
    }
}

/* ---- mma.sync -------------------------------------------------------------------------------- */

struct Fragments {
    uint32_t a[4], b[2];
    float c[4];
};

float float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* Lane t's registers: rows t / 4 and 8 below; k = (t % 4) * `per`, and half of K to the right; a
 * register holds `per` neighbours in k. */
template <int K> void read_fragments(const LaneBytes *data, float (*a)[K], float (*b)[8])
{
    constexpr int per = K / 8;
    for (int lane = 0; lane < 32; lane++) {
        Fragments f;
        memcpy(&f, data[lane], sizeof f);
        int row = lane / 4, k = lane % 4 * per;
        for (int i = 0; i < per; i++) {
            auto value = [&](uint32_t bits) {
                if (per == 1) return float_of(bits & 0xFFFFE000u); /* tf32 */
                return float_of(i == 0 ? bits << 16 : bits & 0xFFFF0000u);
            };
            for (int r = 0; r < 4; r++)
                a[row + 8 * (r & 1)][k + i + K / 2 * (r >> 1)] = value(f.a[r]);
            for (int r = 0; r < 2; r++) b[k + i + K / 2 * r][row] = value(f.b[r]);
        }
    }
}

template <int K>
NOT_INSTRUMENTED void add_products(float (&d)[16][8], const float (*a)[K], const float (*b)[8])
{
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < K; k++)
            for (int n = 0; n < 8; n++) d[m][n] += a[m][k] * b[k][n];
}

template <int K> void multiply_all(LaneBytes *data)
{
    float a[16][K], b[K][8], d[16][8] = {};
    read_fragments<K>(data, a, b);
    add_products<K>(d, a, b);
    for (int lane = 0; lane < 32; lane++) {
        Fragments f;
        memcpy(&f, data[lane], sizeof f);
        for (int i = 0; i < 4; i++) f.c[i] += d[lane / 4 + 8 * (i >> 1)][2 * (lane % 4) + (i & 1)];
        memcpy(data[lane], f.c, sizeof f.c);
    }
}

template <int K>
void multiply(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const char *what,
              Place at)
{
    Fragments f;
    memcpy(f.a, a, sizeof f.a);
    memcpy(f.b, b, sizeof f.b);
    memcpy(f.c, c, sizeof f.c);
    LaneBytes *data = meet_whole_warp(what, &f, sizeof f, at, multiply_all<K>);
    memcpy(c, data[current->lane], sizeof c);
}

} // namespace

void load_matrices(uint32_t (&r)[4], uint32_t row, bool transposed, Place at)
{
    Rows rows = {row, {}};
    note_read(shared_span(row, 16, 16, "ldmatrix", at), 16);
    LaneBytes *data = meet_whole_warp("ldmatrix", &rows, sizeof rows, at,
                                      transposed ? load_all<true> : load_all<false>);
    memcpy(r, data[current->lane], sizeof r);
}

void store_matrices(uint32_t row, const uint32_t (&r)[4], bool transposed, Place at)
{
    Rows rows = {row, {r[0], r[1], r[2], r[3]}};
    note_write(shared_span(row, 16, 16, "stmatrix", at), 16);
    meet_whole_warp("stmatrix", &rows, sizeof rows, at,
                    transposed ? store_all<true> : store_all<false>);
}

void mma_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Place at)
{
    multiply<16>(c, a, b, "mma_bf16", at);
}

void mma_tf32(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Place at)
{
    multiply<8>(c, a, b, "mma_tf32", at);
}

} // namespace emulation
