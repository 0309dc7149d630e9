/* The gradient of causal attention, in float32, a row and a key/value head at a time.
 *
 * Weights are computed again instead of kept, and a block of queries walks through its keys once: FlashAttention, arXiv
 * 2205.14135, section 3.1 and algorithm 4. One thread adds up what belongs to one row and one head, from the first query to the
 * last, so the number of threads changes no bit. What a row owes to a prompt that it shares is handed out apart, for the caller to
 * add up.
 */
#include "vectors.h"

#define MOST_ROWS 64 /* (query, head) pairs in a block: their scores against 1,000 positions are 256 KiB */

typedef struct {
    int64_t heads, kv_heads, key_width, value_width, window;
    float scale, softcap; /* window 0, softcap 0: none */
} Shape;

typedef struct { /* a row: tokens first to last, and its shared prompt, tokens start to end; its place in the handed out part */
    int64_t first, last, start, end, place;
} Span;

/* c [rows, columns] (+)= a b. a: element (r, k) at r * a_row + k * a_k; b: [depth, columns], columns a multiple of LANES. */
INLINE void strip(const float *a, int64_t a_row, int64_t a_k, const float *b, int64_t b_k, float *c, int64_t c_row, int64_t depth,
                  int adds, const int rows, const int vectors) {
    vfloat sum[rows * vectors];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++) sum[r * vectors + j] = adds ? load(c + r * c_row + j * LANES) : (vfloat){0};
    for (int64_t k = 0; k < depth; k++)
        for (int j = 0; j < vectors; j++) {
            vfloat right = load(b + k * b_k + j * LANES);
            for (int r = 0; r < rows; r++)
                sum[r * vectors + j] = fused(broadcast(a[r * a_row + k * a_k]), right, sum[r * vectors + j]);
        }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++) store(c + r * c_row + j * LANES, sum[r * vectors + j]);
}

typedef void Strip(const float *, int64_t, int64_t, const float *, int64_t, float *, int64_t, int64_t, int);
#define STRIP(n, v)                                                                                                           \
    static __attribute__((noinline)) void strip##n##x##v(const float *a, int64_t a_row, int64_t a_k, const float *b,          \
                                                         int64_t b_k, float *c, int64_t c_row, int64_t depth, int adds) {     \
        strip(a, a_row, a_k, b, b_k, c, c_row, depth, adds, n, v);                                                            \
    }
STRIP(1, 1) STRIP(2, 1) STRIP(3, 1) STRIP(4, 1) STRIP(1, 2) STRIP(2, 2) STRIP(3, 2) STRIP(4, 2)
#if LANES == 16
STRIP(5, 1) STRIP(6, 1) STRIP(7, 1) STRIP(8, 1) STRIP(5, 2) STRIP(6, 2) STRIP(7, 2) STRIP(8, 2)
#define STRIP_ROWS 8
static Strip *const ONE[] = {0, strip1x1, strip2x1, strip3x1, strip4x1, strip5x1, strip6x1, strip7x1, strip8x1};
static Strip *const TWO[] = {0, strip1x2, strip2x2, strip3x2, strip4x2, strip5x2, strip6x2, strip7x2, strip8x2};
#else
#define STRIP_ROWS 4
static Strip *const ONE[] = {0, strip1x1, strip2x1, strip3x1, strip4x1};
static Strip *const TWO[] = {0, strip1x2, strip2x2, strip3x2, strip4x2};
#endif

static void multiply(const float *a, int64_t a_row, int64_t a_k, const float *b, int64_t b_k, float *c, int64_t c_row,
                     int64_t rows, int64_t columns, int64_t depth, int adds) {
    for (int64_t j = 0; j < columns; j += 2 * LANES)
        for (int64_t r = 0; r < rows; r += STRIP_ROWS)
            (columns - j >= 2 * LANES ? TWO : ONE)[rows - r < STRIP_ROWS ? rows - r : STRIP_ROWS](
                a + r * a_row, a_row, a_k, b + j, b_k, c + r * c_row + j, c_row, depth, adds);
}

INLINE int64_t padded(int64_t count) { return (count + LANES - 1) / LANES * LANES; }

/* Numbers of scratch for a row of `seen` positions. */
static int64_t scratch_of(const Shape *s, int64_t seen) {
    int64_t kw = padded(s->key_width), vw = padded(s->value_width), columns = padded(seen);
    return (2 * kw + vw) * columns + (kw + vw) * columns + MOST_ROWS * (2 * kw + vw + 3 * columns) + MOST_ROWS;
}

