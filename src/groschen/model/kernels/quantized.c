/* Weights of 8 or 4 bits for serving: y = x W^T + b, where every output is one chain of fused multiply-adds over blocks of
 * inputs.
 *
 * Each row of x is rounded to 16 bits with a scale for each block, so a block's sum is a whole number and exact: no order, no
 * number of rows or threads and no blocking can touch it. Sixteen bits cost what eight would: AVX2 multiplies eight only
 * without their sign, and needs another step to add them up. Layout of a weight: quantized.h.
 * Leaves out gradients, for these weights do not change, and how weights are rounded (quantise.c).
 */
#include "quantized.h"

#define ROWS_AT_ONCE (LANES == 16 ? 8 : 4)     /* int32 and float sums of this many rows leave room for the weights */
#define FEW 16                                 /* rows up to which widening 4 bits each time costs less than storing 8 */
#define DEPTH 1024                             /* inputs of one block: a panel of it is 16 KiB on AVX2 */
#define GROUP 4                                /* panels that share a block of rows while it is in the second-level cache */
#define ROWS_IN_CACHE 192
#define MOST_CODE 32767.0f
#define MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to a whole number, which then stands in the low bits */
#define OFFSET 128        /* table entries are stored as 0 .. 255, so that the upper half of a word needs no sign */

#define EACH(r, rows) _Pragma("GCC unroll 8") for (int r = 0; r < (rows); r++) /* all in registers */

typedef int16_t vshort __attribute__((vector_size(4 * LANES), aligned(2), may_alias));
typedef uint16_t vpair __attribute__((vector_size(4 * LANES), aligned(2), may_alias));
typedef uint8_t vcode __attribute__((vector_size(4 * LANES), aligned(1), may_alias));
typedef int8_t vbyte __attribute__((vector_size(2 * LANES), aligned(1), may_alias));
typedef int16_t vcode16 __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

/* Rows of x after rounding. One row has `inputs` codes, `blocks` scales and sums. */
typedef struct {
    const int16_t *codes;
    const float *scales;
    const int32_t *sums;
    int64_t inputs, blocks;
    int64_t quads; /* a quarter of a block, a variable: gcc would unroll 8 of them and keep 30 vectors on the stack */
} Rounded;

INLINE vint dot_pairs(vshort a, vshort b) { /* lane i: a[2i] b[2i] + a[2i + 1] b[2i + 1] */
#if defined(__AVX512BW__)
    return (vint)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif LANES == 8
    return (vint)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif LANES == 4 && defined(__SSE2__)
    return (vint)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    int32x4_t low = vmull_s16(vget_low_s16((int16x8_t)a), vget_low_s16((int16x8_t)b));
    return (vint)vpaddq_s32(low, vmull_high_s16((int16x8_t)a, (int16x8_t)b));
#else
    vint sum;
    for (int i = 0; i < LANES; i++) sum[i] = (int32_t)a[2 * i] * b[2 * i] + (int32_t)a[2 * i + 1] * b[2 * i + 1];
    return sum;
#endif
}

INLINE vcode look_up(vcode table, vcode index) { /* `table` repeats its 16 bytes; index: 0 .. 15 */
#if defined(__AVX512BW__)
    return (vcode)_mm512_shuffle_epi8((__m512i)table, (__m512i)index);
#elif LANES == 8
    return (vcode)_mm256_shuffle_epi8((__m256i)table, (__m256i)index);
#elif LANES == 4 && defined(__SSSE3__)
    return (vcode)_mm_shuffle_epi8((__m128i)table, (__m128i)index);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return (vcode)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)index);
#else
    vcode found;
    for (int i = 0; i < 4 * LANES; i++) found[i] = table[index[i]];
    return found;
#endif
}

INLINE vcode table_of_levels(void) { /* loaded from memory that the compiler fills, once for a tile */
    uint8_t bytes[4 * LANES];
#pragma GCC unroll 64
    for (int i = 0; i < 4 * LANES; i++) bytes[i] = (uint8_t)(LEVELS[i % 16] + OFFSET);
    vcode table;
    memcpy(&table, bytes, sizeof table);
    return table;
}

