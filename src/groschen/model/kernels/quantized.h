/* What rounding a weight (quantise.c) and multiplying by it (quantized.c) agree on: blocks, codes and where they lie.
 *
 * A block's scale is bfloat16; its codes are whole numbers, or at 4 bits places in a table of 16.
 * Layout: panels of PANEL outputs; a panel is its blocks one after another, each its scales, as in a bfloat16 panel, and its
 * codes, two inputs of an output side by side. At 4 bits a word of 16 bits holds the codes of its place in four vectors.
 */
#ifndef GROSCHEN_QUANTIZED_H
#define GROSCHEN_QUANTIZED_H
#include "vectors.h"

#define BLOCK_OF(bits) ((bits) == 8 ? 64 : 32) /* inputs that share a scale: 8.25 and 4.5 bits a weight */
#define BYTES_OF_BLOCK(bits) (2 * PANEL + BLOCK_OF(bits) * PANEL * (bits) / 8)

/* The 16 levels of a 4-bit code, as integers: those of least squared error for normal numbers in blocks of 32 with the best
 * scale each (Lloyd, "Least squares quantization in PCM", 1982). Not symmetric: one is nearly 0, and a scale may be negative.
 * Mean squared error 0.0051 of the variance; evenly spaced levels have 0.0061. */
static const int LEVELS[16] = {-127, -102, -81, -64, -49, -35, -22, -9, 2, 14, 25, 38, 51, 67, 85, 109};

#endif