typedef struct {
    float *keys, *keys_across, *values_across, *key_grads, *value_grads; /* [S, kw], [kw, S], [vw, S], [S, kw], [S, vw] */
    float *queries, *grads, *query_grads, *weights, *scores, *bends;     /* [R, kw], [R, vw], [R, kw], three of [R, S] */
} Scratch;

static Scratch laid_out(float *at, const Shape *s, int64_t seen) {
    int64_t kw = padded(s->key_width), vw = padded(s->value_width), n = padded(seen);
    Scratch o;
    o.keys = at, at += n * kw;
    o.keys_across = at, at += n * kw;
    o.values_across = at, at += n * vw;
    o.key_grads = at, at += n * kw;
    o.value_grads = at, at += n * vw;
    o.queries = at, at += MOST_ROWS * kw;
    o.grads = at, at += MOST_ROWS * vw;
    o.query_grads = at, at += MOST_ROWS * kw;
    o.weights = at, at += MOST_ROWS * n;
    o.scores = at, at += MOST_ROWS * n;
    o.bends = at;
    return o;
}

/* A head's numbers as float, with zeros up to a whole vector. */
INLINE void widen_head(const activation *from, float *to, int64_t width) {
    for (int64_t e = 0; e < width; e++) to[e] = get(from + e);
    for (int64_t e = width; e < padded(width); e++) to[e] = 0.0f;
}

/* Scores of one row to weights; `bends`: the slope of the softcap, if there is one. Positions outside [low, seen) weigh 0. */
static void soften(float *scores, float *bends, int64_t columns, int64_t low, int64_t seen, float softcap) {
    if (softcap > 0.0f)
        for (int64_t i = low; i < seen; i++) {
            float bent = tanhf(scores[i] / softcap);
            scores[i] = bent * softcap, bends[i] = 1.0f - bent * bent;
        }
    for (int64_t i = 0; i < low; i++) scores[i] = -INFINITY;
    for (int64_t i = seen; i < columns; i++) scores[i] = -INFINITY;
    vfloat best = broadcast(-INFINITY), sum = {0};
    for (int64_t i = 0; i < columns; i += LANES) best = vmax(best, load(scores + i));
    vfloat top = broadcast(max_lanes(best));
    for (int64_t i = 0; i < columns; i += LANES) {
        vfloat weight = vexp(load(scores + i) - top);
        store(scores + i, weight);
        sum += weight;
    }
    vfloat share = broadcast(1.0f / sum_lanes(sum));
    for (int64_t i = 0; i < columns; i += LANES) store(scores + i, load(scores + i) * share);
}

/* Gradients of the weights of one row to gradients of its scores, in place. */
static void harden(float *grads, const float *weights, const float *bends, int64_t columns, float scale, float softcap) {
    vfloat sum = {0};
    for (int64_t i = 0; i < columns; i += LANES) sum = fused(load(grads + i), load(weights + i), sum);
    vfloat mean = broadcast(sum_lanes(sum)), factor = broadcast(scale);
    for (int64_t i = 0; i < columns; i += LANES) {
        vfloat weight = load(weights + i), grad = weight * (load(grads + i) - mean) * factor;
        if (softcap > 0.0f) { /* where nothing is seen, nothing was bent */
            vint is_seen = weight > (vfloat){0};
            grad = (vfloat)((vint)(grad * load(bends + i)) & is_seen);
        }
        store(grads + i, grad);
    }
}

typedef struct {
    const activation *queries, *keys, *values, *grads;
    float *query_grads, *key_grads, *value_grads, *prompt_key_grads, *prompt_value_grads;
} Tensors;

