/* y = x W^T + b, where every output is one chain of fused multiply-adds over k = 0, 1, 2, ...
 *
 * So a row has the same bits whatever the other rows, their number, the threads and the blocking are: exactness is the
 * definition here, not a property found by measuring. Weights stay bfloat16 in memory and are widened in the cache.
 * Layout of a packed weight: panels of PANEL outputs, k-major. A bfloat16 panel keeps outputs j and j + LANES in the low and
 * the high half of one word, so that a shift and a mask widen both. Blocking after Goto and van de Geijn, "Anatomy of
 * High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008.
 */
#include "vectors.h"

#define DEPTH 1024 /* k of one block: a bfloat16 panel of it is 32 KiB on AVX2, a first-level cache */
#define GROUP 4          /* panels that share a block of rows while it is in the second-level cache */
#define ROWS_IN_CACHE 192 /* rows that a group of panels works on before it goes on to the next */

void pack_weight(const void *weight, void *packed, int64_t outputs, int64_t inputs, int is_bf16, int threads) {
    int64_t panels = (outputs + PANEL - 1) / PANEL;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < panels; p++) {
        for (int64_t k = 0; k < inputs; k++)
            for (int64_t j = 0; j < PANEL; j++) {
                int64_t n = p * PANEL + j, at = (p * inputs + k) * PANEL;
                if (is_bf16) {
                    int64_t place = at + 2 * (j % LANES) + j / LANES;
                    ((uint16_t *)packed)[place] = n < outputs ? ((const uint16_t *)weight)[n * inputs + k] : 0;
                } else {
                    ((float *)packed)[at + j] = n < outputs ? ((const float *)weight)[n * inputs + k] : 0.0f;
                }
            }
    }
}

INLINE void panel_row(const void *panel, int64_t k, int is_bf16, vfloat *low, vfloat *high) {
    if (is_bf16) {
        vword words = *(const vword *)((const uint32_t *)panel + k * LANES);
        *low = (vfloat)(words << 16);
        *high = (vfloat)(words & 0xffff0000u);
    } else {
        *low = load((const float *)panel + k * PANEL);
        *high = load((const float *)panel + k * PANEL + LANES);
    }
}

/* `rows` (a constant after inlining) rows of x against `panels` neighbouring panels, chains continued from `sums`. */
INLINE void tile(const float *x, int64_t x_stride, const void *panel, int is_bf16, int64_t panel_bytes, int64_t depth,
                 float *sums, int64_t sums_stride, int is_first, const int rows, const int panels) {
    vfloat low[rows * panels], high[rows * panels];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++) {
            low[r * panels + p] = is_first ? (vfloat){0} : load(sums + r * sums_stride + p * PANEL);
            high[r * panels + p] = is_first ? (vfloat){0} : load(sums + r * sums_stride + p * PANEL + LANES);
        }
    for (int64_t k = 0; k < depth; k++)
        for (int p = 0; p < panels; p++) {
            vfloat weight_low, weight_high;
            panel_row((const char *)panel + p * panel_bytes, k, is_bf16, &weight_low, &weight_high);
            for (int r = 0; r < rows; r++) {
                vfloat value = broadcast(x[r * x_stride + k]);
                low[r * panels + p] = fused(value, weight_low, low[r * panels + p]);
                high[r * panels + p] = fused(value, weight_high, high[r * panels + p]);
            }
        }
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++) {
            store(sums + r * sums_stride + p * PANEL, low[r * panels + p]);
            store(sums + r * sums_stride + p * PANEL + LANES, high[r * panels + p]);
        }
}

#define TILE_CASE(n) case n: tile(x, x_stride, panel, is_bf16, 0, depth, sums, sums_stride, is_first, n, 1); break
INLINE void some_rows(const float *x, int64_t x_stride, const void *panel, const int is_bf16, int64_t depth, float *sums,
                      int64_t sums_stride, int is_first, int rows) {
    switch (rows) {
        TILE_CASE(1); TILE_CASE(2); TILE_CASE(3); TILE_CASE(4); TILE_CASE(5); TILE_CASE(6);
#if TILE_ROWS > 6
        TILE_CASE(7); TILE_CASE(8);
#endif
#if TILE_ROWS > 8
        TILE_CASE(9); TILE_CASE(10); TILE_CASE(11); TILE_CASE(12);
#endif
    }
}

