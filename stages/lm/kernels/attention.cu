// Causal attention over the tiles of a forest, without scores in memory: keys pass by in steps, and the softmax of what
// has passed is kept up to date.
#include "attention.cuh"

// A block for each tile (x) and, for each key-value head, 64 of its items (y). out is [T, A D], lse [T, A] or null.
template <typename T, int D>
__device__ void attention(const T *q, unsigned q_stride, const T *k, const T *v, unsigned kv_stride, T *out, float *lse,
                          const unsigned *tiles, const unsigned *spans, unsigned heads, unsigned kv_heads,
                          unsigned width, unsigned window, float scale) {
  constexpr int KEYS = sizeof(T) == 2 ? 64 : 32, S = Stride<D>::value;
  DYNAMIC_SHARED(memory);
  __shared__ unsigned key_rows[KEYS];
  T *queries = reinterpret_cast<T *>(memory), *keys = queries + ITEMS * S, *values = keys + KEYS * S;
  Tile tile = tile_at(tiles, blockIdx.x);
  unsigned group = heads / kv_heads, kv_head = blockIdx.y / group, first = blockIdx.y % group * ITEMS;
  unsigned items = group * tile.rows;
  if (first >= items) return;
  auto row_of = [&](unsigned i) { return tile.row + (first + i) % tile.rows; };
  auto head_of = [&](unsigned i) { return kv_head * group + (first + i) / tile.rows; };
  fill_rows<D>(queries, ITEMS, width, [&](unsigned i) -> const T * {
    return first + i < items ? q + size_t(row_of(i)) * q_stride + head_of(i) * width : nullptr;
  });

  unsigned own = warp_of_thread() * 16, g = lane_of_thread() / 4, t = lane_of_thread() % 4;
  bool busy = first + own < items;
  unsigned depth[2] = {tile.depth + (first + own + g) % tile.rows, tile.depth + (first + own + g + 8) % tile.rows};
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f}, o[D / 8][4] = {};
  unsigned end = tile.depth + tile.rows;
  unsigned start = window == 0 || tile.depth + 1 < window ? 0 : tile.depth + 1 - window;
  for (unsigned from = start; from < end; from += KEYS) {
    __syncthreads();
    for (unsigned i = threadIdx.x; i < KEYS; i += blockDim.x)
      key_rows[i] = from + i < end ? row_at(tile, spans, from + i) : ~0u;
    __syncthreads();
    auto key = [&](const T *rows, unsigned i) -> const T * {
      return key_rows[i] != ~0u ? rows + size_t(key_rows[i]) * kv_stride + kv_head * width : nullptr;
    };
    fill_rows<D>(keys, KEYS, width, [&](unsigned i) { return key(k, i); });
    fill_rows<D>(values, KEYS, width, [&](unsigned i) { return key(v, i); });
    __syncthreads();
    if (!busy) continue;

    float s[KEYS / 8][4] = {};
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      FragmentA<T> a;
      load_a(a, queries + own * S + d, S);
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++) {
        FragmentB<T> b;
        load_b_transposed(b, keys + n * 8 * S + d, S);
        multiply(s[n], a, b);
      }
    }
    // Powers of 2 from here on: the scale takes log2(e) in.
    float best[2] = {largest[0], largest[1]};
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
      for (int i = 0; i < 4; i++) {
        bool seen = sees(depth[i / 2], from + n * 8 + 2 * t + i % 2, window);
        s[n][i] = seen ? s[n][i] * (scale * LOG2_E) : -INFINITY;
        best[i / 2] = fmaxf(best[i / 2], s[n][i]);
      }
    float shift[2], keep[2];
    for (int half = 0; half < 2; half++) {
      best[half] = fmaxf(best[half], __shfl_xor_sync(ALL_LANES, best[half], 1));
      best[half] = fmaxf(best[half], __shfl_xor_sync(ALL_LANES, best[half], 2));
      shift[half] = best[half] == -INFINITY ? 0.0f : best[half];
      keep[half] = exp2f(largest[half] - shift[half]);
      largest[half] = best[half];
      sum[half] *= keep[half];
    }
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
      for (int i = 0; i < 4; i++) {
        s[n][i] = exp2f(s[n][i] - shift[i / 2]);
        sum[i / 2] += s[n][i];
      }
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      for (int i = 0; i < 4; i++) o[n][i] *= keep[i / 2];
#pragma unroll
    for (int n = 0; n < KEYS / 8; n += 2) {
      FragmentA<T> a;
      as_a(a, s[n], s[n + 1]);
#pragma unroll
      for (int d = 0; d < D / 8; d++) {
        FragmentB<T> b;
        load_b(b, values + n * 8 * S + d * 8, S);
        multiply(o[d], a, b);
      }
    }
  }
  if (!busy) return;
  float factor[2];
  for (int half = 0; half < 2; half++) {
    sum[half] += __shfl_xor_sync(ALL_LANES, sum[half], 1);
    sum[half] += __shfl_xor_sync(ALL_LANES, sum[half], 2);
    factor[half] = 1.0f / sum[half];
    unsigned i = own + g + 8 * half;
    if (lse != nullptr && t == 0 && first + i < items)
      lse[size_t(row_of(i)) * heads + head_of(i)] = largest[half] / LOG2_E + logf(sum[half]);
  }
  write_rows<D, T>(o, factor, width, [&](unsigned i) -> T * {
    unsigned item = own + i;
    return first + item < items ? out + (size_t(row_of(item)) * heads + head_of(item)) * width : nullptr;
  });
}
EXPORT_WIDTHS(attention,
              (const T *q, unsigned q_stride, const T *k, const T *v, unsigned kv_stride, T *out, float *lse,
               const unsigned *tiles, const unsigned *spans, unsigned heads, unsigned kv_heads, unsigned width,
               unsigned window, float scale),
              (q, q_stride, k, v, kv_stride, out, lse, tiles, spans, heads, kv_heads, width, window, scale))
