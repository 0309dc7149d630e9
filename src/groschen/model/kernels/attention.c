/* Causal attention over a cache of blocks, for training, prefill and decode alike.
 *
 * What one query gets depends on its own row of blocks alone: scores are chains over the width of a head, the softmax sums
 * by position, the values are one chain over positions. Neighbouring queries and heads only share loads, never a sum, and a
 * masked position adds an exact zero. So chunks, batches, pre-emption and threads cannot change a bit.
 * Keys and values lie as [block, head, ...]; what a block of one head looks like is in attention_blocks.h.
 */
#include "attention_blocks.h"
#include "attention_tiles.h"

#define MAX_ROWS (LANES == 16 ? 32 : 16) /* (query, head) pairs that walk through the keys together */

typedef struct {
    int64_t heads, kv_heads, key_width, value_width, max_blocks, window;
    float scale, softcap; /* softcap 0: none */
    int is_tiled;
} Shape;

void store_keys_values(const activation *keys, const activation *values, activation *key_cache, activation *value_cache,
                       const int64_t *slots, int64_t tokens, int64_t kv_heads, int64_t key_width, int64_t value_width) {
    for (int64_t n = 0; n < tokens; n++) {
        int64_t block = slots[n] / KEYS_PER_BLOCK, place = slots[n] % KEYS_PER_BLOCK;
        for (int64_t h = 0; h < kv_heads; h++) {
            activation *own_keys = key_cache + (block * kv_heads + h) * key_width * KEYS_PER_BLOCK;
            activation *own_values = value_cache + (block * kv_heads + h) * value_width * KEYS_PER_BLOCK;
            const activation *key = keys + (n * kv_heads + h) * key_width, *value = values + (n * kv_heads + h) * value_width;
            for (int64_t e = 0; e < key_width; e++) own_keys[key_index(e, place)] = key[e];
            for (int64_t e = 0; e < value_width; e++) own_values[value_index(e, place, value_width)] = value[e];
        }
    }
}

INLINE vfloat cap(vfloat score, float softcap) { /* softcap * tanh(score / softcap) */
    vfloat twice = score * broadcast(2.0f / softcap);
    vfloat limit = broadcast(30.0f);
    twice = vmax(-limit, -vmax(-twice, -limit));
    vfloat e = vexp(twice);
    return broadcast(softcap) * (e - broadcast(1.0f)) / (e + broadcast(1.0f));
}

/* Scores of one row, times `scale`, to weights, as terms in the same place; returns their sum. Positions outside [first, count)
 * weigh 0. */
static float soften(float *scores, int64_t padded, int64_t start, int64_t first, int64_t count, float scale, float softcap) {
    if (scale != 1.0f || softcap > 0.0f)
        for (int64_t s = 0; s < padded; s += LANES) {
            vfloat score = load(scores + s) * broadcast(scale);
            store(scores + s, softcap > 0.0f ? cap(score, softcap) : score);
        }
    for (int64_t s = 0; s < first - start; s++) scores[s] = -INFINITY;
    for (int64_t s = count - start; s < padded; s++) scores[s] = -INFINITY;
    vfloat best = broadcast(-INFINITY), sum = {0};
    for (int64_t s = 0; s < padded; s += LANES) best = vmax(best, load(scores + s));
    vfloat top = broadcast(max_lanes(best));
    for (int64_t s = 0; s < padded; s += LANES) sum += as_terms(vexp(load(scores + s) - top), (term *)scores + s);
    return sum_lanes(sum);
}

/* Scores of all rows, with or without the scale: returns what is still to be multiplied in. */
static float all_rows_scores(const activation *const *query, term *queries, const Blocks *keys, int64_t count, float *scores,
                             int64_t stride, const Shape *shape, int rows) {
#if HAS_TILES
    if (shape->is_tiled) {
        for (int r = 0; r < rows; r++) memcpy(queries + r * keys->width, query[r], keys->width * sizeof(activation));
        for (int r = 0; r < rows; r += TILE_ROWS_MOST) {
            set_attention_tiles(rows - r < TILE_ROWS_MOST ? rows - r : TILE_ROWS_MOST);
            score_tile(queries + r * keys->width, keys, count, scores + r * stride, stride);
        }
        return shape->scale;
    }
#endif
    lay_out(query, queries, keys->width, rows);
    all_scores(queries, keys, count, scores, stride, shape->scale, rows);
    return 1.0f;
}

