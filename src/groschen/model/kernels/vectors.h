/* Vectors of float that every C compiler with GNU vector extensions understands, and the few functions on them.
 *
 * Compiled with -ffp-contract=off: where a product and a sum are rounded once, `fused` says so. Left to the compiler, a loop and
 * its copy for overlapping pointers may fuse differently, and a row's bits would depend on where its buffer lies.
 * Leaves out: anything whose order of additions would depend on the width of the machine's registers without saying so.
 * LANES is part of the meaning of a sum here: the compiled library is one machine class.
 */
#ifndef GROSCHEN_VECTORS_H
#define GROSCHEN_VECTORS_H
#include <math.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define TILE_ROWS 12 /* 24 of 32 registers accumulate */
#elif defined(__AVX2__) && defined(__FMA__)
#define LANES 8
#define TILE_ROWS 6 /* 12 of 16 registers accumulate */
#else
#define LANES 4
#define TILE_ROWS 8
#endif
#define PANEL (2 * LANES)   /* outputs of a product that are computed side by side */
#define KEYS_PER_BLOCK 16   /* cached positions that lie side by side in memory */
#define INLINE static inline __attribute__((always_inline))

typedef float vfloat __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t vint __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t vword __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#if defined(ACTIVATION_BF16) && defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__linux__)
#define HAS_TILES 1 /* the compiler knows them; whether the system grants them, has_tiles() asks */
#else
#define HAS_TILES 0
#endif

/* Activations are float, or bfloat16 on machines that multiply bfloat16 in hardware: one source, compiled twice. */
#ifdef ACTIVATION_BF16
typedef uint16_t activation;
#else
typedef float activation;
#endif

INLINE float widen(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

INLINE uint16_t narrow(float value) { /* round to nearest, ties to even; a NaN stays a NaN */
    uint32_t word;
    memcpy(&word, &value, 4);
    if ((word & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((word >> 16) | 0x40);
    return (uint16_t)((word + 0x7fffu + ((word >> 16) & 1)) >> 16);
}

#ifdef ACTIVATION_BF16
INLINE float get(const activation *from) { return widen(*from); }
INLINE void put(activation *to, float value) { *to = narrow(value); }
INLINE float rounded(float value) { return widen(narrow(value)); }
#else
INLINE float get(const activation *from) { return *from; }
INLINE void put(activation *to, float value) { *to = value; }
INLINE float rounded(float value) { return value; }
#endif

#ifdef ACTIVATION_BF16
typedef uint16_t vhalf __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
INLINE vfloat get_vector(const activation *from) {
    return (vfloat)(__builtin_convertvector(*(const vhalf *)from, vword) << 16);
}
INLINE vfloat rounded_vector(vfloat value) { /* as narrow() does, lane by lane */
    vword word = (vword)value, up = (word + 0x7fffu + ((word >> 16) & 1)) & 0xffff0000u;
    vint is_number = value == value;
    return (vfloat)((up & (vword)is_number) | ((word | 0x400000u) & ~(vword)is_number & 0xffff0000u));
}
INLINE void put_vector(activation *to, vfloat value) {
    *(vhalf *)to = __builtin_convertvector((vword)rounded_vector(value) >> 16, vhalf);
}
#else
INLINE vfloat get_vector(const activation *from) { return *(const vfloat *)from; }
INLINE vfloat rounded_vector(vfloat value) { return value; }
INLINE void put_vector(activation *to, vfloat value) { *(vfloat *)to = value; }
#endif
INLINE vfloat load(const float *from) { return *(const vfloat *)from; }
INLINE void store(float *to, vfloat value) { *(vfloat *)to = value; }
INLINE vfloat broadcast(float value) { return value - (vfloat){0}; }

INLINE vfloat fused(vfloat a, vfloat b, vfloat c) { /* a * b + c, rounded once */
#if defined(__AVX512F__)
    return (vfloat)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif LANES == 8
    return (vfloat)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__ARM_NEON)
    return (vfloat)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    for (int i = 0; i < LANES; i++) c[i] = fmaf(a[i], b[i], c[i]);
    return c;
#endif
}

INLINE float sum_lanes(vfloat value) { /* a fixed tree: halves are added until one number is left */
    float lane[LANES];
    memcpy(lane, &value, sizeof lane);
    for (int width = LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++) lane[i] += lane[i + width];
    return lane[0];
}

INLINE float max_lanes(vfloat value) {
    float lane[LANES], best;
    memcpy(lane, &value, sizeof lane);
    best = lane[0];
    for (int i = 1; i < LANES; i++) best = lane[i] > best ? lane[i] : best;
    return best;
}

INLINE vfloat vmax(vfloat a, vfloat b) { /* a > b ? a : b in each lane: of a NaN and a number, b */
#if defined(__AVX512F__)
    return (vfloat)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
    return (vfloat)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vint pick = a > b;
    return (vfloat)(((vint)a & pick) | ((vint)b & ~pick));
#endif
}

/* exp for arguments up to 88, error below 2 ulp; under -87.3 the result is 0.
 * Method: Cody and Waite reduction by ln 2 in two parts, then the polynomial of Cephes expf (Moshier, 1989). */
INLINE vfloat vexp(vfloat x) {
    vint alive = x > broadcast(-87.3f);
    x = vmax(x, broadcast(-87.3f));
    vfloat shifted = fused(x, broadcast(1.44269504f), broadcast(12582912.0f)); /* 1.5 * 2^23: rounds to an integer */
    vfloat n = shifted - broadcast(12582912.0f);
    vfloat r = fused(n, broadcast(-0.693359375f), x);
    r = fused(n, broadcast(2.12194440e-4f), r);
    vfloat p = broadcast(1.9875691500e-4f);
    p = fused(p, r, broadcast(1.3981999507e-3f));
    p = fused(p, r, broadcast(8.3334519073e-3f));
    p = fused(p, r, broadcast(4.1665795894e-2f));
    p = fused(p, r, broadcast(1.6666665459e-1f));
    p = fused(p, r, broadcast(5.0000001201e-1f));
    vfloat y = fused(p, r * r, r) + broadcast(1.0f);
    vint power = ((vint)shifted - 0x4B400000 + 127) << 23;
    return (vfloat)((vint)(y * (vfloat)power) & alive);
}

#endif
