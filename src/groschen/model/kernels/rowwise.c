/* What works on one row at a time: norm, rotation, gate. A row never sees its neighbours. */
#include "vectors.h"

#define WORTH_A_THREAD 16384 /* numbers; below, waking a second core costs more than it saves */

/* x, y: [rows, width]; y = x / rms(x) * (offset + weight). Sums of squares and the division in float.
 * With bfloat16 activations: Llama rounds the quotient before it is multiplied (offset 0), Gemma does not (offset 1). */
void rms_norm(const activation *x, const activation *weight, activation *y, int64_t rows, int64_t width, float eps, float offset,
              int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * width > WORTH_A_THREAD)
    for (int64_t r = 0; r < rows; r++) {
        const activation *from = x + r * width;
        activation *to = y + r * width;
        vfloat squares = {0};
        for (int64_t i = 0; i + LANES <= width; i += LANES) squares = fused(get_vector(from + i), get_vector(from + i), squares);
        float sum = sum_lanes(squares);
        for (int64_t i = width - width % LANES; i < width; i++) sum = fmaf(get(from + i), get(from + i), sum);
        float inverse = 1.0f / sqrtf(sum / (float)width + eps);
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES) {
            vfloat quotient = get_vector(from + i) * broadcast(inverse);
            if (offset == 0.0f) quotient = rounded_vector(quotient);
            put_vector(to + i, quotient * (broadcast(offset) + get_vector(weight + i)));
        }
        for (; i < width; i++) {
            float quotient = get(from + i) * inverse;
            put(to + i, (offset == 0.0f ? rounded(quotient) : quotient) * (offset + get(weight + i)));
        }
    }
}

/* x: [tokens, heads, width] with x_stride numbers from one token to the next; y the same, dense; cosines, sines: [positions, width / 2].
 * The halves of a head are rotated against each other (the layout of Hugging Face checkpoints). RoFormer, arXiv 2104.09864. */
void rotate(const activation *x, int64_t x_stride, activation *y, const float *cosines, const float *sines,
            const int64_t *positions, int64_t tokens, int64_t heads, int64_t width, float direction) {
    int64_t half = width / 2;
    for (int64_t n = 0; n < tokens; n++) {
        const float *cosine = cosines + positions[n] * half, *sine = sines + positions[n] * half;
        for (int64_t h = 0; h < heads; h++) {
            const activation *from = x + n * x_stride + h * width;
            activation *to = y + (n * heads + h) * width;
            int64_t i = 0;
            for (; i + LANES <= half; i += LANES) {
                vfloat a = get_vector(from + i), b = get_vector(from + half + i);
                vfloat c = load(cosine + i), s = broadcast(direction) * load(sine + i);
                put_vector(to + i, a * c - b * s);
                put_vector(to + half + i, b * c + a * s);
            }
            for (; i < half; i++) {
                float a = get(from + i), b = get(from + half + i), c = cosine[i], s = direction * sine[i];
                put(to + i, a * c - b * s);
                put(to + half + i, b * c + a * s);
            }
        }
    }
}

INLINE vfloat sigmoid(vfloat x) { /* 1 / (1 + exp(-x)); beyond 80 the exponential is held below overflow */
    return broadcast(1.0f) / (broadcast(1.0f) + vexp(-vmax(x, broadcast(-80.0f))));
}

INLINE vfloat activate(vfloat x, int is_gelu) {
    if (!is_gelu) return x * sigmoid(x);
    vfloat inner = broadcast(1.5957691216f) * (x + broadcast(0.044715f) * x * x * x); /* 2 sqrt(2 / pi) */
    return x * sigmoid(inner);
}

/* x: [rows, 2 * width], gate first; y = activate(gate) * up, [rows, width]. SiLU, or GELU by its tanh form. */
void gate(const activation *x, activation *y, int64_t rows, int64_t width, int is_gelu, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * width > WORTH_A_THREAD)
    for (int64_t r = 0; r < rows; r++) {
        const activation *from = x + r * 2 * width, *up = from + width;
        activation *to = y + r * width;
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES)
            put_vector(to + i, rounded_vector(activate(get_vector(from + i), is_gelu)) * get_vector(up + i));
        for (; i < width; i++) {
            vfloat one = activate(broadcast(get(from + i)), is_gelu); /* every lane alike: the bits of the wide path */
            put(to + i, rounded(one[0]) * get(up + i));
        }
    }
}

int num_lanes(void) { return LANES; }
