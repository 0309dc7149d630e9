/* Rounds a weight to codes of 8 or 4 bits. Layout and levels: quantized.h.
 *
 * Leaves out reading them (quantized.c). The search for a scale follows ggml's make_qx_quants, with plain squares.
 */
#include "quantized.h"

/* The whole-number code of each of 64 weights and the scale: the largest magnitude over 127, rounded up to bfloat16. */
static uint16_t eight_bits(const float *weight, int *codes) {
    float most = 0.0f;
    for (int i = 0; i < 64; i++) most = fabsf(weight[i]) > most ? fabsf(weight[i]) : most;
    float exact = most / 127.0f;
    uint32_t word;
    memcpy(&word, &exact, 4);
    uint16_t scale = (uint16_t)((word + 0xffffu) >> 16);
    float inverse = widen(scale) > 1e-30f ? 1.0f / widen(scale) : 0.0f;
    for (int i = 0; i < 64; i++) codes[i] = (int)rintf(weight[i] * inverse);
    return inverse > 0.0f ? scale : 0;
}

/* Level nearest to each of 32 scaled weights; returns (sum of weight * level)^2 / (sum of level^2), which is largest where the
 * squared error with the best scale is least, and that scale. */
static float try_scale(const float *weight, float inverse, float *best_scale) {
    vfloat both = {0}, square = {0};
    for (int i = 0; i < 32; i += LANES) {
        vfloat value = load(weight + i), scaled = value * broadcast(inverse), level = broadcast((float)LEVELS[0]);
        for (int c = 1; c < 16; c++) {
            vint above = scaled > broadcast(0.5f * (float)(LEVELS[c - 1] + LEVELS[c]));
            level += (vfloat)((vint)broadcast((float)(LEVELS[c] - LEVELS[c - 1])) & above);
        }
        both = fused(value, level, both);
        square = fused(level, level, square);
    }
    float dot = sum_lanes(both), squares = sum_lanes(square);
    *best_scale = dot / squares;
    return dot * dot / squares;
}

/* The place in LEVELS of each of 32 weights and their scale: the best of 12 tried, then what it leads to. 36 would be 0.6 %
 * nearer in the mean square and take twice as long. */
static uint16_t four_bits(const float *weight, int *codes) {
    float most = 0.0f, best = -1.0f, scale = 0.0f, found, share[32];
    for (int i = 0; i < 32; i++) most = fabsf(weight[i]) > most ? fabsf(weight[i]) : most;
    if (most > 1e-30f) {
        for (int i = 0; i < 32; i++) share[i] = weight[i] / most; /* so that no square is too large or too small */
        for (int step = 0; step < 12; step++) {
            float top = 90.0f + 10.0f * (float)(step / 2); /* the level that the largest weight would get */
            float gain = try_scale(share, step % 2 ? -top : top, &found);
            if (gain > best) {
                best = gain;
                scale = found;
            }
        }
        if (try_scale(share, 1.0f / scale, &found) > best) scale = found;
    }
    uint16_t stored = narrow(scale * most);
    float inverse = fabsf(widen(stored)) > 1e-33f ? 1.0f / widen(stored) : 0.0f;
    for (int i = 0; i < 32; i++) {
        codes[i] = 0;
        for (int c = 1; c < 16; c++) codes[i] += weight[i] * inverse > 0.5f * (float)(LEVELS[c - 1] + LEVELS[c]);
    }
    return inverse != 0.0f ? stored : 0;
}

static void place(uint8_t *block, int64_t output, int64_t input, int code, int bits) {
    int64_t half = output / LANES, pair = input / 2, word = 2 * (output % LANES) + input % 2;
    if (bits == 8) block[2 * PANEL + (2 * pair + half) * 2 * LANES + word] = (uint8_t)(int8_t)code;
    else block[2 * PANEL + pair / 2 * 4 * LANES + 2 * word + half] |= (uint8_t)(code << 4 * (pair % 2));
}

/* Bytes of a packed weight. */
int64_t quantised_bytes(int64_t outputs, int64_t inputs, int bits) {
    int64_t block = BLOCK_OF(bits);
    return (outputs + PANEL - 1) / PANEL * ((inputs + block - 1) / block) * BYTES_OF_BLOCK(bits);
}

/* weight: [outputs, inputs], bfloat16 or float; packed: quantised_bytes(...) bytes of zeros. */
void quantise_weight(const void *weight, void *packed, int64_t outputs, int64_t inputs, int is_bf16, int bits, int threads) {
    int64_t block = BLOCK_OF(bits), blocks = (inputs + block - 1) / block, panels = (outputs + PANEL - 1) / PANEL;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < panels; p++)
        for (int64_t b = 0; b < blocks; b++) {
            uint8_t *here = (uint8_t *)packed + (p * blocks + b) * BYTES_OF_BLOCK(bits);
            for (int64_t j = 0; j < PANEL && p * PANEL + j < outputs; j++) {
                float values[64] = {0};
                int codes[64];
                for (int64_t i = 0; i < block && b * block + i < inputs; i++) {
                    int64_t at = (p * PANEL + j) * inputs + b * block + i;
                    values[i] = is_bf16 ? widen(((const uint16_t *)weight)[at]) : ((const float *)weight)[at];
                }
                uint16_t scale = bits == 8 ? eight_bits(values, codes) : four_bits(values, codes);
                ((uint16_t *)here)[2 * (j % LANES) + j / LANES] = scale;
                for (int64_t i = 0; i < block; i++) place(here, j, i, codes[i], bits);
            }
        }
}