INLINE vshort widen_bytes(const void *from) {
#if defined(__AVX512BW__)
    return (vshort)_mm512_cvtepi8_epi16(_mm256_loadu_si256(from));
#elif LANES == 8
    return (vshort)_mm256_cvtepi8_epi16(_mm_loadu_si128(from));
#else
    return __builtin_convertvector(*(const vbyte *)from, vshort);
#endif
}

INLINE vshort broadcast_pair(const int16_t *x) {
    int32_t both;
    memcpy(&both, x, 4);
    return (vshort)((vint){0} + both);
}

/* Codes number 4 q to 4 q + 3 of a block's vectors: low and high outputs of inputs 4 q and 4 q + 1, then of the next two.
 * Those of 4 bits come with OFFSET added. */
INLINE void four_vectors(const char *codes, int64_t q, const int code_bits, vcode table, vshort *w) {
    if (code_bits == 8) {
        for (int i = 0; i < 4; i++) w[i] = widen_bytes(codes + (4 * q + i) * 2 * LANES);
    } else {
        vpair words = *(const vpair *)(codes + q * 4 * LANES);
        vpair first = (vpair)look_up(table, (vcode)(words & 0x0f0f));
        vpair second = (vpair)look_up(table, (vcode)((words >> 4) & 0x0f0f));
        w[0] = (vshort)(first & 0xff);
        w[1] = (vshort)(first >> 8);
        w[2] = (vshort)(second & 0xff);
        w[3] = (vshort)(second >> 8);
    }
}

/* `rows` (a constant after inlining) rows from x against `blocks` blocks of one panel, chains continued from `sums`.
 * code_bits: 8 where codes of 4 bits have been widened to 8. */
INLINE void tile(const char *codes, int64_t codes_stride, const int code_bits, const char *scales, const int bits, Rounded x,
                 int64_t blocks, float *sums, int64_t sums_stride, int is_first, const int rows) {
    vfloat low[ROWS_AT_ONCE], high[ROWS_AT_ONCE];
    vint low_sum[ROWS_AT_ONCE], high_sum[ROWS_AT_ONCE];
    vcode table = table_of_levels();
    EACH(r, rows) {
        low[r] = is_first ? (vfloat){0} : load(sums + r * sums_stride);
        high[r] = is_first ? (vfloat){0} : load(sums + r * sums_stride + LANES);
    }
    for (int64_t b = 0; b < blocks; b++) {
        const int16_t *values = x.codes + b * BLOCK_OF(bits);
        EACH(r, rows) low_sum[r] = high_sum[r] = (vint){0} - (code_bits == 4 ? OFFSET * x.sums[r * x.blocks + b] : 0);
        for (int64_t q = 0; q < x.quads; q++) {
            vshort w[4];
            four_vectors(codes + b * codes_stride, q, code_bits, table, w);
            EACH(r, rows) {
                vshort first = broadcast_pair(values + r * x.inputs + 4 * q);
                vshort second = broadcast_pair(values + r * x.inputs + 4 * q + 2);
                low_sum[r] += dot_pairs(w[0], first);
                high_sum[r] += dot_pairs(w[1], first);
                low_sum[r] += dot_pairs(w[2], second);
                high_sum[r] += dot_pairs(w[3], second);
            }
        }
        vword scale = *(const vword *)(scales + b * BYTES_OF_BLOCK(bits));
        EACH(r, rows) {
            vfloat of_x = broadcast(x.scales[r * x.blocks + b]);
            low[r] = fused(__builtin_convertvector(low_sum[r], vfloat), (vfloat)(scale << 16) * of_x, low[r]);
            high[r] = fused(__builtin_convertvector(high_sum[r], vfloat), (vfloat)(scale & 0xffff0000u) * of_x, high[r]);
        }
    }
    EACH(r, rows) {
        store(sums + r * sums_stride, low[r]);
        store(sums + r * sums_stride + LANES, high[r]);
    }
}

#define TILE_CASE(n) \
    case n: tile(codes, codes_stride, code_bits, scales, bits, part, blocks, sums, sums_stride, is_first, n); break
