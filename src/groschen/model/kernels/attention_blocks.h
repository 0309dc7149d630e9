/* Some rows against the cached positions of one key/value head: their scores, and the values that their weights add up.
 *
 * A row is a query of one head. Its chains are the same whatever rows stand beside it: rows share loads, never a sum.
 * Two forms of one source. With bfloat16 activations on a processor that has VDPBF16PS, a link of a chain is its sum of two
 * products: scores take two numbers of a head's width, values two positions, so the keys of a block lie as [width / 2, 16, 2],
 * its values as [8, width, 2], and weights are rounded to bfloat16. Otherwise a link is one fused multiply-add of float32, keys
 * lie as [width, 16], values as [16, width], and weights stay float32.
 */
#ifndef GROSCHEN_ATTENTION_BLOCKS_H
#define GROSCHEN_ATTENTION_BLOCKS_H
#include "vectors.h"

#define KEY_VECTORS (KEYS_PER_BLOCK / LANES)
#define SCORE_ROWS (LANES == 16 ? 16 : 4) /* rows at once: 16 of 32 registers add up, or 8 of 16 */
#define VALUE_ROWS (LANES == 16 ? 6 : 3)  /* 24 of 32 registers, or 12 of 16 */

#if defined(ACTIVATION_BF16) && defined(__AVX512BF16__)
#define TERMS 2 /* products in one link of a chain */
typedef uint16_t term;
typedef vword cached;

INLINE cached cached_at(const activation *from) { return *(const vword *)from; }
INLINE cached one_at(const activation *from) { /* in every lane */
    uint32_t pair;
    memcpy(&pair, from, sizeof pair);
    return pair - (vword){0};
}
INLINE cached first_term(cached pair) { return pair & 0xffffu; }
INLINE vfloat link(const term *x, cached y, vfloat sum) {
    return (vfloat)_mm512_dpbf16_ps((__m512)sum, (__m512bh)one_at(x), (__m512bh)y);
}
INLINE term term_of(activation value) { return value; }
INLINE vfloat as_terms(vfloat value, term *to) { /* what is kept of it */
    __m256bh half = _mm512_cvtneps_pbh((__m512)value); /* to nearest, ties to even; denormal numbers become 0 */
    memcpy(to, &half, sizeof half);
    return get_vector(to);
}
#else
#define TERMS 1
typedef float term;
typedef vfloat cached;

INLINE cached cached_at(const activation *from) { return get_vector(from); }
INLINE cached one_at(const activation *from) { return broadcast(get(from)); }
INLINE cached first_term(cached one) { return one; }
INLINE vfloat link(const term *x, cached y, vfloat sum) { return fused(broadcast(*x), y, sum); }
INLINE term term_of(activation value) { return get(&value); }
INLINE vfloat as_terms(vfloat value, term *to) {
    store(to, value);
    return value;
}
#endif

/* Where number e of the key, or of the value, at a place of a block lies. */
INLINE int64_t key_index(int64_t e, int64_t place) { return (e / TERMS * KEYS_PER_BLOCK + place) * TERMS + e % TERMS; }
INLINE int64_t value_index(int64_t e, int64_t place, int64_t width) {
    return (place / TERMS * width + e) * TERMS + place % TERMS;
}

/* The blocks of one head: `table` has their numbers, `stride` activations lie between one number and the next. */
typedef struct {
    const activation *head;
    const int32_t *table;
    int64_t stride, width;
} Blocks;

INLINE const activation *block_at(const Blocks *b, int64_t i) { return b->head + b->table[i] * b->stride; }

/* Reading a block takes longer than its arithmetic until it is in the cache: line by line, the next one is asked for. */
INLINE void ask_for(const activation *next, int64_t at) { __builtin_prefetch(next + at); }