static void one_head(const Tensors *t, const Shape *s, const Span *span, int64_t head, float *memory) {
    int64_t group = s->heads / s->kv_heads, before = span->end - span->start, own = span->last - span->first;
    int64_t seen = before + own, kw = padded(s->key_width), vw = padded(s->value_width), n = padded(seen);
    Scratch o = laid_out(memory, s, seen);
    memset(o.keys, 0, (3 * kw + 2 * vw) * n * sizeof(float)); /* the five that lie first */
    for (int64_t i = 0; i < seen; i++) {
        int64_t token = i < before ? span->start + i : span->first + i - before;
        const activation *key = t->keys + (token * s->kv_heads + head) * s->key_width;
        const activation *value = t->values + (token * s->kv_heads + head) * s->value_width;
        for (int64_t e = 0; e < s->key_width; e++) o.keys[i * kw + e] = o.keys_across[e * n + i] = get(key + e);
        for (int64_t e = 0; e < s->value_width; e++) o.values_across[e * n + i] = get(value + e);
    }
    int64_t at_once = group < MOST_ROWS ? MOST_ROWS / group : 1, rows;
    for (int64_t first = 0; first < own; first += at_once) {
        int64_t count = own - first < at_once ? own - first : at_once;
        int64_t columns = padded(before + first + count);
        for (int64_t part = 0; part < group; part += MOST_ROWS) { /* heads of one query that are too many go in turns */
            int64_t heads = group - part < MOST_ROWS ? group - part : MOST_ROWS;
            rows = count * heads;
            for (int64_t r = 0; r < rows; r++) {
                int64_t at = (span->first + first + r / heads) * s->heads + head * group + part + r % heads;
                widen_head(t->queries + at * s->key_width, o.queries + r * kw, s->key_width);
                widen_head(t->grads + at * s->value_width, o.grads + r * vw, s->value_width);
            }
            multiply(o.queries, kw, 1, o.keys_across, n, o.weights, n, rows, columns, s->key_width, 0);
            multiply(o.grads, vw, 1, o.values_across, n, o.scores, n, rows, columns, s->value_width, 0);
            for (int64_t r = 0; r < rows; r++) {
                int64_t visible = before + first + r / heads + 1;
                int64_t low = s->window > 0 && visible > s->window ? visible - s->window : 0;
                float *weights = o.weights + r * n;
                for (int64_t i = 0; i < columns; i += LANES) store(weights + i, load(weights + i) * broadcast(s->scale));
                soften(weights, o.bends + r * n, columns, low, visible, s->softcap);
                harden(o.scores + r * n, weights, o.bends + r * n, columns, s->scale, s->softcap);
            }
            multiply(o.scores, n, 1, o.keys, kw, o.query_grads, kw, rows, kw, columns, 0);
            multiply(o.scores, 1, n, o.queries, kw, o.key_grads, kw, columns, kw, rows, 1);
            multiply(o.weights, 1, n, o.grads, vw, o.value_grads, vw, columns, vw, rows, 1);
            for (int64_t r = 0; r < rows; r++) {
                int64_t at = (span->first + first + r / heads) * s->heads + head * group + part + r % heads;
                memcpy(t->query_grads + at * s->key_width, o.query_grads + r * kw, s->key_width * sizeof(float));
            }
        }
    }
    for (int64_t i = 0; i < seen; i++) {
        int is_prompt = i < before;
        int64_t at = ((is_prompt ? span->place + i : span->first + i - before) * s->kv_heads + head);
        float *key = (is_prompt ? t->prompt_key_grads : t->key_grads) + at * s->key_width;
        float *value = (is_prompt ? t->prompt_value_grads : t->value_grads) + at * s->value_width;
        memcpy(key, o.key_grads + i * kw, s->key_width * sizeof(float));
        memcpy(value, o.value_grads + i * vw, s->value_width * sizeof(float));
    }
}

/* queries: [N, H, E], keys: [N, K, E], values: [N, K, Ev], grads of the output: [N, H, Ev]; their gradients the same in float,
 * and those that rows owe to shared prompts: [places, K, E] and [places, K, Ev]. Returns 0, or 1 when there is no memory. */
int attention_gradient(const activation *queries, const activation *keys, const activation *values, const activation *grads,
                       float *query_grads, float *key_grads, float *value_grads, float *prompt_key_grads,
                       float *prompt_value_grads, const Span *spans, int64_t count, int64_t heads, int64_t kv_heads,
                       int64_t key_width, int64_t value_width, int64_t window, float scale, float softcap, int threads) {
    Shape shape = {heads, kv_heads, key_width, value_width, window, scale, softcap};
    Tensors tensors = {queries, keys, values, grads, query_grads, key_grads, value_grads, prompt_key_grads, prompt_value_grads};
    int64_t most = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t seen = spans[i].end - spans[i].start + spans[i].last - spans[i].first;
        most = seen > most ? seen : most;
    }
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        float *memory = malloc(scratch_of(&shape, most) * sizeof(float));
        if (!memory) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < count * kv_heads; item++)
            if (memory) one_head(&tensors, &shape, spans + item / kv_heads, item % kv_heads, memory);
        free(memory);
    }
    return failed;
}