/* Any number of rows, from row `row` and block `block` of x. */
INLINE void some_rows(const char *codes, int64_t codes_stride, const int code_bits, const char *scales, const int bits,
                      Rounded x, int64_t row, int64_t block, int64_t blocks, float *sums, int64_t sums_stride, int is_first,
                      int64_t rows) {
    for (int64_t r = 0; r < rows; r += ROWS_AT_ONCE, sums += ROWS_AT_ONCE * sums_stride) {
        Rounded part = {x.codes + (row + r) * x.inputs + block * BLOCK_OF(bits), x.scales + (row + r) * x.blocks + block,
                        x.sums + (row + r) * x.blocks + block, x.inputs, x.blocks, x.quads};
        switch (rows - r < ROWS_AT_ONCE ? rows - r : ROWS_AT_ONCE) {
            TILE_CASE(1); TILE_CASE(2); TILE_CASE(3); TILE_CASE(4);
#if ROWS_AT_ONCE > 4
            TILE_CASE(5); TILE_CASE(6); TILE_CASE(7); TILE_CASE(8);
#endif
        }
    }
}

static void finish(const float *sums, int64_t stride, float *y, int64_t y_stride, const float *bias, int64_t rows,
                   int64_t width) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < width; j++) y[r * y_stride + j] = bias ? sums[r * stride + j] + bias[j] : sums[r * stride + j];
}

/* Few rows, one panel: memory is the roof, so codes are widened in registers and read once. */
INLINE void few_rows(Rounded x, const char *panel, const float *bias, float *y, int64_t y_stride, int64_t rows, int64_t width,
                     const int bits) {
    float sums[FEW * PANEL];
    some_rows(panel + 2 * PANEL, BYTES_OF_BLOCK(bits), bits, panel, bits, x, 0, 0, x.blocks, sums, PANEL, 1, rows);
    finish(sums, PANEL, y, y_stride, bias, rows, width);
}

/* 4 bits to 8, in the layout of 8: once for many rows. */
INLINE void widen_codes(const char *panel, int64_t blocks, int8_t *wide) {
    vcode table = table_of_levels();
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t q = 0; q < BLOCK_OF(4) / 4; q++) {
            vpair words = *(const vpair *)(panel + b * BYTES_OF_BLOCK(4) + 2 * PANEL + q * 4 * LANES);
            vcode found[2] = {look_up(table, (vcode)(words & 0x0f0f)), look_up(table, (vcode)((words >> 4) & 0x0f0f))};
            for (int i = 0; i < 2; i++, wide += 4 * LANES) {
                uint8_t bytes[4 * LANES];
                memcpy(bytes, found + i, sizeof bytes);
                for (int j = 0; j < 2 * LANES; j++) wide[j] = (int8_t)(bytes[2 * j] - OFFSET);
                for (int j = 0; j < 2 * LANES; j++) wide[2 * LANES + j] = (int8_t)(bytes[2 * j + 1] - OFFSET);
            }
        }
}

/* Many rows, up to GROUP panels, blocked so that codes stay in the first-level and rows in the second-level cache. */
INLINE void many_rows(Rounded x, const char *packed, const float *bias, float *y, int64_t y_stride, int64_t rows, int64_t width,
                      const int bits) {
    float sums[ROWS_IN_CACHE * GROUP * PANEL] __attribute__((aligned(64)));
    int8_t wide[DEPTH * PANEL] __attribute__((aligned(64)));
    const int64_t at_once = DEPTH / BLOCK_OF(bits);
    for (int64_t top = 0; top < rows; top += ROWS_IN_CACHE) {
        int64_t here = rows - top < ROWS_IN_CACHE ? rows - top : ROWS_IN_CACHE;
        for (int64_t b = 0; b < x.blocks; b += at_once) {
            int64_t blocks = x.blocks - b < at_once ? x.blocks - b : at_once;
            for (int64_t p = 0; p * PANEL < width; p++) {
                const char *panel = packed + (p * x.blocks + b) * BYTES_OF_BLOCK(bits);
                if (bits == 4) widen_codes(panel, blocks, wide);
                some_rows(bits == 4 ? (const char *)wide : panel + 2 * PANEL,
                          bits == 4 ? BLOCK_OF(bits) * PANEL : BYTES_OF_BLOCK(bits), 8, panel, bits, x, top, b, blocks,
                          sums + p * PANEL, GROUP * PANEL, b == 0, here);
            }
        }
        finish(sums, GROUP * PANEL, y + top * y_stride, y_stride, bias, here, width);
    }
}