/* queries: [width, rows] terms, TERMS of a row side by side. Writes the scores of `count` whole blocks. */
INLINE void score_rows(const term *queries, const Blocks *keys, int64_t count, float *scores, int64_t stride, float scale,
                       const int rows) {
    for (int64_t i = 0; i < count; i++) {
        const activation *block = block_at(keys, i), *next = block_at(keys, i + 1 < count ? i + 1 : i);
        vfloat sum[SCORE_ROWS * KEY_VECTORS]; /* of a fixed size: else gcc 12 stores it at every step */
        for (int k = 0; k < rows * KEY_VECTORS; k++) sum[k] = (vfloat){0};
        for (int64_t e = 0; e < keys->width; e += TERMS)
            for (int j = 0; j < KEY_VECTORS; j++) {
                int64_t at = e * KEYS_PER_BLOCK + j * LANES * TERMS;
                cached key = cached_at(block + at);
                ask_for(next, at);
                for (int r = 0; r < rows; r++)
                    sum[r * KEY_VECTORS + j] = link(queries + e * rows + r * TERMS, key, sum[r * KEY_VECTORS + j]);
            }
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < KEY_VECTORS; j++)
                store(scores + r * stride + i * KEYS_PER_BLOCK + j * LANES, sum[r * KEY_VECTORS + j] * broadcast(scale));
    }
}

/* Numbers e to e + vectors * LANES of the first `count` values (a multiple of TERMS), times their weights, to `sums`. */
INLINE void add_values(const term *weights, int64_t stride, const Blocks *values, int64_t e, int64_t count, float *sums,
                       const int rows, const int vectors) {
    const int64_t width = values->width;
    const activation *at = block_at(values, 0), *next = at;
    vfloat sum[VALUE_ROWS * 4];
    for (int k = 0; k < rows * vectors; k++) sum[k] = (vfloat){0};
    for (int64_t s = 0; s < count; s += TERMS) {
        if (s % KEYS_PER_BLOCK == 0) {
            at = block_at(values, s / KEYS_PER_BLOCK) + e * TERMS;
            next = s + KEYS_PER_BLOCK < count ? block_at(values, s / KEYS_PER_BLOCK + 1) + e * TERMS : at;
        }
        for (int j = 0; j < vectors; j++) {
            cached value = cached_at(at + j * LANES * TERMS);
            ask_for(next, j * LANES * TERMS);
            for (int r = 0; r < rows; r++)
                sum[r * vectors + j] = link(weights + r * stride + s, value, sum[r * vectors + j]);
        }
        at += width * TERMS;
        next += width * TERMS;
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++) store(sums + r * width + e + j * LANES, sum[r * vectors + j]);
}

/* The last value of an odd number of them: it shares its pairs with a position that may hold anything. */
static void add_last(const term *weights, int64_t stride, const Blocks *values, int64_t last, float *sums, int rows) {
    const activation *at = block_at(values, last / KEYS_PER_BLOCK) + last % KEYS_PER_BLOCK * values->width;
    for (int r = 0; r < rows; r++)
        for (int64_t e = 0; e < values->width; e++) {
            vfloat sum = broadcast(sums[r * values->width + e]);
            sums[r * values->width + e] = link(weights + r * stride + last, first_term(one_at(at + e * TERMS)), sum)[0];
        }
}

/* A function for each number of rows, not inlined: gcc 12 runs out of registers where many of them are one function. */
typedef void ScoreRows(const term *, const Blocks *, int64_t, float *, int64_t, float);
typedef void AddValues(const term *, int64_t, const Blocks *, int64_t, int64_t, float *);
#define SCORE(n)                                                                                                              \
    static __attribute__((noinline)) void score##n(const term *queries, const Blocks *keys, int64_t count, float *scores,     \
                                                   int64_t stride, float scale) {                                             \
        score_rows(queries, keys, count, scores, stride, scale, n);                                                           \
    }
#define ADD(n, vectors)                                                                                                       \
    static __attribute__((noinline)) void add##n##x##vectors(const term *weights, int64_t stride, const Blocks *values,       \
                                                             int64_t e, int64_t count, float *sums) {                         \
        add_values(weights, stride, values, e, count, sums, n, vectors);                                                      \
    }
