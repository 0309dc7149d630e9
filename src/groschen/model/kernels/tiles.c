/* y = x W^T + b and grad^T x on the matrix unit of an Intel core (AMX): bfloat16 factors, sums in float32.
 *
 * TDPBF16PS multiplies 16 rows by 16 outputs over 32 numbers of k; what it adds to an output depends on that row and that column
 * alone. k goes forward in steps of 32 from the first to the last, whatever the rows, their number, the threads and the blocking,
 * so a row has the same bits in any company: exactness is the definition here, as in product.c. Rows and widths are filled up with
 * zeros, never with what lies behind them. Denormal numbers count as zero.
 * A packed weight is panels of PANEL outputs; a panel is steps of k, a step two tiles [16 pairs of k, 16 outputs, 2].
 * Source: Intel Architecture Instruction Set Extensions Programming Reference, chapter on AMX.
 */
#include "tiles.h"

#if HAS_TILES
#include <sys/syscall.h>
#include <unistd.h>

#define STEP 32            /* numbers of k in one instruction */
#define TILE 16            /* rows of a tile, and outputs of one */
#define TILE_BYTES 1024
#define STEPS_IN_CACHE 8   /* of k in one block: a panel of it and two tiles of rows are 32 KiB, a first-level cache */
#define ROWS_IN_CACHE 128  /* that a group of panels works on before it goes on to the next */
#define PANELS_IN_GROUP 16 /* their sums are 256 KiB */
#define STEPS_OF_TOKENS 32 /* of k in one block of a gradient: its sums lie in memory, 4 bytes a weight */

/* Linux keeps the tiles from a process until it asks for them; threads and forks inherit the permission. 0: not granted. Asked
 * once: two threads that ask at the same time get the same answer. */
int has_tiles(void) {
    enum { ask_permission = 0x1023, tile_data = 18 };
    static int answer = -1;
    if (answer < 0) answer = syscall(SYS_arch_prctl, ask_permission, tile_data) == 0;
    return answer;
}

/* Tiles 0 to 3 add up: rows above and below, outputs left and right. 4 and 5 hold rows, 6 and 7 weights. */
static void set_tiles(int above, int below) {
    TileShape shape = {.palette = 1};
    const uint8_t rows[8] = {above, above, below, below, above, below, TILE, TILE};
    for (int i = 0; i < 8; i++)
        if (rows[i]) shape.rows[i] = rows[i], shape.row_bytes[i] = 64;
    load_shape(&shape);
}

/* Where the rows lie: `row` bytes from one to the next, `step` from 32 numbers of k to the next 32, `tile` from 16 rows on. */
typedef struct {
    const char *at;
    int64_t row, step, tile;
} Left;

/* One or two tiles of rows against a panel, `steps` steps of k. sums: [rows, PANEL] with `stride` bytes from row to row, added to
 * unless `is_first`. While it works, it asks for `lines` lines of memory a step from `ahead` on, which are needed next. */
INLINE void tiles_of_rows(const Left *x, const char *panel, int64_t steps, float *sums, int64_t stride, int is_first,
                          const char *ahead, int lines, const int is_pair) {
    const char *above = x->at, *below = x->at + x->tile;
    char *left = (char *)sums, *right = left + 64, *left_below = left + TILE * stride, *right_below = left_below + 64;
    if (is_first) {
        _tile_zero(0);
        _tile_zero(1);
        if (is_pair) _tile_zero(2);
        if (is_pair) _tile_zero(3);
    } else {
        _tile_loadd(0, left, stride);
        _tile_loadd(1, right, stride);
        if (is_pair) _tile_loadd(2, left_below, stride);
        if (is_pair) _tile_loadd(3, right_below, stride);
    }
    for (int64_t k = 0; k < steps; k++) {
        _tile_loadd(6, panel + 2 * k * TILE_BYTES, 64);
        _tile_loadd(4, above + k * x->step, x->row);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, panel + (2 * k + 1) * TILE_BYTES, 64);
        _tile_dpbf16ps(1, 4, 7);
        if (is_pair) {
            _tile_loadd(5, below + k * x->step, x->row);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        for (int i = 0; i < lines; i++) _mm_prefetch(ahead + 64 * i, _MM_HINT_T2);
        ahead += 2 * TILE_BYTES;
    }
    _tile_stored(0, left, stride);
    _tile_stored(1, right, stride);
    if (is_pair) _tile_stored(2, left_below, stride);
    if (is_pair) _tile_stored(3, right_below, stride);
}

