/* All layers of a decoder in one call: the kernels of the other files, in the order of model/transformer.py.
 *
 * For one row, calling them one by one from Python costs 20 ms of 55 on a 0.5B model: a gigabyte of weights has just pushed the
 * interpreter out of every cache. No arithmetic of its own but the two residual additions. A test holds that its bits are those of
 * the same layers called from Python, which is how gradients are computed.
 */
#include "vectors.h"

void product(const activation *, const void *, const activation *, void *, int64_t, int64_t, int64_t, int, int, int);
void tile_product(const uint16_t *, const void *, const uint16_t *, void *, int64_t, int64_t, int64_t, int, int);
void quantised_product(const float *, const void *, const float *, float *, int64_t, int64_t, int64_t, int, float *, int);
int64_t quantised_scratch(int64_t);
void rms_norm(const activation *, const activation *, activation *, int64_t, int64_t, float, float, int);
void rotate(const activation *, int64_t, activation *, const float *, const float *, const int64_t *, int64_t, int64_t, int64_t,
            float);
void gate(const activation *, activation *, int64_t, int64_t, int, int);
void store_keys_values(const activation *, const activation *, activation *, activation *, const int64_t *, int64_t, int64_t,
                       int64_t, int64_t);
int attend(const activation *, activation *, const activation *, const activation *, const int32_t *, const int32_t *,
           const int32_t *, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, float, float, int);

enum { FLOATS = 0, HALVES = 1, TILES = 2 }; /* KIND of a packed weight; 8 or 4: bits of a code */

typedef struct { /* model/fused.py has the same fields; NULL: the layer has none */
    const activation *input_norm, *attention_norm, *mlp_norm, *last_norm; /* the last two: Gemma */
    const activation *query_norm, *key_norm;
    const void *qkv, *output, *gate_up, *down;
    const activation *qkv_bias, *output_bias, *gate_up_bias, *down_bias;
    const float *cosines, *sines;
    int64_t window;
    int32_t qkv_kind, output_kind, gate_up_kind, down_kind; /* a KIND */
} Layer;

typedef struct {
    int64_t width, mlp_width, heads, kv_heads, head_width;
    float eps, norm_offset, scale, softcap;
    int32_t is_gelu;
} Sizes;

typedef struct {
    const int64_t *positions, *slots;
    const int32_t *tables, *row, *visible;
    int64_t tokens, max_blocks;
} Tokens;

static void add(activation *x, const activation *y, int64_t count) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) put_vector(x + i, get_vector(x + i) + get_vector(y + i));
    for (; i < count; i++) put(x + i, get(x + i) + get(y + i));
}

static void multiply(const activation *x, const void *packed, int kind, const activation *bias, activation *y, int64_t rows,
                     int64_t outputs, int64_t inputs, float *scratch, int threads) {
#if HAS_TILES
    if (kind == TILES) {
        tile_product(x, packed, bias, y, rows, outputs, inputs, 0, threads);
        return;
    }
#endif
#ifndef ACTIVATION_BF16 /* quantised weights take float activations */
    if (kind > TILES) {
        quantised_product(x, packed, bias, y, rows, outputs, inputs, kind, scratch, threads);
        return;
    }
#endif
    (void)scratch;
    product(x, packed, bias, y, rows, outputs, inputs, kind, 0, threads);
}

