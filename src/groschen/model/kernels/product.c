/* y = x W^T + b, where every output is one chain of additions over k = 0, 1, 2, ...
 *
 * So a row has the same bits whatever the other rows, their number, the threads and the blocking are: exactness is the
 * definition here, not a property found by measuring. A link of the chain is a fused multiply-add of float32 activations and
 * weights widened in registers, or, with bfloat16 activations, the processor's own sum of two bfloat16 products (VDPBF16PS).
 * A packed weight is panels of PANEL outputs, k-major, in words of 32 bits. Blocking after Goto and van de Geijn, "Anatomy of
 * High-Performance Matrix Multiplication", ACM TOMS 34(3), 2008.
 */
#include "vectors.h"

#define DEPTH 1024 /* words of k in one block: a bfloat16 panel of it is 32 KiB on AVX2, a first-level cache */
#define GROUP (64 / PANEL) /* panels that share a block of rows while it is in the second-level cache */
#define ROWS_IN_CACHE 192 /* rows that a group of panels works on before it goes on to the next */

enum {
    FLOATS, /* a word is a float32 weight */
    HALVES, /* the bfloat16 weights of outputs j and j + LANES: a shift and a mask widen both */
    PAIRS,  /* the bfloat16 weights of one output at k and k + 1 */
};

#if defined(__AVX512BF16__)
#define HAS_PAIRS 1
#else
#define HAS_PAIRS 0
#endif

struct Operands;

/* Rows of x from `x` on against the panel at `panel`: `depth` words of k, chains continued from `sums` unless `is_first`. */
typedef void Tile(const struct Operands *o, const char *x, const char *panel, int64_t depth, float *sums, int64_t stride,
                  int is_first);

typedef struct Operands {
    const char *x;       /* words of the rows */
    int64_t row_bytes;   /* from a row to the next */
    const char *packed;  /* words of the weight */
    int64_t panel_bytes; /* from a panel to the next */
    int64_t step_bytes;  /* from one word of k of a panel to the next */
    int64_t words;       /* of k */
    Tile *const *tiles;  /* [r]: for r rows; [0]: for one row and two panels side by side */
} Operands;

INLINE int64_t step_bytes(int format) { return format == HALVES ? 4 * LANES : 4 * PANEL; }

INLINE vfloat link(vword x, vword weight, vfloat sum, const int format) {
#if HAS_PAIRS
    if (format == PAIRS) return (vfloat)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)weight);
#endif
    (void)format;
    return fused((vfloat)x, (vfloat)weight, sum);
}

INLINE vword word_at(const char *x) {
    uint32_t word;
    memcpy(&word, x, sizeof word);
    return word - (vword){0};
}

/* `rows` (a constant after inlining) rows against `panels` neighbouring panels. The sums stay in this function: handed to
 * another by their address, gcc 12 stores them at every step, and the product takes three times as long. */
INLINE void tile(const Operands *o, const char *x, const int64_t x_step, const char *panel, const int format, int64_t depth,
                 float *sums, int64_t stride, int is_first, const int rows, const int panels) {
    const int64_t row_bytes = o->row_bytes, panel_bytes = o->panel_bytes;
    vfloat low[rows * panels], high[rows * panels];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++) {
            low[r * panels + p] = is_first ? (vfloat){0} : load(sums + r * stride + p * PANEL);
            high[r * panels + p] = is_first ? (vfloat){0} : load(sums + r * stride + p * PANEL + LANES);
        }
    for (int64_t k = 0; k < depth; k++)
        for (int p = 0; p < panels; p++) {
            const vword *words = (const vword *)(panel + p * panel_bytes + k * step_bytes(format));
            vword weight_low = words[0], weight_high;
            if (format == HALVES) weight_high = weight_low & 0xffff0000u, weight_low <<= 16;
            else weight_high = words[1];
            for (int r = 0; r < rows; r++) {
                vword value = word_at(x + r * row_bytes + k * x_step);
                low[r * panels + p] = link(value, weight_low, low[r * panels + p], format);
                high[r * panels + p] = link(value, weight_high, high[r * panels + p], format);
            }
        }
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++) {
            store(sums + r * stride + p * PANEL, low[r * panels + p]);
            store(sums + r * stride + p * PANEL + LANES, high[r * panels + p]);
        }
}

