/* Gradients of what works on one row at a time. Each is one pass over memory where torch takes five to nine.
 *
 * A row's gradient sees that row alone; the gradient of a norm's weight adds rows up from the first to the last, whatever the
 * number of threads. Leaves out products (product.c, tiles.c and torch) and attention (attention_gradient.c).
 */
#include "vectors.h"

#define WORTH_A_THREAD 16384 /* as in rowwise.c */
#define STRIP 64             /* columns that a thread adds up over all rows: four lines of the cache a row */

INLINE vfloat logistic(vfloat x) { return broadcast(1.0f) / (broadcast(1.0f) + vexp(-vmax(x, broadcast(-80.0f)))); }

/* activate(gate) * up differentiated: both activations are gate * logistic(inner(gate)), where inner is gate for SiLU and
 * 2 sqrt(2 / pi) (gate + 0.044715 gate^3) for GELU's tanh form. */
INLINE void gate_slopes(vfloat gate, vfloat up, vfloat grad, int is_gelu, vfloat *grad_gate, vfloat *grad_up) {
    vfloat inner = gate, slope = broadcast(1.0f);
    if (is_gelu) {
        inner = broadcast(1.5957691216f) * (gate + broadcast(0.044715f) * gate * gate * gate);
        slope = broadcast(1.5957691216f) * (broadcast(1.0f) + broadcast(0.134145f) * gate * gate);
    }
    vfloat share = logistic(inner);
    *grad_up = grad * gate * share;
    *grad_gate = grad * up * share * (broadcast(1.0f) + gate * (broadcast(1.0f) - share) * slope);
}

/* x: [rows, 2 * width], gate first; grad: [rows, width]; grad_x like x. */
void gate_gradient(const activation *x, const activation *grad, activation *grad_x, int64_t rows, int64_t width, int is_gelu,
                   int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * width > WORTH_A_THREAD)
    for (int64_t r = 0; r < rows; r++) {
        const activation *gate = x + r * 2 * width, *up = gate + width, *from = grad + r * width;
        activation *to_gate = grad_x + r * 2 * width, *to_up = to_gate + width;
        vfloat a, b;
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES) {
            gate_slopes(get_vector(gate + i), get_vector(up + i), get_vector(from + i), is_gelu, &a, &b);
            put_vector(to_gate + i, a);
            put_vector(to_up + i, b);
        }
        for (; i < width; i++) {
            gate_slopes(broadcast(get(gate + i)), broadcast(get(up + i)), broadcast(get(from + i)), is_gelu, &a, &b);
            put(to_gate + i, a[0]);
            put(to_up + i, b[0]);
        }
    }
}

/* x, grad, grad_x: [rows, width]; weight: [width]; inverses: [rows], scratch; grad_weight: [width] float.
 * With n = x / rms(x) and s = grad * (offset + weight): grad_x = (s - n * mean(s * n)) / rms(x), grad_weight = sum of grad * n. */
void rms_norm_gradient(const activation *x, const activation *weight, const activation *grad, activation *grad_x, float *inverses,
                       float *grad_weight, int64_t rows, int64_t width, float eps, float offset, int threads) {
#pragma omp parallel num_threads(threads) if (rows * width > WORTH_A_THREAD)
    {
#pragma omp for schedule(static)
        for (int64_t r = 0; r < rows; r++) {
            const activation *from = x + r * width, *above = grad + r * width;
            activation *to = grad_x + r * width;
            vfloat squares = {0}, products = {0};
            int64_t whole = width - width % LANES;
            for (int64_t i = 0; i < whole; i += LANES) {
                vfloat value = get_vector(from + i), scaled = get_vector(above + i) * (broadcast(offset) + get_vector(weight + i));
                squares = fused(value, value, squares);
                products = fused(scaled, value, products);
            }
            float square = sum_lanes(squares), product = sum_lanes(products);
            for (int64_t i = whole; i < width; i++) {
                square = fmaf(get(from + i), get(from + i), square);
                product = fmaf(get(above + i) * (offset + get(weight + i)), get(from + i), product);
            }
            float inverse = 1.0f / sqrtf(square / (float)width + eps);
            float pull = product / (float)width * inverse * inverse; /* mean(s * n) / rms(x), of x instead of n */
            inverses[r] = inverse;
            for (int64_t i = 0; i < whole; i += LANES) {
                vfloat scaled = get_vector(above + i) * (broadcast(offset) + get_vector(weight + i));
                put_vector(to + i, broadcast(inverse) * (scaled - get_vector(from + i) * broadcast(pull)));
            }
            for (int64_t i = whole; i < width; i++)
                put(to + i, inverse * (get(above + i) * (offset + get(weight + i)) - get(from + i) * pull));
        }
#pragma omp for schedule(static)
        for (int64_t first = 0; first < width; first += STRIP) {
            int64_t count = width - first < STRIP ? width - first : STRIP;
            float sums[STRIP] = {0};
            for (int64_t r = 0; r < rows; r++)
                for (int64_t i = 0; i < count; i++)
                    sums[i] = fmaf(get(grad + r * width + first + i), get(x + r * width + first + i) * inverses[r], sums[i]);
            memcpy(grad_weight + first, sums, count * sizeof *sums);
        }
    }
}

/* logits: [rows, words], become grads[r] * inverses[r] * ((1 if it is the token else 0) - its probability), where a word's
 * probability is exp((logit - logit of the token) * inverse + logprob of the token): no sum is taken again. A token outside of the
 * row, whose logprob is NaN too, makes its whole row NaN. */
void score_gradient(float *logits, int64_t stride, int64_t rows, int64_t words, const float *inverses, const int64_t *tokens,
                    const float *logprobs, const float *grads, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        float *at = logits + r * stride, inverse = inverses[r], weight = grads[r] * inverse;
        if (tokens[r] < 0 || tokens[r] >= words) {
            for (int64_t i = 0; i < words; i++) at[i] = NAN;
            continue;
        }
        vfloat start = broadcast(at[tokens[r]]), scale = broadcast(inverse), known = broadcast(logprobs[r]);
        int64_t i = 0;
        for (; i + LANES <= words; i += LANES)
            store(at + i, broadcast(-weight) * vexp((load(at + i) - start) * scale + known));
        for (; i < words; i++) at[i] = -weight * vexp((broadcast(at[i]) - start) * scale + known)[0];
        at[tokens[r]] += weight;
    }
}

/* The sum of the squares of each row, in double, from first to last: sums: [rows]. */
void squares(const float *x, double *sums, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * width > WORTH_A_THREAD)
    for (int64_t r = 0; r < rows; r++) {
        const float *from = x + r * width;
        vfloat partial = {0};
        double sum = 0.0;
        int64_t i = 0;
        while (i + LANES <= width) {
            int64_t stop = width - width % LANES < i + 1024 ? width - width % LANES : i + 1024;
            for (partial = (vfloat){0}; i < stop; i += LANES) partial = fused(load(from + i), load(from + i), partial);
            sum += sum_lanes(partial);
        }
        for (; i < width; i++) sum += (double)from[i] * from[i];
        sums[r] = sum;
    }
}