SCORE(1) SCORE(2) SCORE(3) SCORE(4)
ADD(1, 1) ADD(2, 1) ADD(3, 1)
ADD(1, 4) ADD(2, 4) ADD(3, 4)
#if LANES == 16
SCORE(5) SCORE(6) SCORE(7) SCORE(8) SCORE(9) SCORE(10) SCORE(11) SCORE(12) SCORE(13) SCORE(14) SCORE(15) SCORE(16)
ADD(4, 1) ADD(5, 1) ADD(6, 1)
ADD(4, 4) ADD(5, 4) ADD(6, 4)
static ScoreRows *const SCORES[] = {0,      score1, score2,  score3,  score4,  score5,  score6,  score7, score8,
                                    score9, score10, score11, score12, score13, score14, score15, score16};
static AddValues *const ADD_ONE[] = {0, add1x1, add2x1, add3x1, add4x1, add5x1, add6x1};
static AddValues *const ADD_FOUR[] = {0, add1x4, add2x4, add3x4, add4x4, add5x4, add6x4};
#else
static ScoreRows *const SCORES[] = {0, score1, score2, score3, score4};
static AddValues *const ADD_ONE[] = {0, add1x1, add2x1, add3x1};
static AddValues *const ADD_FOUR[] = {0, add1x4, add2x4, add3x4};
#endif

/* So many of the `left` rows go next: all in as few parts as there can be, and these as even as they can be. */
INLINE int next_rows(int left, int most) {
    int parts = (left + most - 1) / most;
    return (left + parts - 1) / parts;
}

static void all_scores(const term *queries, const Blocks *keys, int64_t count, float *scores, int64_t stride, float scale,
                       int rows) {
    for (int r = 0, n; r < rows; r += n) {
        n = next_rows(rows - r, SCORE_ROWS);
        SCORES[n](queries + r * keys->width, keys, count, scores + r * stride, stride, scale);
    }
}

/* Queries as score_rows wants them. */
static void lay_out(const activation *const *queries, term *to, int64_t width, int rows) {
    for (int r = 0, n; r < rows; r += n) {
        n = next_rows(rows - r, SCORE_ROWS);
        for (int i = r; i < r + n; i++)
            for (int64_t e = 0; e < width; e++)
                to[r * width + (e / TERMS * n + i - r) * TERMS + e % TERMS] = term_of(queries[i][e]);
    }
}

static void value_columns(AddValues *const *add, const term *weights, int64_t stride, const Blocks *values, int64_t e,
                          int64_t count, float *sums, int rows) {
    for (int r = 0, n; r < rows; r += n) {
        n = next_rows(rows - r, VALUE_ROWS);
        add[n](weights + r * stride, stride, values, e, count, sums + r * values->width);
    }
}

static void all_values(const term *weights, int64_t stride, const Blocks *values, int64_t count, float *sums, int rows) {
    int64_t e = 0, paired = count / TERMS * TERMS;
    for (; e + 4 * LANES <= values->width; e += 4 * LANES)
        value_columns(ADD_FOUR, weights, stride, values, e, paired, sums, rows);
    for (; e + LANES <= values->width; e += LANES)
        value_columns(ADD_ONE, weights, stride, values, e, paired, sums, rows);
    for (; e < values->width; e++) /* what a width leaves that is no multiple of LANES: the same chain, number by number */
        for (int r = 0; r < rows; r++) {
            vfloat sum = {0};
            for (int64_t s = 0; s < paired; s += TERMS) {
                const activation *block = block_at(values, s / KEYS_PER_BLOCK);
                sum = link(weights + r * stride + s, one_at(block + s % KEYS_PER_BLOCK * values->width + e * TERMS), sum);
            }
            sums[r * values->width + e] = sum[0];
        }
    if (paired < count) add_last(weights, stride, values, paired, sums, rows);
}

#endif