/* A function for each number of rows, not inlined: gcc 12 runs out of registers where many of them are one function. */
#define TILE(name, n, format, x_step, rows, panels)                                                                           \
    static __attribute__((noinline)) void name##n(const Operands *o, const char *x, const char *panel, int64_t depth,         \
                                                  float *sums, int64_t stride, int is_first) {                               \
        tile(o, x, x_step, panel, format, depth, sums, stride, is_first, rows, panels);                                       \
    }
#define SIX(name, a, b, c, d, e, f, format, x_step)                                                                           \
    TILE(name, a, format, x_step, a, 1) TILE(name, b, format, x_step, b, 1) TILE(name, c, format, x_step, c, 1)               \
    TILE(name, d, format, x_step, d, 1) TILE(name, e, format, x_step, e, 1) TILE(name, f, format, x_step, f, 1)
#if TILE_ROWS > 6
#define TILES(name, format, x_step)                                                                                           \
    TILE(name, 0, format, x_step, 1, 2)                                                                                       \
    SIX(name, 1, 2, 3, 4, 5, 6, format, x_step) SIX(name, 7, 8, 9, 10, 11, 12, format, x_step)                                \
    static Tile *const name[] = {name##0, name##1, name##2, name##3, name##4,  name##5, name##6,                             \
                                 name##7, name##8, name##9, name##10, name##11, name##12};
#else
#define TILES(name, format, x_step)                                                                                           \
    TILE(name, 0, format, x_step, 1, 2)                                                                                       \
    SIX(name, 1, 2, 3, 4, 5, 6, format, x_step)                                                                               \
    static Tile *const name[] = {name##0, name##1, name##2, name##3, name##4, name##5, name##6};
#endif

INLINE void finish_as(const float *sums, int64_t stride, void *y, const int is_wide, int64_t y_stride, const activation *bias,
                      int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; r++) {
        activation *narrow_row = (activation *)y + r * y_stride;
        float *wide_row = (float *)y + r * y_stride;
        int64_t j = 0;
        for (; j + LANES <= width; j += LANES) {
            vfloat sum = load(sums + r * stride + j);
            if (bias) sum += get_vector(bias + j);
            if (is_wide) store(wide_row + j, sum);
            else put_vector(narrow_row + j, sum);
        }
        for (; j < width; j++) {
            float sum = sums[r * stride + j] + (bias ? get(bias + j) : 0.0f);
            if (is_wide) wide_row[j] = sum;
            else put(narrow_row + j, sum);
        }
    }
}

/* Sums of the outputs `first` to first + width to where they belong: y: [rows, outputs], float if `is_wide`. */
static void finish(const float *sums, int64_t stride, void *y, int is_wide, int64_t outputs, const activation *bias,
                   int64_t rows, int64_t first, int64_t width) {
    bias = bias ? bias + first : NULL;
    if (is_wide) finish_as(sums, stride, (float *)y + first, 1, outputs, bias, rows, width);
    else finish_as(sums, stride, (activation *)y + first, 0, outputs, bias, rows, width);
}

/* Few rows: memory is the roof, so weights are read once. Two panels side by side keep a lone row's chains from waiting. */
static void few_rows(const Operands *o, const activation *bias, void *y, int is_wide, int64_t rows, int64_t outputs,
                     int threads) {
    int64_t panels = (outputs + PANEL - 1) / PANEL;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < panels; p += 2) {
        float sums[TILE_ROWS * 2 * PANEL];
        const char *panel = o->packed + p * o->panel_bytes;
        int count = p + 1 < panels ? 2 : 1;
        if (rows == 1 && count == 2) o->tiles[0](o, o->x, panel, o->words, sums, 2 * PANEL, 1);
        else
            for (int c = 0; c < count; c++)
                o->tiles[rows](o, o->x, panel + c * o->panel_bytes, o->words, sums + c * PANEL, 2 * PANEL, 1);
        int64_t first = p * PANEL, width = outputs - first < count * PANEL ? outputs - first : count * PANEL;
        finish(sums, 2 * PANEL, y, is_wide, outputs, bias, rows, first, width);
    }
}

/* `rows` rows from x on against the panels `first` to `last`, block by block of k. Their sums: [rows, GROUP * PANEL]. */
static void rows_of_group(const Operands *o, const char *x, int64_t rows, int64_t first, int64_t last, float *sums) {
    int64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    int64_t even = (rows + tiles - 1) / tiles; /* 8 rows are 4 + 4: a tile of 2 would wait for its chains */
    for (int64_t k = 0; k < o->words; k += DEPTH)
        for (int64_t p = first; p < last; p++)
            for (int64_t r = 0; r < rows; r += even)
                o->tiles[rows - r < even ? rows - r : even](
                    o, x + r * o->row_bytes + 4 * k, o->packed + p * o->panel_bytes + k * o->step_bytes,
                    o->words - k < DEPTH ? o->words - k : DEPTH, sums + (r * GROUP + p - first) * PANEL, GROUP * PANEL, k == 0);
}

