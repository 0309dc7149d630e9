/* From a row of logits to a token and its log probability, without sorting and without a random number per word.
 *
 * Sampling inverts the distribution function: one uniform number decides, blocks of 1,024 words are walked by their mass, then
 * the words of one block. That is exact for the whole vocabulary at the price of the sum that the log probability needs anyway.
 * A block is weighed against its own greatest logit while it lies in the first-level cache, so a row is read from memory once.
 */
#include "vectors.h"

#define BLOCK 1024
#define CHAINS 2 /* sums side by side: half as many additions in a row, so less rounding; 4 run out of registers */

typedef struct { float top; double mass, moment; } Block; /* mass: sum of weights; moment: of weight * log(weight) */
typedef struct { float top; double total, entropy; int is_broken; } Partition;

/* Block b of the row, with -inf after the row's end: a last block of any length is then like the others. */
INLINE const float *words_of(const float *row, int64_t words, int64_t b, float *padded) {
    int64_t from = b * BLOCK;
    if (from + BLOCK <= words) return row + from;
    for (int64_t i = 0; i < BLOCK; i++) padded[i] = from + i < words ? row[from + i] : -INFINITY;
    return padded;
}

static float greatest(const float *block, int *has_nan) {
    vfloat best[CHAINS];
    vint not_numbers = {0};
    for (int c = 0; c < CHAINS; c++) best[c] = broadcast(-INFINITY);
    for (int64_t i = 0; i < BLOCK; i += CHAINS * LANES)
        for (int c = 0; c < CHAINS; c++) {
            vfloat logit = load(block + i + c * LANES);
            not_numbers |= logit != logit;
            best[c] = vmax(logit, best[c]);
        }
    for (int i = 0; i < LANES; i++) *has_nan |= not_numbers[i] != 0;
    return max_lanes(vmax(best[0], best[1]));
}

/* Below -100 nothing is left of a float; the floor keeps 0 * -inf out of the moment. */
INLINE vfloat log_weight(const float *from, float top, float inverse) {
    return vmax((load(from) - broadcast(top)) * broadcast(inverse), broadcast(-100.0f));
}

static Block weigh(const float *block, float top, float inverse) {
    vfloat mass[CHAINS], moment[CHAINS];
    for (int c = 0; c < CHAINS; c++) mass[c] = moment[c] = broadcast(0.0f);
    for (int64_t i = 0; i < BLOCK; i += CHAINS * LANES)
        for (int c = 0; c < CHAINS; c++) {
            vfloat below = log_weight(block + i + c * LANES, top, inverse), weight = vexp(below);
            mass[c] += weight;
            moment[c] += weight * below;
        }
    Block result = {top, 0.0, 0.0};
    for (int c = 0; c < CHAINS; c++) {
        result.mass += sum_lanes(mass[c]);
        result.moment += sum_lanes(moment[c]);
    }
    return result;
}

/* Fills blocks, [ceil(words / BLOCK)], with masses relative to the greatest logit of the row. */
static Partition partition(const float *row, int64_t words, float inverse, Block *blocks) {
    float padded[BLOCK];
    Partition result = {-INFINITY, 0.0, 0.0, 0};
    int64_t count = (words + BLOCK - 1) / BLOCK;
    for (int64_t b = 0; b < count; b++) {
        const float *block = words_of(row, words, b, padded);
        float top = greatest(block, &result.is_broken);
        blocks[b] = top > -INFINITY ? weigh(block, top, inverse) : (Block){top, 0.0, 0.0};
        if (top > result.top) result.top = top;
    }
    result.is_broken |= !isfinite(result.top);
    if (result.is_broken) return result;
    double moment = 0.0;
    for (int64_t b = 0; b < count; b++) {
        if (blocks[b].mass <= 0.0) continue;
        double below = ((double)blocks[b].top - result.top) * inverse, scale = exp(below);
        if (scale > 0.0) moment += scale * (blocks[b].moment + blocks[b].mass * below);
        blocks[b].mass *= scale;
        result.total += blocks[b].mass;
    }
    result.entropy = log(result.total) - moment / result.total;
    return result;
}

static int64_t find(const float *row, int64_t words, float inverse, double total, const Block *blocks, double uniform) {
    double left = uniform * total, share = 1.0; /* 1: rounding led past the end, the last word that has weight is meant */
    int64_t chosen = 0;
    for (int64_t b = 0; b * BLOCK < words; b++) {
        if (blocks[b].mass <= 0.0) continue;
        chosen = b;
        if (left < blocks[b].mass) {
            share = left / blocks[b].mass;
            break;
        }
        left -= blocks[b].mass;
    }
    float padded[BLOCK], weight[BLOCK];
    const float *block = words_of(row, words, chosen, padded);
    double sum = 0.0;
    for (int64_t i = 0; i < BLOCK; i += LANES)
        store(weight + i, vexp(log_weight(block + i, blocks[chosen].top, inverse)));
    for (int64_t i = 0; i < BLOCK; i++) sum += weight[i];
    left = share * sum; /* of this sum, not of the block's mass: their rounding differs and would fall to the last word */
    int64_t word = 0;
    for (int64_t i = 0; i < BLOCK; i++) {
        if (weight[i] <= 0.0f) continue;
        word = i;
        if (left < weight[i]) break;
        left -= weight[i];
    }
    return chosen * BLOCK + word;
}

static int64_t first_of(const float *row, const Block *blocks, float top) { /* of equal logits the lowest token wins */
    int64_t i = 0;
    while (blocks[i / BLOCK].top != top) i += BLOCK;
    while (row[i] != top) i++;
    return i;
}

/* logits: [rows, words] float. inverses: [rows] 1 / temperature; 0 asks for the greatest logit, with its log probability at
 * temperature 1. uniforms: [rows] in [0, 1). If is_given, tokens holds the tokens to score and is only read, else they are drawn
 * into it, -1 where the row holds a NaN or has no finite greatest logit. logprobs, entropies: [rows], nat, NaN in such rows.
 * A given token outside the row scores NaN. entropies may be NULL. */
void categorical(const float *logits, int64_t stride, int64_t rows, int64_t words, const float *inverses, const double *uniforms,
                 int64_t *tokens, float *logprobs, float *entropies, int is_given, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t r = 0; r < rows; r++) {
        const float *row = logits + r * stride;
        float inverse = inverses[r] > 0.0f ? inverses[r] : 1.0f;
        Block blocks[(words + BLOCK - 1) / BLOCK];
        Partition p = partition(row, words, inverse, blocks);
        int64_t token = -1;
        if (is_given) token = tokens[r];
        else if (!p.is_broken)
            token = inverses[r] > 0.0f ? find(row, words, inverse, p.total, blocks, uniforms[r]) : first_of(row, blocks, p.top);
        int has_answer = !p.is_broken && token >= 0 && token < words;
        if (!is_given) tokens[r] = token;
        logprobs[r] = has_answer ? (float)(((double)row[token] - p.top) * inverse - log(p.total)) : NAN;
        if (entropies) entropies[r] = p.is_broken ? NAN : (float)p.entropy;
    }
}