static void finish(const float *sums, int64_t stride, float *y, int64_t y_stride, const float *bias, int64_t rows,
                   int64_t first, int64_t width) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < width; j++)
            y[r * y_stride + first + j] = bias ? sums[r * stride + j] + bias[first + j] : sums[r * stride + j];
}

/* Few rows: memory is the roof, so weights are widened in registers and read once. */
INLINE void few_rows(const float *x, const char *packed, const float *bias, float *y, int64_t rows, int64_t outputs,
                     int64_t inputs, const int is_bf16, int threads) {
    int64_t panels = (outputs + PANEL - 1) / PANEL, panel_bytes = inputs * PANEL * (is_bf16 ? 2 : 4);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < panels; p += 2) {
        float sums[TILE_ROWS * 2 * PANEL];
        const char *panel = packed + p * panel_bytes;
        int count = p + 1 < panels ? 2 : 1;
        if (rows == 1 && count == 2) tile(x, inputs, panel, is_bf16, panel_bytes, inputs, sums, 2 * PANEL, 1, 1, 2);
        else if (rows == 2 && count == 2) tile(x, inputs, panel, is_bf16, panel_bytes, inputs, sums, 2 * PANEL, 1, 2, 2);
        else
            for (int c = 0; c < count; c++)
                some_rows(x, inputs, panel + c * panel_bytes, is_bf16, inputs, sums + c * PANEL, 2 * PANEL, 1, (int)rows);
        int64_t first = p * PANEL, width = outputs - first < count * PANEL ? outputs - first : count * PANEL;
        finish(sums, 2 * PANEL, y, outputs, bias, rows, first, width);
    }
}

INLINE void many_rows(const float *x, const char *packed, const float *bias, float *y, int64_t rows, int64_t outputs,
                      int64_t inputs, const int is_bf16, int threads) {
    int64_t panels = (outputs + PANEL - 1) / PANEL, item = is_bf16 ? 2 : 4, groups = (panels + GROUP - 1) / GROUP;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t g = 0; g < groups; g++) {
        float sums[ROWS_IN_CACHE * GROUP * PANEL] __attribute__((aligned(64)));
        int64_t last = (g + 1) * GROUP < panels ? (g + 1) * GROUP : panels;
        for (int64_t top = 0; top < rows; top += ROWS_IN_CACHE) {
            int64_t here = rows - top < ROWS_IN_CACHE ? rows - top : ROWS_IN_CACHE;
            int64_t tiles = (here + TILE_ROWS - 1) / TILE_ROWS;
            int even = (int)((here + tiles - 1) / tiles); /* 8 rows are 4 + 4: a tile of 2 would wait for its chains */
            for (int64_t k = 0; k < inputs; k += DEPTH) {
                int64_t depth = inputs - k < DEPTH ? inputs - k : DEPTH;
                for (int64_t p = g * GROUP; p < last; p++) {
                    const char *panel = packed + (p * inputs + k) * PANEL * item;
                    for (int64_t r = 0; r < here; r += even)
                        some_rows(x + (top + r) * inputs + k, inputs, panel, is_bf16, depth,
                                  sums + (r * GROUP + p - g * GROUP) * PANEL, GROUP * PANEL, k == 0,
                                  here - r < even ? (int)(here - r) : even);
                }
            }
            int64_t first = g * GROUP * PANEL, width = last * PANEL < outputs ? last * PANEL : outputs;
            finish(sums, GROUP * PANEL, y + top * outputs, outputs, bias, here, first, width - first);
        }
    }
}

/* x: [rows, inputs] float; packed: from pack_weight; bias: [outputs] float or NULL; y: [rows, outputs] float. */
void product(const float *x, const void *packed, const float *bias, float *y, int64_t rows, int64_t outputs, int64_t inputs,
             int is_bf16, int threads) {
    if (rows > TILE_ROWS && is_bf16) many_rows(x, packed, bias, y, rows, outputs, inputs, 1, threads);
    else if (rows > TILE_ROWS) many_rows(x, packed, bias, y, rows, outputs, inputs, 0, threads);
    else if (is_bf16) few_rows(x, packed, bias, y, rows, outputs, inputs, 1, threads);
    else few_rows(x, packed, bias, y, rows, outputs, inputs, 0, threads);
}