/* Keys and values are split from the projection; heads are normed before they are rotated. Returns attend's answer. */
static int attention(const Layer *l, const Sizes *s, const Tokens *t, activation *qkv, activation *keys, activation *values,
                     activation *queries, activation *mixed, activation *key_cache, activation *value_cache, int threads) {
    int64_t n = t->tokens, q_width = s->heads * s->head_width, kv_width = s->kv_heads * s->head_width;
    int64_t stride = q_width + 2 * kv_width;
    for (int64_t i = 0; i < n; i++) {
        memcpy(values + i * kv_width, qkv + i * stride + q_width + kv_width, kv_width * sizeof(activation));
        if (l->query_norm) {
            rms_norm(qkv + i * stride, l->query_norm, qkv + i * stride, s->heads, s->head_width, s->eps, s->norm_offset, 1);
            rms_norm(qkv + i * stride + q_width, l->key_norm, qkv + i * stride + q_width, s->kv_heads, s->head_width, s->eps,
                     s->norm_offset, 1);
        }
    }
    rotate(qkv, stride, queries, l->cosines, l->sines, t->positions, n, s->heads, s->head_width, 1.0f);
    rotate(qkv + q_width, stride, keys, l->cosines, l->sines, t->positions, n, s->kv_heads, s->head_width, 1.0f);
    store_keys_values(keys, values, key_cache, value_cache, t->slots, n, s->kv_heads, s->head_width, s->head_width);
    return attend(queries, mixed, key_cache, value_cache, t->tables, t->row, t->visible, n, s->heads, s->kv_heads, s->head_width,
                  s->head_width, t->max_blocks, l->window, s->scale, s->softcap, threads);
}

/* Bytes of scratch that `decoder` needs for each token. */
int64_t decoder_scratch(const Sizes *s) {
    int64_t q = s->heads * s->head_width, kv = s->kv_heads * s->head_width;
    int64_t widest = s->mlp_width > q ? s->mlp_width : q;
    int64_t numbers = 2 * s->width + (q + 2 * kv) + 2 * kv + 2 * q + 3 * s->mlp_width;
#ifndef ACTIVATION_BF16
    numbers += quantised_scratch(widest > s->width ? widest : s->width);
#endif
    (void)widest;
    return numbers * (int64_t)sizeof(activation);
}

/* x: [tokens, width], from the embedding to the last layer's stream, in place. keys, values: the caches of all layers, `stride`
 * numbers from one layer to the next. Returns 0, or 1 when there is no memory for attention scores. */
int decoder(activation *x, const Layer *layers, int64_t count, const Sizes *s, const Tokens *t, activation *keys,
            activation *values, int64_t stride, activation *scratch, int threads) {
    int64_t n = t->tokens, q = s->heads * s->head_width, kv = s->kv_heads * s->head_width;
    activation *normed = scratch, *out = normed + n * s->width, *qkv = out + n * s->width;
    activation *new_keys = qkv + n * (q + 2 * kv), *new_values = new_keys + n * kv;
    activation *queries = new_values + n * kv, *mixed = queries + n * q;
    activation *gate_up = mixed + n * q, *gated = gate_up + 2 * n * s->mlp_width;
    float *codes = (float *)(gated + n * s->mlp_width); /* float activations alone have room for it */
    for (int64_t i = 0; i < count; i++) {
        const Layer *l = layers + i;
        rms_norm(x, l->input_norm, normed, n, s->width, s->eps, s->norm_offset, threads);
        multiply(normed, l->qkv, l->qkv_kind, l->qkv_bias, qkv, n, q + 2 * kv, s->width, codes, threads);
        if (attention(l, s, t, qkv, new_keys, new_values, queries, mixed, keys + i * stride, values + i * stride, threads))
            return 1;
        multiply(mixed, l->output, l->output_kind, l->output_bias, out, n, s->width, q, codes, threads);
        if (l->mlp_norm) rms_norm(out, l->attention_norm, out, n, s->width, s->eps, s->norm_offset, threads);
        add(x, out, n * s->width);
        rms_norm(x, l->mlp_norm ? l->mlp_norm : l->attention_norm, normed, n, s->width, s->eps, s->norm_offset, threads);
        multiply(normed, l->gate_up, l->gate_up_kind, l->gate_up_bias, gate_up, n, 2 * s->mlp_width, s->width, codes, threads);
        gate(gate_up, gated, n, s->mlp_width, s->is_gelu, threads);
        multiply(gated, l->down, l->down_kind, l->down_bias, out, n, s->width, s->mlp_width, codes, threads);
        if (l->last_norm) rms_norm(out, l->last_norm, out, n, s->width, s->eps, s->norm_offset, threads);
        add(x, out, n * s->width);
    }
    return 0;
}
