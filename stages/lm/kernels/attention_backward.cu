// The gradient of attention. Probabilities are computed again from the log-sum-exps; with P = exp(scale q k^T - lse):
// dV = P^T dO, dS = scale P (dO V^T - delta), delta = rowsum(dO O), dQ = dS K, dK = dS^T Q. One kernel goes by queries,
// one by keys, each adding up in a fixed order what it writes.
#include "attention.cuh"

// delta [T, A]: a warp for each head of each row.
template <typename T>
__device__ void attention_delta(const T *out, const T *g, float *delta, unsigned count, unsigned width) {
  unsigned i = blockIdx.x * (blockDim.x / 32) + warp_of_thread();
  if (i >= count) return;
  float sum = 0;
  for (unsigned j = lane_of_thread(); j < width; j += 32)
    sum += widen(out[size_t(i) * width + j]) * widen(g[size_t(i) * width + j]);
  sum = warp_sum(sum);
  if (lane_of_thread() == 0) delta[i] = sum;
}
EXPORT(attention_delta, 128, (const T *out, const T *g, float *delta, unsigned count, unsigned width),
       (out, g, delta, count, width))

// Rows that pass by at a time in shared memory.
template <typename T> struct Step {
  static constexpr int value = sizeof(T) == 2 ? 32 : 16;
};

// dq into rows q | k | v [T, (A + 2 G) D]: a block for each tile (x) and 64 of a key-value head's items (y).
template <typename T, int D>
__device__ void attention_dq(const T *qkv, const T *g, const float *lse, const float *delta, T *d_qkv,
                             const unsigned *tiles, const unsigned *spans, unsigned heads, unsigned kv_heads,
                             unsigned width, unsigned window, float scale) {
  constexpr int KEYS = Step<T>::value, S = Stride<D>::value;
  DYNAMIC_SHARED(memory);
  __shared__ unsigned key_rows[KEYS];
  T *queries = reinterpret_cast<T *>(memory), *slopes = queries + ITEMS * S;
  T *keys = slopes + ITEMS * S, *values = keys + KEYS * S;
  Tile tile = tile_at(tiles, blockIdx.x);
  unsigned group = heads / kv_heads, kv_head = blockIdx.y / group, first = blockIdx.y % group * ITEMS;
  unsigned items = group * tile.rows, stride = (heads + 2 * kv_heads) * width;
  if (first >= items) return;
  auto row_of = [&](unsigned i) { return tile.row + (first + i) % tile.rows; };
  auto head_of = [&](unsigned i) { return kv_head * group + (first + i) / tile.rows; };
  fill_rows<D>(queries, ITEMS, width, [&](unsigned i) -> const T * {
    return first + i < items ? qkv + size_t(row_of(i)) * stride + head_of(i) * width : nullptr;
  });
  fill_rows<D>(slopes, ITEMS, width, [&](unsigned i) -> const T * {
    return first + i < items ? g + (size_t(row_of(i)) * heads + head_of(i)) * width : nullptr;
  });

  unsigned own = warp_of_thread() * 16, t = lane_of_thread() % 4;
  bool busy = first + own < items;
  unsigned depth[2];
  float shift[2], offset[2], dq[D / 8][4] = {};
  for (int half = 0; half < 2; half++) {
    unsigned i = own + lane_of_thread() / 4 + 8 * half;
    depth[half] = tile.depth + (first + i) % tile.rows;
    size_t at = size_t(row_of(i)) * heads + head_of(i);
    shift[half] = first + i < items ? lse[at] * LOG2_E : 0.0f;
    offset[half] = first + i < items ? delta[at] : 0.0f;
  }
  unsigned end = tile.depth + tile.rows;
  unsigned start = window == 0 || tile.depth + 1 < window ? 0 : tile.depth + 1 - window;
  for (unsigned from = start; from < end; from += KEYS) {
    __syncthreads();
    for (unsigned i = threadIdx.x; i < KEYS; i += blockDim.x)
      key_rows[i] = from + i < end ? row_at(tile, spans, from + i) : ~0u;
    __syncthreads();
    auto key = [&](unsigned head, unsigned i) -> const T * {
      return key_rows[i] != ~0u ? qkv + size_t(key_rows[i]) * stride + head * width : nullptr;
    };
    fill_rows<D>(keys, KEYS, width, [&](unsigned i) { return key(heads + kv_head, i); });
    fill_rows<D>(values, KEYS, width, [&](unsigned i) { return key(heads + kv_heads + kv_head, i); });
    __syncthreads();
    if (!busy) continue;

    float s[KEYS / 8][4] = {}, dp[KEYS / 8][4] = {};
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      FragmentA<T> a, da;
      load_a(a, queries + own * S + d, S);
      load_a(da, slopes + own * S + d, S);
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++) {
        FragmentB<T> b;
        load_b_transposed(b, keys + n * 8 * S + d, S);
        multiply(s[n], a, b);
        load_b_transposed(b, values + n * 8 * S + d, S);
        multiply(dp[n], da, b);
      }
    }
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++)
      for (int i = 0; i < 4; i++) {
        bool seen = sees(depth[i / 2], from + n * 8 + 2 * t + i % 2, window);
        float p = seen ? exp2f(s[n][i] * (scale * LOG2_E) - shift[i / 2]) : 0.0f;
        s[n][i] = p * (dp[n][i] - offset[i / 2]) * scale;
      }