static void many_rows(const Operands *o, const activation *bias, char *y, int is_wide, int64_t rows, int64_t outputs,
                      int threads) {
    int64_t panels = (outputs + PANEL - 1) / PANEL, groups = (panels + GROUP - 1) / GROUP;
    int64_t y_bytes = outputs * (is_wide ? 4 : (int64_t)sizeof(activation));
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t g = 0; g < groups; g++) {
        float sums[ROWS_IN_CACHE * GROUP * PANEL] __attribute__((aligned(64)));
        int64_t end = (g + 1) * GROUP < panels ? (g + 1) * GROUP : panels;
        int64_t first = g * GROUP * PANEL, width = (end * PANEL < outputs ? end * PANEL : outputs) - first;
        for (int64_t top = 0; top < rows; top += ROWS_IN_CACHE) {
            int64_t here = rows - top < ROWS_IN_CACHE ? rows - top : ROWS_IN_CACHE;
            rows_of_group(o, o->x + top * o->row_bytes, here, g * GROUP, end, sums);
            finish(sums, GROUP * PANEL, y + top * y_bytes, is_wide, outputs, bias, here, first, width);
        }
    }
}

static void any_rows(const Operands *o, const activation *bias, void *y, int is_wide, int64_t rows, int64_t outputs,
                     int threads) {
    if (rows > TILE_ROWS) many_rows(o, bias, y, is_wide, rows, outputs, threads);
    else few_rows(o, bias, y, is_wide, rows, outputs, threads);
}

#ifdef ACTIVATION_BF16

int has_product(void) { return HAS_PAIRS; }

TILES(by_rows, PAIRS, 4)            /* x: [rows, inputs] */
TILES(by_columns, PAIRS, 4 * PANEL) /* x: panels, as `pack_columns` makes them */

/* weight: [outputs, inputs] bfloat16, an even number of inputs; packed: PANEL * inputs of them for each panel. */
void pack_weight(const uint16_t *weight, uint32_t *packed, int64_t outputs, int64_t inputs, int is_bf16, int threads) {
    int64_t panels = (outputs + PANEL - 1) / PANEL, words = inputs / 2;
    (void)is_bf16; /* always */
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < panels; p++)
        for (int64_t j = 0; j < PANEL; j++) {
            const char *from = (const char *)(weight + (p * PANEL + j) * inputs);
            uint32_t *to = packed + p * words * PANEL + j;
            int is_output = p * PANEL + j < outputs;
            for (int64_t k = 0; k < words; k++) {
                uint32_t word = 0;
                if (is_output) memcpy(&word, from + 4 * k, sizeof word);
                to[k * PANEL] = word;
            }
        }
}

/* x: [rows, inputs], inputs even; packed: from pack_weight; bias: [outputs] or NULL, all bfloat16; y: [rows, outputs], float if
 * `is_wide`, else bfloat16. The sums and the bias are added up in float and rounded once. */
void product(const uint16_t *x, const void *packed, const uint16_t *bias, void *y, int64_t rows, int64_t outputs,
             int64_t inputs, int is_bf16, int is_wide, int threads) {
    int64_t words = inputs / 2, step = step_bytes(PAIRS);
    Operands o = {(const char *)x, 2 * inputs, packed, words * step, step, words, by_rows};
    (void)is_bf16;
    any_rows(&o, bias, y, is_wide, rows, outputs, threads);
}

/* matrix: [tokens, width] bfloat16 to panels of PANEL columns, k being the tokens; a missing last token weighs 0. */
static void pack_columns(const uint16_t *matrix, uint32_t *packed, int64_t tokens, int64_t width, int threads) {
    int64_t panels = (width + PANEL - 1) / PANEL, words = (tokens + 1) / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < panels; p++) {
        int64_t columns = width - p * PANEL < PANEL ? width - p * PANEL : PANEL;
        for (int64_t k = 0; k < words; k++) {
            const uint16_t *one = matrix + 2 * k * width + p * PANEL, *two = one + width;
            uint32_t *to = packed + (p * words + k) * PANEL;
            if (2 * k + 1 < tokens) for (int64_t j = 0; j < columns; j++) to[j] = one[j] | (uint32_t)two[j] << 16;
            else for (int64_t j = 0; j < columns; j++) to[j] = one[j];
            for (int64_t j = columns; j < PANEL; j++) to[j] = 0;
        }
    }
}

