// Attention over tiles without scores in memory: keys pass by in steps, and the softmax of what has passed is kept up to
// date.
#pragma once
#include "attention.cuh"

// A block for a tile and, for each key-value head, 64 of its items (y). out is [rows, A D], lse [rows, A] or null; the
// tile's rows are those from `out_row` on. `Sight` says at which depths its rows are, and which keys of its path they
// see.
template <typename T, int D, typename O, typename Sight>
__device__ void attend(const T *q, unsigned q_stride, const T *k, const T *v, unsigned kv_stride, O *out, float *lse,
                       unsigned out_row, const Tile &tile, const unsigned *spans, unsigned heads, unsigned kv_heads,
                       unsigned width, const Sight &sight, float scale, float cap) {
  constexpr int KEYS = Steps<T, D>::forward, BUFFERS = Steps<T, D>::forward_buffers, S = Stride<T, D>::value;
  DYNAMIC_SHARED(memory);
  SHARED(unsigned, near, [2 * NEAR_SPANS]);
  T *queries = reinterpret_cast<T *>(memory), *keys = queries + ITEMS * S, *values = keys + BUFFERS * KEYS * S;
  unsigned group = heads / kv_heads, kv_head = blockIdx.y / group, first = blockIdx.y % group * ITEMS;
  unsigned items = group * tile.rows;
  if (first >= items) return;
  auto row_of = [&](unsigned i) { return (first + i) % tile.rows; };
  auto head_of = [&](unsigned i) { return kv_head * group + (first + i) / tile.rows; };
  fill_rows<D, ITEMS>(queries, width, [&](unsigned i) -> const T * {
    return first + i < items ? q + size_t(tile.row + row_of(i)) * q_stride + head_of(i) * width : nullptr;
  });
  Path path = path_of(tile, spans, near);
  unsigned start = sight.first(tile), end = sight.end(tile);
  auto fetch = [&](unsigned from, unsigned buffer) {
    auto key = [&](const T *rows, unsigned i) -> const T * {
      return from + i < end ? rows + size_t(row_at(path, from + i)) * kv_stride + kv_head * width : nullptr;
    };
    fill_rows<D, KEYS>(keys + buffer * KEYS * S, width, [&](unsigned i) { return key(k, i); });
    fill_rows<D, KEYS>(values + buffer * KEYS * S, width, [&](unsigned i) { return key(v, i); });
  };

  unsigned own = warp_of_thread() * 16, g = lane_of_thread() / 4, t = lane_of_thread() % 4;
  bool busy = first + own < items;
  unsigned depth[2] = {sight.depth(tile, row_of(own + g)), sight.depth(tile, row_of(own + g + 8))};
  const Scores scores(scale, cap);
  // Powers of 2: the unit takes log2(e) in.
  const float power = scores.unit * LOG2_E;
  float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.0f, 0.0f}, o[D / 8][4] = {};
  unsigned buffer = 0;
  fetch(start, buffer);
  for (unsigned from = start; from < end; from += KEYS) {
    await_copies();
    __syncthreads();
    unsigned now = buffer;
    if (BUFFERS == 2 && from + KEYS < end) fetch(from + KEYS, buffer ^= 1);
    if (busy) {
      const T *key_rows = keys + now * KEYS * S, *value_rows = values + now * KEYS * S;
      float s[KEYS / 8][4] = {};
#pragma unroll
      for (int d = 0; d < D; d += 16) {
        FragmentA<T> a;
        load_a(a, queries + own * S + d, S);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n += 2) {
          FragmentB<T> b[2];
          load_b_transposed(b, key_rows + n * 8 * S + d, S);
          multiply(s[n], a, b[0]);
          multiply(s[n + 1], a, b[1]);
        }
      }
      scores.bound(s);
      // Most steps are seen whole by all queries of the tile.
      if (sight.moves())
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
          for (int i = 0; i < 4; i++)
            s[n][i] += sight.moved(min(head_of(own + g + i / 2 * 8), heads - 1), depth[i / 2],
                                   from + n * 8 + 2 * t + i % 2, end) / scale;
      if (!sight.whole(tile, from, from + KEYS))
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
          for (int i = 0; i < 4; i++)
            if (!sight.sees(depth[i / 2], from + n * 8 + 2 * t + i % 2, end)) s[n][i] = -INFINITY;
      float shift[2], keep[2];
      for (int half = 0; half < 2; half++) {
        float best = largest[half];
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) best = fmaxf(best, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, 1));
        best = fmaxf(best, __shfl_xor_sync(ALL_LANES, best, 2));
        shift[half] = best == -INFINITY ? 0.0f : best * power;
        keep[half] = power_of_2(largest[half] * power - shift[half]);
        largest[half] = best;
        sum[half] *= keep[half];
      }
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++)
        for (int i = 0; i < 4; i++) {
          s[n][i] = power_of_2(s[n][i] * power - shift[i / 2]);
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
        for (int d = 0; d < D / 8; d += 2) {
          FragmentB<T> b[2];
          load_b(b, value_rows + n * 8 * S + d * 8, S);
          multiply(o[d], a, b[0]);
          multiply(o[d + 1], a, b[1]);
        }
      }
    }
    if (BUFFERS == 1 && from + KEYS < end) {
      __syncthreads();
      fetch(from + KEYS, buffer);
    }
  }
  if (!busy) return;
  float factor[2];
  for (int half = 0; half < 2; half++) {
    sum[half] += __shfl_xor_sync(ALL_LANES, sum[half], 1);
    sum[half] += __shfl_xor_sync(ALL_LANES, sum[half], 2);
    // A row that sees none of the keys has the sum 0.
    factor[half] = sum[half] == 0.0f ? 0.0f : 1.0f / sum[half];
    unsigned i = own + g + 8 * half;
    if (lse != nullptr && t == 0 && first + i < items)
      lse[size_t(out_row + row_of(i)) * heads + head_of(i)] = largest[half] * scores.unit + logf(sum[half]);
  }
  write_rows<D, O>(o, factor, width, [&](unsigned i) -> O * {
    unsigned item = own + i;
    return first + item < items ? out + (size_t(out_row + row_of(item)) * heads + head_of(item)) * width : nullptr;
  });
}
