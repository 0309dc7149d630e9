/* Tiles of the matrix unit of an Intel core (AMX): whether they may be used, and what shape they have. */
#ifndef GROSCHEN_TILES_H
#define GROSCHEN_TILES_H
#include "vectors.h"

#if HAS_TILES
typedef struct {
    uint8_t palette, start, zeros[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TileShape;

int has_tiles(void);

/* gcc 12 does not know that tiles read memory: without a fence it may keep back, or drop, the stores before a load. */
INLINE void tile_fence(void) { __asm__ volatile("" ::: "memory"); }

INLINE void load_shape(const TileShape *shape) {
    tile_fence();
    _tile_loadconfig(shape);
}
#endif
#endif