/* Not inlined and with `bits` written out: the body of a parallel loop is compiled once for all values of a parameter. */
#define FOR_BITS(bits) \
    static __attribute__((noinline)) void few_rows_##bits(Rounded x, const char *packed, const float *bias, float *y, \
                                                          int64_t y_stride, int64_t rows, int64_t width) { \
        few_rows(x, packed, bias, y, y_stride, rows, width, bits); \
    } \
    static __attribute__((noinline)) void many_rows_##bits(Rounded x, const char *packed, const float *bias, float *y, \
                                                           int64_t y_stride, int64_t rows, int64_t width) { \
        many_rows(x, packed, bias, y, y_stride, rows, width, bits); \
    }
FOR_BITS(8)
FOR_BITS(4)

/* One block of a row: codes of 16 bits, their scale and sum. A block with a NaN or an infinity has the scale NaN. */
static void round_block(const float *x, int64_t count, int64_t block, int16_t *codes, float *scale, int32_t *sum) {
    float padded[64] = {0};
    if (count < block) x = memcpy(padded, x, count * sizeof(float));
    vfloat most = {0}, poison = {0};
    for (int64_t i = 0; i < block; i += LANES) {
        vfloat value = load(x + i);
        most = vmax(most, (vfloat)((vword)value & 0x7fffffffu));
        poison += value * broadcast(0.0f);
    }
    float top = max_lanes(most);
    float inverse = top > 1e-30f ? MOST_CODE / top : 0.0f; /* below, the inverse would be infinite */
    vint total = {0};
    for (int64_t i = 0; i < block; i += LANES) {
        vint code = (vint)(load(x + i) * broadcast(inverse) + broadcast(MAGIC)) - 0x4B400000;
        *(vcode16 *)(codes + i) = __builtin_convertvector(code, vcode16);
        total += code;
    }
    *sum = 0;
    for (int i = 0; i < LANES; i++) *sum += total[i];
    *scale = (inverse > 0.0f ? top / MOST_CODE : 0.0f) + sum_lanes(poison);
}

/* Floats of scratch that a product needs for each row of x. */
int64_t quantised_scratch(int64_t inputs) { return (inputs + 63) / 64 * 36; } /* 64 codes and two scales and sums */

/* x: [rows, inputs] float; packed: from quantise_weight; bias: [outputs] float or NULL; y: [rows, outputs] float; bits: 8 or 4;
 * scratch: quantised_scratch(inputs) floats for each row. */
void quantised_product(const float *x, const void *packed, const float *bias, float *y, int64_t rows, int64_t outputs,
                       int64_t inputs, int bits, float *scratch, int threads) {
    int64_t block = BLOCK_OF(bits), blocks = (inputs + block - 1) / block;
    float *scales = scratch;
    int32_t *sums = (int32_t *)(scratch + rows * blocks);
    int16_t *codes = (int16_t *)(scratch + 2 * rows * blocks);
#pragma omp parallel for num_threads(threads) schedule(static) if (rows > 8)
    for (int64_t r = 0; r < rows; r++)
        for (int64_t b = 0; b < blocks; b++)
            round_block(x + r * inputs + b * block, inputs - b * block < block ? inputs - b * block : block, block,
                        codes + (r * blocks + b) * block, scales + r * blocks + b, sums + r * blocks + b);
    Rounded rounded = {codes, scales, sums, blocks * block, blocks, block / 4};
    int is_few = rows <= FEW;
    int64_t step = PANEL * (is_few ? 1 : GROUP);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t n = 0; n < outputs; n += step) {
        int64_t width = outputs - n < step ? outputs - n : step;
        const char *from = (const char *)packed + n / PANEL * blocks * BYTES_OF_BLOCK(bits);
        const float *added = bias ? bias + n : bias;
        if (is_few && bits == 8) few_rows_8(rounded, from, added, y + n, outputs, rows, width);
        else if (is_few) few_rows_4(rounded, from, added, y + n, outputs, rows, width);
        else if (bits == 8) many_rows_8(rounded, from, added, y + n, outputs, rows, width);
        else many_rows_4(rounded, from, added, y + n, outputs, rows, width);
    }
}