static __attribute__((noinline)) void one_tile(const Left *x, const char *panel, int64_t steps, float *sums, int64_t stride,
                                               int is_first, const char *ahead, int lines) {
    tiles_of_rows(x, panel, steps, sums, stride, is_first, ahead, lines, 0);
}

static __attribute__((noinline)) void two_tiles(const Left *x, const char *panel, int64_t steps, float *sums, int64_t stride,
                                                int is_first, const char *ahead, int lines) {
    tiles_of_rows(x, panel, steps, sums, stride, is_first, ahead, lines, 1);
}

int64_t tile_panel_bytes(int64_t inputs) { return (inputs + STEP - 1) / STEP * 2 * TILE_BYTES; }

/* weight: [outputs, inputs] bfloat16; packed: tile_panel_bytes for each panel of outputs. */
void tile_pack_weight(const uint16_t *weight, uint16_t *packed, int64_t outputs, int64_t inputs, int threads) {
    int64_t panels = (outputs + PANEL - 1) / PANEL, steps = (inputs + STEP - 1) / STEP;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < panels; p++)
        for (int64_t j = 0; j < PANEL; j++) {
            const uint16_t *from = weight + (p * PANEL + j) * inputs;
            uint16_t *to = packed + (p * steps * 2 + j / TILE) * (TILE_BYTES / 2) + j % TILE * 2;
            for (int64_t k = 0; k < steps * STEP; k++) {
                int is_there = k < inputs && p * PANEL + j < outputs;
                to[k / STEP * TILE_BYTES + k % STEP / 2 * STEP + k % 2] = is_there ? from[k] : 0;
            }
        }
}

/* Which of the 16 columns from `first` on are within `width`. */
INLINE __mmask16 columns_from(int64_t width, int64_t first) {
    int64_t left = width - first;
    return left >= TILE ? 0xffff : left > 0 ? (1u << left) - 1 : 0;
}

/* Sums [rows, PANEL] to y, with the bias, rounded once. */
static void put_panel(const float *sums, const uint16_t *bias, char *y, int is_wide, int64_t outputs, int64_t rows,
                      int64_t width) {
    __mmask16 left = columns_from(width, 0), right = columns_from(width, TILE);
    vfloat bias_left = {0}, bias_right = {0};
    if (bias) {
        bias_left = (vfloat)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(left, bias)), 16);
        bias_right = (vfloat)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(right, bias + TILE)), 16);
    }
    /* Logits are too many for a cache: written past it, a head of 152 k words takes 58 ms for 455 rows instead of 94. */
    int streams = is_wide && width >= PANEL && outputs % TILE == 0 && (uintptr_t)y % 64 == 0;
    for (int64_t r = 0; r < rows; r++) {
        vfloat one = load(sums + r * PANEL) + bias_left, two = load(sums + r * PANEL + TILE) + bias_right;
        if (streams) {
            _mm512_stream_ps((float *)y + r * outputs, (__m512)one);
            _mm512_stream_ps((float *)y + r * outputs + TILE, (__m512)two);
        } else if (is_wide) {
            _mm512_mask_storeu_ps((float *)y + r * outputs, left, (__m512)one);
            _mm512_mask_storeu_ps((float *)y + r * outputs + TILE, right, (__m512)two);
        } else {
            __m512bh both = _mm512_cvtne2ps_pbh((__m512)two, (__m512)one); /* to nearest, ties to even */
            _mm512_mask_storeu_epi16((uint16_t *)y + r * outputs, left | (__mmask32)right << 16, (__m512i)both);
        }
    }
}

typedef struct {
    const uint16_t *x, *bias;
    const char *packed;
    char *y;
    int64_t rows, outputs, inputs;
    int is_wide;
} Product;