#pragma unroll
    for (int n = 0; n < KEYS / 8; n += 2) {
      FragmentA<T> a;
      as_a(a, s[n], s[n + 1]);
#pragma unroll
      for (int d = 0; d < D / 8; d++) {
        FragmentB<T> b;
        load_b(b, keys + n * 8 * S + d * 8, S);
        multiply(dq[d], a, b);
      }
    }
  }
  if (!busy) return;
  float factor[2] = {1.0f, 1.0f};
  write_rows<D, T>(dq, factor, width, [&](unsigned i) -> T * {
    unsigned item = own + i;
    return first + item < items ? d_qkv + size_t(row_of(item)) * stride + head_of(item) * width : nullptr;
  });
}
EXPORT_WIDTHS(attention_dq,
              (const T *qkv, const T *g, const float *lse, const float *delta, T *d_qkv, const unsigned *tiles,
               const unsigned *spans, unsigned heads, unsigned kv_heads, unsigned width, unsigned window, float scale),
              (qkv, g, lse, delta, d_qkv, tiles, spans, heads, kv_heads, width, window, scale))

// dk and dv into rows q | k | v: a block for each tile (x), as keys, and key-value head (y). The tiles whose queries see
// some of it are the entries starts[x] .. starts[x + 1] of `readers`, ascending.
template <typename T, int D>
__device__ void attention_dkv(const T *qkv, const T *g, const float *lse, const float *delta, T *d_qkv,
                              const unsigned *tiles, const unsigned *starts, const unsigned *readers, unsigned heads,
                              unsigned kv_heads, unsigned width, unsigned window, float scale) {
  constexpr int QUERIES = Step<T>::value, S = Stride<D>::value;
  DYNAMIC_SHARED(memory);
  __shared__ unsigned depths[QUERIES];
  __shared__ float shifts[QUERIES], offsets[QUERIES];
  T *keys = reinterpret_cast<T *>(memory), *values = keys + ITEMS * S;
  T *queries = values + ITEMS * S, *slopes = queries + QUERIES * S;
  Tile tile = tile_at(tiles, blockIdx.x);
  unsigned group = heads / kv_heads, kv_head = blockIdx.y, stride = (heads + 2 * kv_heads) * width;
  auto key = [&](unsigned head, unsigned i) -> const T * {
    return i < tile.rows ? qkv + size_t(tile.row + i) * stride + head * width : nullptr;
  };
  fill_rows<D>(keys, ITEMS, width, [&](unsigned i) { return key(heads + kv_head, i); });
  fill_rows<D>(values, ITEMS, width, [&](unsigned i) { return key(heads + kv_heads + kv_head, i); });

  unsigned own = warp_of_thread() * 16, t = lane_of_thread() % 4;
  bool busy = own < tile.rows;
  unsigned depth[2] = {tile.depth + own + lane_of_thread() / 4, tile.depth + own + lane_of_thread() / 4 + 8};
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  for (unsigned entry = starts[blockIdx.x]; entry < starts[blockIdx.x + 1]; entry++) {
    Tile reader = tile_at(tiles, readers[entry]);
    // The nearest pair of the two is the last key and the first query.
    if (window != 0 && tile.depth + tile.rows - 1 + window <= reader.depth) continue;
    unsigned items = group * reader.rows;
    for (unsigned first = 0; first < items; first += QUERIES) {
      auto row_of = [&](unsigned i) { return reader.row + (first + i) % reader.rows; };
      auto head_of = [&](unsigned i) { return kv_head * group + (first + i) / reader.rows; };
      __syncthreads();
      fill_rows<D>(queries, QUERIES, width, [&](unsigned i) -> const T * {
        return first + i < items ? qkv + size_t(row_of(i)) * stride + head_of(i) * width : nullptr;
      });
      fill_rows<D>(slopes, QUERIES, width, [&](unsigned i) -> const T * {
        return first + i < items ? g + (size_t(row_of(i)) * heads + head_of(i)) * width : nullptr;
      });
      for (unsigned i = threadIdx.x; i < QUERIES; i += blockDim.x) {
        bool there = first + i < items;
        size_t at = size_t(row_of(i)) * heads + head_of(i);
        depths[i] = reader.depth + (first + i) % reader.rows;
        // Beyond the items nothing counts: exp2(-infinity) is 0.
        shifts[i] = there ? lse[at] * LOG2_E : INFINITY;
        offsets[i] = there ? delta[at] : 0.0f;
      }
      __syncthreads();
      if (!busy) continue;

      float s[QUERIES / 8][4] = {}, dp[QUERIES / 8][4] = {};
#pragma unroll
      for (int d = 0; d < D; d += 16) {
        FragmentA<T> a, da;
        load_a(a, keys + own * S + d, S);
        load_a(da, values + own * S + d, S);
#pragma unroll
        for (int n = 0; n < QUERIES / 8; n++) {
          FragmentB<T> b;
          load_b_transposed(b, queries + n * 8 * S + d, S);
          multiply(s[n], a, b);
          load_b_transposed(b, slopes + n * 8 * S + d, S);
          multiply(dp[n], da, b);
        }
      }
#pragma unroll
      for (int n = 0; n < QUERIES / 8; n++)
        for (int i = 0; i < 4; i++) {
          unsigned query = n * 8 + 2 * t + i % 2;
          bool seen = sees(depths[query], depth[i / 2], window);
          float p = seen ? exp2f(s[n][i] * (scale * LOG2_E) - shifts[query]) : 0.0f;
          s[n][i] = p;
          dp[n][i] = p * (dp[n][i] - offsets[query]) * scale;
        }
#pragma unroll
      for (int n = 0; n < QUERIES / 8; n += 2) {
        FragmentA<T> a, da;
        as_a(a, s[n], s[n + 1]);
        as_a(da, dp[n], dp[n + 1]);
#pragma unroll
        for (int d = 0; d < D / 8; d++) {
          FragmentB<T> b;
          load_b(b, slopes + n * 8 * S + d * 8, S);
          multiply(dv[d], a, b);
          load_b(b, queries + n * 8 * S + d * 8, S);
          multiply(dk[d], da, b);
        }
      }
    }
  }
  if (!busy) return;
  float factor[2] = {1.0f, 1.0f};
  auto row = [&](unsigned head, unsigned i) -> T * {
    unsigned at = own + i;
    return at < tile.rows ? d_qkv + size_t(tile.row + at) * stride + head * width : nullptr;
  };
  write_rows<D, T>(dk, factor, width, [&](unsigned i) { return row(heads + kv_head, i); });
  write_rows<D, T>(dv, factor, width, [&](unsigned i) { return row(heads + kv_heads + kv_head, i); });
}
EXPORT_WIDTHS(attention_dkv,
              (const T *qkv, const T *g, const float *lse, const float *delta, T *d_qkv, const unsigned *tiles,
               const unsigned *starts, const unsigned *readers, unsigned heads, unsigned kv_heads, unsigned width,
               unsigned window, float scale),
              (qkv, g, lse, delta, d_qkv, tiles, starts, readers, heads, kv_heads, width, window, scale))