/* spare: a block of values. */
static void all_rows_values(const term *weights, int64_t stride, const Blocks *values, int64_t count, float *sums,
                            activation *spare, const Shape *shape, int rows) {
#if HAS_TILES
    if (shape->is_tiled) {
        for (int r = 0; r < rows; r += TILE_ROWS_MOST) {
            set_attention_tiles(rows - r < TILE_ROWS_MOST ? rows - r : TILE_ROWS_MOST);
            value_tile(weights + r * stride, stride, values, count, sums + r * values->width, spare);
        }
        return;
    }
#endif
    (void)spare, (void)shape;
    all_values(weights, stride, values, count, sums, rows);
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
    const int32_t *table = blocks + start / KEYS_PER_BLOCK;
    int64_t key_block = kw * KEYS_PER_BLOCK, value_block = vw * KEYS_PER_BLOCK;
    Blocks keys = {key_cache + kv_head * key_block, table, shape->kv_heads * key_block, kw};
    Blocks values = {value_cache + kv_head * value_block, table, shape->kv_heads * value_block, vw};
    float *sums = scratch, *scores = sums + rows * vw;
    term *queries = (term *)(scores + rows * padded), *weights = (term *)scores;
    const activation *query[rows];
    for (int r = 0; r < rows; r++) query[r] = q + ((r / group) * shape->heads + kv_head * group + r % group) * kw;
    float scale = all_rows_scores(query, queries, &keys, padded / KEYS_PER_BLOCK, scores, padded, shape, rows);
    float total[rows];
    for (int r = 0; r < rows; r++) {
        int64_t seen = visible[r / group];
        int64_t first = shape->window > 0 && seen > shape->window ? seen - shape->window : 0;
        total[r] = soften(scores + r * padded, padded, start, first, seen, scale, shape->softcap);
    }
    activation *spare = (activation *)(scores + rows * (padded + kw));
    all_rows_values(weights, padded * sizeof(float) / sizeof(term), &values, end - start, sums, spare, shape, rows);
    for (int r = 0; r < rows; r++) {
        activation *to = out + ((r / group) * shape->heads + kv_head * group + r % group) * vw;
        float share = 1.0f / total[r];
        int64_t e = 0;
        for (; e + LANES <= vw; e += LANES) put_vector(to + e, load(sums + r * vw + e) * broadcast(share));
        for (; e < vw; e++) put(to + e, sums[r * vw + e] * share);
    }
}

/* q: [tokens, heads, key_width]; out: [tokens, heads, value_width]; tables: [rows, max_blocks] block of each 16 positions;
 * row and visible: [tokens], which row a query belongs to and how many positions it sees, its own included.
 * Returns 0, or 1 when there is no memory for the scores. */
int attend(const activation *q, activation *out, const activation *key_cache, const activation *value_cache,
           const int32_t *tables, const int32_t *row, const int32_t *visible, int64_t tokens, int64_t heads, int64_t kv_heads,
           int64_t key_width, int64_t value_width, int64_t max_blocks, int64_t window, float scale, float softcap, int threads) {
    int is_tiled = 0;
#if HAS_TILES
    is_tiled = fits_tiles(key_width, value_width);
#endif
    Shape shape = {heads, kv_heads, key_width, value_width, max_blocks, window, scale, softcap, is_tiled};
    int64_t group = heads / kv_heads, most = group >= MAX_ROWS ? 1 : MAX_ROWS / group, items = 0, longest = 0;
    int32_t *first = malloc((tokens + 1) * sizeof(int32_t));
    if (!first) return 1;
    for (int64_t n = 0; n < tokens; n++) {
        longest = visible[n] > longest ? visible[n] : longest;
        if (!items || row[n] != row[first[items - 1]] || n - first[items - 1] >= most) first[items++] = (int32_t)n;
    }
    first[items] = (int32_t)tokens;
    int64_t rows = most * group, floats = rows * (key_width + value_width + longest + 2 * KEYS_PER_BLOCK);
    floats += value_width * KEYS_PER_BLOCK;
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
#if HAS_TILES
        if (is_tiled) _tile_release();
#endif
    }
    free(first);
    return failed;
}