/* `rows` rows from `top` on against the panels `first` to `last`. */
static void rows_of_group(const Product *o, int64_t top, int64_t rows, int64_t first, int64_t last) {
    float sums[PANELS_IN_GROUP * ROWS_IN_CACHE * PANEL] __attribute__((aligned(64)));
    int64_t steps = o->inputs / STEP, panel_bytes = tile_panel_bytes(o->inputs), y_bytes = o->is_wide ? 4 : 2;
    int64_t parts = (steps + STEPS_IN_CACHE - 1) / STEPS_IN_CACHE, most = (steps + parts - 1) / parts;
    int64_t pairs = (rows + PANEL - 1) / PANEL; /* of tiles of rows; each asks for a part of the panel that comes next */
    int lines = (int)((2 * TILE_BYTES / 64 + pairs - 1) / pairs), set = -1;
    for (int64_t k = 0; k < steps; k += most) {
        int64_t now = steps - k < most ? steps - k : most;
        for (int64_t p = first; p < last; p++) {
            const char *panel = o->packed + p * panel_bytes + k * 2 * TILE_BYTES, *next = panel + panel_bytes;
            if (p + 1 == last && k + now < steps) next = o->packed + first * panel_bytes + (k + now) * 2 * TILE_BYTES;
            for (int64_t r = 0; r < rows; r += PANEL, next += lines * 64) {
                int here = rows - r < PANEL ? (int)(rows - r) : PANEL;
                if (set != here) set_tiles(here < TILE ? here : TILE, here < TILE ? 0 : here - TILE), set = here;
                float *own = sums + ((p - first) * ROWS_IN_CACHE + r) * PANEL;
                const uint16_t *from = o->x + (top + r) * o->inputs + k * STEP;
                Left x = {(const char *)from, 2 * o->inputs, 2 * STEP, TILE * 2 * o->inputs};
                (here > TILE ? two_tiles : one_tile)(&x, panel, now, own, PANEL * 4, k == 0, next, lines);
                if (k + now < steps) continue;
                int64_t at = p * PANEL, width = o->outputs - at < PANEL ? o->outputs - at : PANEL;
                put_panel(own, o->bias ? o->bias + at : NULL, o->y + ((top + r) * o->outputs + at) * y_bytes, o->is_wide,
                          o->outputs, here, width);
            }
        }
    }
}

/* x: [rows, inputs], inputs a multiple of 32; packed: from tile_pack_weight; bias: [outputs] or NULL, all bfloat16; y: [rows,
 * outputs], float if `is_wide`, else bfloat16. */
void tile_product(const uint16_t *x, const void *packed, const uint16_t *bias, void *y, int64_t rows, int64_t outputs,
                  int64_t inputs, int is_wide, int threads) {
    Product o = {x, bias, packed, y, rows, outputs, inputs, is_wide};
    int64_t panels = (outputs + PANEL - 1) / PANEL, in_turns = (int64_t)threads * PANELS_IN_GROUP;
    int64_t groups = (panels + in_turns - 1) / in_turns * threads;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(dynamic, 1)
        for (int64_t g = 0; g < groups; g++)
            for (int64_t top = 0; top < rows; top += ROWS_IN_CACHE)
                rows_of_group(&o, top, rows - top < ROWS_IN_CACHE ? rows - top : ROWS_IN_CACHE, g * panels / groups,
                              (g + 1) * panels / groups);
        _mm_sfence();
        _tile_release();
    }
}

/* Sixteen vectors of 16 words: rows become columns. In each round, what two vectors have on the wrong side changes places. */
static void transpose(__m512i *rows) {
    const __m512i place = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (int far = 8; far; far /= 2) {
        __mmask16 is_high = _mm512_test_epi32_mask(place, _mm512_set1_epi32(far));
        __m512i first = _mm512_mask_add_epi32(place, is_high, place, _mm512_set1_epi32(16 - far));
        __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(far));
        for (int i = 0; i < 16; i++)
            if (!(i & far)) {
                __m512i one = rows[i], two = rows[i + far];
                rows[i] = _mm512_permutex2var_epi32(one, first, two);
                rows[i + far] = _mm512_permutex2var_epi32(one, second, two);
            }
    }
}

/* matrix: [tokens, width] bfloat16. Tiles of 16 columns by 32 tokens, k being the tokens: rows of the left factor (one strip of 16
 * after the other), or weights in panels as tile_pack_weight makes them. */
static void pack_tokens(const uint16_t *matrix, char *packed, int64_t tokens, int64_t width, int is_left, int threads) {
    int64_t strips = (width + PANEL - 1) / PANEL * 2, steps = (tokens + STEP - 1) / STEP;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t item = 0; item < strips / 2 * steps; item++)
        for (int64_t half = 0; half < 2; half++) {
            int64_t strip = item / steps * 2 + half, step = item % steps;
            __mmask16 columns = columns_from(width, strip * TILE);
            __m512i words[TILE];
            for (int64_t pair = 0; pair < TILE; pair++) {
                int64_t n = step * STEP + 2 * pair;
                const uint16_t *from = matrix + n * width + strip * TILE;
                __m256i one = _mm256_maskz_loadu_epi16(n < tokens ? columns : 0, from);
                __m256i two = _mm256_maskz_loadu_epi16(n + 1 < tokens ? columns : 0, from + width);
                words[pair] = _mm512_or_si512(_mm512_cvtepu16_epi32(one), _mm512_slli_epi32(_mm512_cvtepu16_epi32(two), 16));
            }
            if (is_left) transpose(words);
            char *to = packed + (is_left ? strip * steps + step : (item / steps * steps + step) * 2 + half) * TILE_BYTES;
            for (int i = 0; i < TILE; i++) _mm512_storeu_si512(to + 64 * i, words[i]);
        }
}

