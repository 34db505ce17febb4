// Causal attention over the tiles of a forest.
#include "attend.cuh"

// A query sees its path up to itself, or the last `window` keys of it; window 0 is none.
struct Behind {
  unsigned window;

  __device__ __forceinline__ unsigned depth(const Tile &tile, unsigned row) const { return tile.depth + row; }
  // The first key that some query of a tile sees, and the end of all.
  __device__ __forceinline__ unsigned first(const Tile &tile) const {
    return window == 0 || tile.depth + 1 < window ? 0 : tile.depth + 1 - window;
  }
  __device__ __forceinline__ unsigned end(const Tile &tile) const { return tile.depth + tile.rows; }
  // Whether all queries of a tile see all of some keys.
  __device__ __forceinline__ bool whole(const Tile &tile, unsigned from, unsigned to) const {
    return to <= tile.depth + 1 && (window == 0 || from + window >= tile.depth + tile.rows);
  }
  __device__ __forceinline__ bool sees(unsigned query, unsigned key, unsigned end) const {
    return ::sees(query, key, window);
  }
  // Nothing is added to scores.
  __device__ __forceinline__ bool moves() const { return false; }
  __device__ __forceinline__ float moved(unsigned head, unsigned query, unsigned key, unsigned end) const { return 0.0f; }
};

template <typename T, int D>
__device__ void attention(const T *q, unsigned q_stride, const T *k, const T *v, unsigned kv_stride, T *out, float *lse,
                          const unsigned *tiles, const unsigned *spans, unsigned heads, unsigned kv_heads,
                          unsigned width, unsigned window, float scale, float cap) {
  Tile tile = tile_at(tiles, blockIdx.x);
  attend<T, D>(q, q_stride, k, v, kv_stride, out, lse, tile.row, tile, spans, heads, kv_heads, width, Behind{window},
               scale, cap);
}
EXPORT_WIDTHS(attention,
              (const T *q, unsigned q_stride, const T *k, const T *v, unsigned kv_stride, T *out, float *lse,
               const unsigned *tiles, const unsigned *spans, unsigned heads, unsigned kv_heads, unsigned width,
               unsigned window, float scale, float cap),
              (q, q_stride, k, v, kv_stride, out, lse, tiles, spans, heads, kv_heads, width, window, scale, cap))
