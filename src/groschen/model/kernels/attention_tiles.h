/* attention_blocks.h on the matrix unit of an Intel core (AMX): sixteen rows against one block of cached positions at a time.
 *
 * The blocks lie as VDPBF16PS wants them, which is what TDPBF16PS wants: keys [width / 2, 16, 2] are a tile for each 32 numbers
 * of a head's width, values [8, width, 2] are half a tile for each 16. What an instruction adds to a row depends on that row and
 * on the block alone, blocks go from first to last, and a position that a row may not see weighs an exact zero: a row has the
 * same bits in any company, as in attention_blocks.h, but not the same bits as there.
 */
#ifndef GROSCHEN_ATTENTION_TILES_H
#define GROSCHEN_ATTENTION_TILES_H
#include "attention_blocks.h"
#include "tiles.h"

#if HAS_TILES
#define TILE_ROWS_MOST 16

/* Tiles 0, 1, 6 and 7 add up; 2 holds queries, 3 keys, 4 weights, 5 values. */
static void set_attention_tiles(int rows) {
    TileShape shape = {.palette = 1};
    const uint8_t heights[8] = {rows, rows, rows, 16, rows, 8, rows, rows};
    for (int i = 0; i < 8; i++) shape.rows[i] = heights[i], shape.row_bytes[i] = i == 4 ? 32 : 64;
    load_shape(&shape);
}

INLINE void ask_for_block(const activation *block, int64_t width) {
    for (int64_t at = 0; at < width * KEYS_PER_BLOCK; at += 32) _mm_prefetch((const char *)(block + at), _MM_HINT_T0);
}

/* queries: [rows, width], at most sixteen rows. Writes the scores of `count` whole blocks, not scaled. */
static void score_tile(const activation *queries, const Blocks *keys, int64_t count, float *scores, int64_t stride) {
    for (int64_t i = 0; i < count; i++) {
        const activation *block = block_at(keys, i);
        if (i + 1 < count) ask_for_block(block_at(keys, i + 1), keys->width);
        _tile_zero(0);
        for (int64_t e = 0; e < keys->width; e += 32) {
            _tile_loadd(2, queries + e, keys->width * 2);
            _tile_loadd(3, block + e * KEYS_PER_BLOCK, 64);
            _tile_dpbf16ps(0, 2, 3);
        }
        _tile_stored(0, scores + i * KEYS_PER_BLOCK, stride * 4);
    }
}

/* Columns e to e + 64 (or + 16) of the values of `blocks` blocks, times their weights, to `sums`. `last`: what stands for the last
 * block. */
INLINE void add_tiles(const term *weights, int64_t stride, const Blocks *values, int64_t e, int64_t blocks,
                      const activation *last, float *sums, const int is_wide) {
    int64_t row = values->width * 4, to = values->width * 4;
    _tile_zero(0);
    if (is_wide) {
        _tile_zero(1);
        _tile_zero(6);
        _tile_zero(7);
    }
    for (int64_t i = 0; i < blocks; i++) {
        const activation *at = (i + 1 == blocks ? last : block_at(values, i)) + e * 2;
        if (i + 2 < blocks && e == 0) ask_for_block(block_at(values, i + 1), values->width);
        _tile_loadd(4, weights + i * KEYS_PER_BLOCK, stride * 2);
        _tile_loadd(5, at, row);
        _tile_dpbf16ps(0, 4, 5);
        if (!is_wide) continue;
        _tile_loadd(5, at + 32, row);
        _tile_dpbf16ps(1, 4, 5);
        _tile_loadd(5, at + 64, row);
        _tile_dpbf16ps(6, 4, 5);
        _tile_loadd(5, at + 96, row);
        _tile_dpbf16ps(7, 4, 5);
    }
    _tile_stored(0, sums + e, to);
    if (!is_wide) return;
    _tile_stored(1, sums + e + 16, to);
    _tile_stored(6, sums + e + 32, to);
    _tile_stored(7, sums + e + 48, to);
}

/* The first `count` values; weights: [rows, stride], 0 behind `count`. spare: a block. */
static void value_tile(const term *weights, int64_t stride, const Blocks *values, int64_t count, float *sums, activation *spare) {
    int64_t blocks = (count + KEYS_PER_BLOCK - 1) / KEYS_PER_BLOCK, left = count % KEYS_PER_BLOCK, e = 0;
    const activation *last = block_at(values, blocks - 1);
    if (left) { /* behind the last value may stand anything, also what is no number */
        memset(spare, 0, values->width * KEYS_PER_BLOCK * sizeof *spare);
        for (int64_t place = 0; place < left; place++)
            for (int64_t c = 0; c < values->width; c++) {
                int64_t at = value_index(c, place, values->width);
                spare[at] = last[at];
            }
        last = spare;
    }
    tile_fence();
    for (; e + 64 <= values->width; e += 64) add_tiles(weights, stride, values, e, blocks, last, sums, 1);
    for (; e < values->width; e += 16) add_tiles(weights, stride, values, e, blocks, last, sums, 0);
}

INLINE int fits_tiles(int64_t key_width, int64_t value_width) {
    return has_tiles() && key_width % 32 == 0 && value_width % 16 == 0;
}
#endif
#endif