/* Bytes of scratch that `tile_weight_gradient` needs. */
int64_t tile_gradient_scratch(int64_t tokens, int64_t outputs, int64_t inputs) {
    return ((outputs + PANEL - 1) / PANEL + (inputs + PANEL - 1) / PANEL) * tile_panel_bytes(tokens);
}

typedef struct {
    const char *rows, *columns;
    float *y;
    int64_t steps, outputs, inputs;
    int adds;
} Gradient;

/* Outputs `top` to top + here, at most two tiles, and one panel of inputs: steps k to k + now go to their sums in y. */
static void add_to_gradient(const Gradient *o, int64_t top, int here, int64_t panel, int64_t k, int64_t now) {
    Left left = {o->rows + (top / TILE * o->steps + k) * TILE_BYTES, 64, TILE_BYTES, o->steps * TILE_BYTES};
    const char *right = o->columns + (panel * o->steps + k) * 2 * TILE_BYTES;
    float *y = o->y + top * o->inputs + panel * PANEL, edge[PANEL * PANEL] __attribute__((aligned(64)));
    int is_first = k == 0 && !o->adds;
    int64_t width = o->inputs - panel * PANEL;
    if (width >= PANEL && here > TILE)
        two_tiles(&left, right, now, y, o->inputs * 4, is_first, right, 0);
    else if (width >= PANEL)
        one_tile(&left, right, now, y, o->inputs * 4, is_first, right, 0);
    else {
        for (int r = 0; r < here; r++) memcpy(edge + r * PANEL, y + r * o->inputs, width * sizeof(float));
        (here > TILE ? two_tiles : one_tile)(&left, right, now, edge, PANEL * 4, is_first, right, 0);
        for (int r = 0; r < here; r++) memcpy(y + r * o->inputs, edge + r * PANEL, width * sizeof(float));
    }
}

/* y = grad^T x in float, or y += where `adds`. grad: [tokens, outputs], x: [tokens, inputs] bfloat16; y: [outputs, inputs]. The
 * tokens are added up from the first to the last. */
void tile_weight_gradient(const uint16_t *grad, const uint16_t *x, float *y, int64_t tokens, int64_t outputs, int64_t inputs,
                          int adds, char *scratch, int threads) {
    int64_t steps = (tokens + STEP - 1) / STEP, pairs = (outputs + PANEL - 1) / PANEL, panels = (inputs + PANEL - 1) / PANEL;
    char *columns = scratch + pairs * tile_panel_bytes(tokens);
    pack_tokens(grad, scratch, tokens, outputs, 1, threads);
    pack_tokens(x, columns, tokens, inputs, 0, threads);
    Gradient o = {scratch, columns, y, steps, outputs, inputs, adds};
    int64_t in_turns = (int64_t)threads * (ROWS_IN_CACHE / PANEL), groups = (pairs + in_turns - 1) / in_turns * threads;
#pragma omp parallel num_threads(threads)
    {
        set_tiles(TILE, TILE);
#pragma omp for schedule(dynamic, 1)
        for (int64_t g = 0; g < groups; g++)
            for (int64_t k = 0; k < steps; k += STEPS_OF_TOKENS)
                for (int64_t p = 0; p < panels; p++)
                    for (int64_t r = g * pairs / groups; r < (g + 1) * pairs / groups; r++) {
                        int64_t here = outputs - r * PANEL < PANEL ? outputs - r * PANEL : PANEL;
                        if (here < PANEL) set_tiles(here < TILE ? (int)here : TILE, here < TILE ? 0 : (int)here - TILE);
                        add_to_gradient(&o, r * PANEL, (int)here, p, k,
                                        steps - k < STEPS_OF_TOKENS ? steps - k : STEPS_OF_TOKENS);
                        if (here < PANEL) set_tiles(TILE, TILE);
                    }
        _tile_release();
    }
}
#else
int has_tiles(void) { return 0; }
#endif
