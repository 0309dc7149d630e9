/* Causal attention over a cache of blocks, for training, prefill and decode alike.
 *
 * What one query gets depends on its own row of blocks alone: scores are chains over the width of a head, the softmax sums
 * by position, the values are one chain over positions. Neighbouring queries and heads only share loads, never a sum, and a
 * masked position adds an exact zero. So chunks, batches, pre-emption and threads cannot change a bit.
 * Keys lie as [block, head, width, KEYS_PER_BLOCK], values as [block, head, KEYS_PER_BLOCK, width].
 */
#include "vectors.h"

#define KEY_VECTORS (KEYS_PER_BLOCK / LANES)
#define MAX_ROWS 16 /* (query, head) pairs that walk through the keys together */

typedef struct {
    int64_t heads, kv_heads, key_width, value_width, max_blocks, window;
    float scale, softcap; /* softcap 0: none */
} Shape;

void store_keys_values(const activation *keys, const activation *values, activation *key_cache, activation *value_cache,
                       const int64_t *slots, int64_t tokens, int64_t kv_heads, int64_t key_width, int64_t value_width) {
    for (int64_t n = 0; n < tokens; n++) {
        int64_t block = slots[n] / KEYS_PER_BLOCK, place = slots[n] % KEYS_PER_BLOCK;
        for (int64_t h = 0; h < kv_heads; h++) {
            activation *to = key_cache + (block * kv_heads + h) * key_width * KEYS_PER_BLOCK + place;
            const activation *from = keys + (n * kv_heads + h) * key_width;
            for (int64_t e = 0; e < key_width; e++) to[e * KEYS_PER_BLOCK] = from[e];
            memcpy(value_cache + ((block * kv_heads + h) * KEYS_PER_BLOCK + place) * value_width,
                   values + (n * kv_heads + h) * value_width, value_width * sizeof(activation));
        }
    }
}

INLINE void score_rows(const float *queries, int64_t width, const activation *keys, float *scores, int64_t stride, float scale,
                       const int rows) {
    vfloat sum[rows * KEY_VECTORS];
    for (int i = 0; i < rows * KEY_VECTORS; i++) sum[i] = (vfloat){0};
    for (int64_t e = 0; e < width; e++)
        for (int j = 0; j < KEY_VECTORS; j++) {
            vfloat key = get_vector(keys + e * KEYS_PER_BLOCK + j * LANES);
            for (int r = 0; r < rows; r++)
                sum[r * KEY_VECTORS + j] = fused(broadcast(queries[r * width + e]), key, sum[r * KEY_VECTORS + j]);
        }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < KEY_VECTORS; j++)
            store(scores + r * stride + j * LANES, sum[r * KEY_VECTORS + j] * broadcast(scale));
}

INLINE void add_values(const float *weights, int64_t stride, const activation *values, int64_t width, int64_t keys, float *sums,
                       const int rows, const int vectors) {
    vfloat sum[rows * vectors];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++) sum[r * vectors + j] = load(sums + r * width + j * LANES);
    for (int64_t s = 0; s < keys; s++)
        for (int j = 0; j < vectors; j++) {
            vfloat value = get_vector(values + s * width + j * LANES);
            for (int r = 0; r < rows; r++)
                sum[r * vectors + j] = fused(broadcast(weights[r * stride + s]), value, sum[r * vectors + j]);
        }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++) store(sums + r * width + j * LANES, sum[r * vectors + j]);
}

static void block_scores(const float *queries, int64_t width, const activation *keys, float *scores, int64_t stride, float scale,
                         int rows) {
    int r = 0;
    for (; r + 4 <= rows; r += 4) score_rows(queries + r * width, width, keys, scores + r * stride, stride, scale, 4);
    if (rows - r == 3) score_rows(queries + r * width, width, keys, scores + r * stride, stride, scale, 3);
    if (rows - r == 2) score_rows(queries + r * width, width, keys, scores + r * stride, stride, scale, 2);
    if (rows - r == 1) score_rows(queries + r * width, width, keys, scores + r * stride, stride, scale, 1);
}

#define VALUE_ROWS(n) add_values(weights + r * stride, stride, values + e, width, keys, sums + r * width + e, n, vectors)
INLINE void value_columns(const float *weights, int64_t stride, const activation *values, int64_t width, int64_t keys,
                          float *sums, int rows, int64_t e, const int vectors) {
    int r = 0;
    for (; r + 3 <= rows; r += 3) VALUE_ROWS(3);
    if (rows - r == 2) VALUE_ROWS(2);
    if (rows - r == 1) VALUE_ROWS(1);
}

static void block_values(const float *weights, int64_t stride, const activation *values, int64_t width, int64_t keys,
                         float *sums, int rows) {
    int64_t e = 0;
    for (; e + 4 * LANES <= width; e += 4 * LANES) value_columns(weights, stride, values, width, keys, sums, rows, e, 4);
    for (; e + LANES <= width; e += LANES) value_columns(weights, stride, values, width, keys, sums, rows, e, 1);
    for (; e < width; e++) /* what a width leaves that is no multiple of LANES: the same chain, number by number */
        for (int r = 0; r < rows; r++) {
            float sum = sums[r * width + e];
            for (int64_t s = 0; s < keys; s++) sum = fmaf(weights[r * stride + s], get(values + s * width + e), sum);
            sums[r * width + e] = sum;
        }
}

INLINE vfloat cap(vfloat score, float softcap) { /* softcap * tanh(score / softcap) */
    vfloat twice = score * broadcast(2.0f / softcap);
    vfloat limit = broadcast(30.0f);
    twice = vmax(-limit, -vmax(-twice, -limit));
    vfloat e = vexp(twice);
    return broadcast(softcap) * (e - broadcast(1.0f)) / (e + broadcast(1.0f));
}