/* Words of scratch that `weight_gradient` needs. */
int64_t weight_gradient_scratch(int64_t tokens, int64_t outputs, int64_t inputs) {
    return (tokens + 1) / 2 * PANEL * ((outputs + PANEL - 1) / PANEL + (inputs + PANEL - 1) / PANEL);
}

/* Sums of one strip of weights to y, or added to what is there. */
static void put_sums(const float *sums, float *y, int64_t y_stride, int64_t rows, int64_t width, int adds) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t j = 0; j < width; j++) {
            float sum = sums[r * PANEL + j];
            y[r * y_stride + j] = adds ? y[r * y_stride + j] + sum : sum;
        }
}

/* y = grad^T x in float, or y += where `adds`. grad: [tokens, outputs], x: [tokens, inputs] bfloat16; y: [outputs, inputs]. One
 * chain over the tokens for each weight. */
void weight_gradient(const uint16_t *grad, const uint16_t *x, float *y, int64_t tokens, int64_t outputs, int64_t inputs,
                     int adds, uint32_t *scratch, int threads) {
    int64_t words = (tokens + 1) / 2, strips = (outputs + PANEL - 1) / PANEL, panels = (inputs + PANEL - 1) / PANEL;
    uint32_t *rows = scratch, *columns = scratch + strips * words * PANEL;
    pack_columns(grad, rows, tokens, outputs, threads);
    pack_columns(x, columns, tokens, inputs, threads);
    int64_t step = step_bytes(PAIRS);
    Operands o = {(const char *)rows, 4, (const char *)columns, words * step, step, words, by_columns};
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t strip = 0; strip < strips; strip++) { /* PANEL outputs, which lie side by side in `rows` */
        float sums[PANEL * PANEL] __attribute__((aligned(64)));
        int64_t top = strip * PANEL, here = outputs - top < PANEL ? outputs - top : PANEL;
        int64_t tiles = (here + TILE_ROWS - 1) / TILE_ROWS, even = (here + tiles - 1) / tiles;
        for (int64_t p = 0; p < panels; p++) {
            for (int64_t k = 0; k < words; k += DEPTH)
                for (int64_t r = 0; r < here; r += even)
                    by_columns[here - r < even ? here - r : even](
                        &o, o.x + ((strip * words + k) * PANEL + r) * 4, o.packed + p * o.panel_bytes + k * step,
                        words - k < DEPTH ? words - k : DEPTH, sums + r * PANEL, PANEL, k == 0);
            put_sums(sums, y + top * inputs + p * PANEL, inputs, here,
                     inputs - p * PANEL < PANEL ? inputs - p * PANEL : PANEL, adds);
        }
    }
}

#else

int has_product(void) { return 1; }

TILES(by_floats, FLOATS, 4)
TILES(by_halves, HALVES, 4)

/* weight: [outputs, inputs] float or bfloat16; packed: PANEL * inputs of the same type for each panel. */
void pack_weight(const void *weight, void *packed, int64_t outputs, int64_t inputs, int is_bf16, int threads) {
    int64_t panels = (outputs + PANEL - 1) / PANEL;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < panels; p++) {
        for (int64_t k = 0; k < inputs; k++)
            for (int64_t j = 0; j < PANEL; j++) {
                int64_t n = p * PANEL + j, at = (p * inputs + k) * PANEL;
                if (is_bf16) {
                    int64_t place = at + 2 * (j % LANES) + j / LANES;
                    ((uint16_t *)packed)[place] = n < outputs ? ((const uint16_t *)weight)[n * inputs + k] : 0;
                } else {
                    ((float *)packed)[at + j] = n < outputs ? ((const float *)weight)[n * inputs + k] : 0.0f;
                }
            }
    }
}

/* x: [rows, inputs] float; packed: from pack_weight; bias: [outputs] float or NULL; y: [rows, outputs] float. */
void product(const float *x, const void *packed, const float *bias, void *y, int64_t rows, int64_t outputs, int64_t inputs,
             int is_bf16, int is_wide, int threads) {
    int64_t step = step_bytes(is_bf16 ? HALVES : FLOATS);
    Operands o = {(const char *)x, 4 * inputs, packed, inputs * step, step, inputs, is_bf16 ? by_halves : by_floats};
    (void)is_wide; /* float already */
    any_rows(&o, bias, y, 1, rows, outputs, threads);
}
#endif