/* Scores of one row to weights; returns their sum. Positions outside [first, count) weigh 0. */
static float soften(float *scores, int64_t padded, int64_t start, int64_t first, int64_t count, float softcap) {
    if (softcap > 0.0f)
        for (int64_t s = 0; s < padded; s += LANES) store(scores + s, cap(load(scores + s), softcap));
    for (int64_t s = 0; s < first - start; s++) scores[s] = -INFINITY;
    for (int64_t s = count - start; s < padded; s++) scores[s] = -INFINITY;
    vfloat best = broadcast(-INFINITY), sum = {0};
    for (int64_t s = 0; s < padded; s += LANES) best = vmax(best, load(scores + s));
    vfloat top = broadcast(max_lanes(best));
    for (int64_t s = 0; s < padded; s += LANES) {
        vfloat weight = vexp(load(scores + s) - top);
        store(scores + s, weight);
        sum += weight;
    }
    return sum_lanes(sum);
}

/* `count` queries of one sequence against one key/value head. visible[i]: positions that query i may see. */
static void attend_block(const activation *q, activation *out, const activation *key_cache, const activation *value_cache,
                         const int32_t *blocks, const int32_t *visible, int count, int64_t kv_head, const Shape *shape,
                         float *scratch) {
    int64_t group = shape->heads / shape->kv_heads, kw = shape->key_width, vw = shape->value_width;
    int64_t end = 0, start = INT64_MAX;
    for (int i = 0; i < count; i++) {
        int64_t first = shape->window > 0 && visible[i] > shape->window ? visible[i] - shape->window : 0;
        end = visible[i] > end ? visible[i] : end;
        start = first < start ? first : start;
    }
    start -= start % KEYS_PER_BLOCK;
    int64_t padded = (end - start + KEYS_PER_BLOCK - 1) / KEYS_PER_BLOCK * KEYS_PER_BLOCK;
    int rows = (int)(count * group);
    float *queries = scratch, *sums = queries + rows * kw, *scores = sums + rows * vw;
    for (int r = 0; r < rows; r++) {
        const activation *from = q + ((r / group) * shape->heads + kv_head * group + r % group) * kw;
        for (int64_t e = 0; e < kw; e++) queries[r * kw + e] = get(from + e);
    }
    memset(sums, 0, rows * vw * sizeof(float));
    for (int64_t s = 0; s < padded; s += KEYS_PER_BLOCK) {
        int64_t at = (int64_t)blocks[(start + s) / KEYS_PER_BLOCK] * shape->kv_heads + kv_head;
        block_scores(queries, kw, key_cache + at * kw * KEYS_PER_BLOCK, scores + s, padded, shape->scale, rows);
    }
    float total[rows];
    for (int r = 0; r < rows; r++) {
        int64_t seen = visible[r / group];
        int64_t first = shape->window > 0 && seen > shape->window ? seen - shape->window : 0;
        total[r] = soften(scores + r * padded, padded, start, first, seen, shape->softcap);
    }
    for (int64_t s = 0; s < padded; s += KEYS_PER_BLOCK) {
        int64_t at = (int64_t)blocks[(start + s) / KEYS_PER_BLOCK] * shape->kv_heads + kv_head;
        int64_t keys = end - start - s < KEYS_PER_BLOCK ? end - start - s : KEYS_PER_BLOCK;
        block_values(scores + s, padded, value_cache + at * vw * KEYS_PER_BLOCK, vw, keys, sums, rows);
    }
    for (int r = 0; r < rows; r++) {
        activation *to = out + ((r / group) * shape->heads + kv_head * group + r % group) * vw;
        float share = 1.0f / total[r];
        for (int64_t e = 0; e < vw; e++) put(to + e, sums[r * vw + e] * share);
    }
}

/* q: [tokens, heads, key_width]; out: [tokens, heads, value_width]; tables: [rows, max_blocks] block of each 16 positions;
 * row and visible: [tokens], which row a query belongs to and how many positions it sees, its own included.
 * Returns 0, or 1 when there is no memory for the scores. */
int attend(const activation *q, activation *out, const activation *key_cache, const activation *value_cache,
           const int32_t *tables, const int32_t *row, const int32_t *visible, int64_t tokens, int64_t heads, int64_t kv_heads,
           int64_t key_width, int64_t value_width, int64_t max_blocks, int64_t window, float scale, float softcap, int threads) {
    Shape shape = {heads, kv_heads, key_width, value_width, max_blocks, window, scale, softcap};
    int64_t group = heads / kv_heads, most = group >= MAX_ROWS ? 1 : MAX_ROWS / group, items = 0, longest = 0;
    int32_t *first = malloc((tokens + 1) * sizeof(int32_t));
    if (!first) return 1;
    for (int64_t n = 0; n < tokens; n++) {
        longest = visible[n] > longest ? visible[n] : longest;
        if (!items || row[n] != row[first[items - 1]] || n - first[items - 1] >= most) first[items++] = (int32_t)n;
    }
    first[items] = (int32_t)tokens;
    int64_t rows = most * group, floats = rows * (key_width + value_width + longest + 2 * KEYS_PER_BLOCK);
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        float *scratch = malloc(floats * sizeof(float));
        if (!scratch) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < items * kv_heads; item++) {
            int64_t from = first[item / kv_heads], count = first[item / kv_heads + 1] - from;
            if (scratch)
                attend_block(q + from * heads * key_width, out + from * heads * value_width, key_cache, value_cache,
                             tables + row[from] * max_blocks, visible + from, (int)count, item % kv_heads, &shape, scratch);
        }
        free(scratch);
    }
    free(first);
    return failed;
}
