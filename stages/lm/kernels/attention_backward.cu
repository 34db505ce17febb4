// The gradient of attention. Probabilities are computed again from the log-sum-exps; with P = exp(scale q k^T - lse):
// dV = P^T dO, dS = scale P (dO V^T - delta), delta = rowsum(dO O), dQ = dS K, dK = dS^T Q. One kernel goes by queries,
// one by keys, each adding up in a fixed order what it writes.
#include "attention.cuh"

// delta [T, A]: a warp for each head of each row. The width is even.
template <typename T>
__device__ void attention_delta(const T *out, const T *g, float *delta, unsigned count, unsigned width) {
  unsigned i = blockIdx.x * (blockDim.x / 32) + warp_of_thread();
  if (i >= count) return;
  float sum = 0;
  for (unsigned j = 2 * lane_of_thread(); j < width; j += 64) {
    Pack<T, 2> o = load<2>(out + size_t(i) * width + j), slope = load<2>(g + size_t(i) * width + j);
    sum += widen(o.x[0]) * widen(slope.x[0]) + widen(o.x[1]) * widen(slope.x[1]);
  }
  sum = warp_sum(sum);
  if (lane_of_thread() == 0) delta[i] = sum;
}
EXPORT(attention_delta, 128, (const T *out, const T *g, float *delta, unsigned count, unsigned width),
       (out, g, delta, count, width))

// dq into rows q | k | v [T, (A + 2 G) D]: a block for each tile (x) and some of a key-value head's items (y).
template <typename T, int D>
__device__ void attention_dq(const T *qkv, const T *g, const float *lse, const float *delta, T *d_qkv,
                             const unsigned *tiles, const unsigned *spans, unsigned heads, unsigned kv_heads,
                             unsigned width, unsigned window, float scale, float cap) {
  constexpr int KEYS = Steps<T, D>::backward, BUFFERS = Steps<T, D>::backward_buffers, S = Stride<T, D>::value;
  constexpr int QUERIES = Items<T, D>::backward;
  DYNAMIC_SHARED(memory);
  SHARED(unsigned, near, [2 * NEAR_SPANS]);
  T *queries = reinterpret_cast<T *>(memory), *slopes = queries + QUERIES * S;
  T *keys = slopes + QUERIES * S, *values = keys + BUFFERS * KEYS * S;
  Tile tile = tile_at(tiles, blockIdx.x);
  unsigned group = heads / kv_heads, blocks = group * Items<T, D>::blocks;
  unsigned kv_head = blockIdx.y / blocks, first = blockIdx.y % blocks * QUERIES;
  unsigned items = group * tile.rows, stride = (heads + 2 * kv_heads) * width;
  if (first >= items) return;
  auto row_of = [&](unsigned i) { return tile.row + (first + i) % tile.rows; };
  auto head_of = [&](unsigned i) { return kv_head * group + (first + i) / tile.rows; };
  fill_rows<D, QUERIES>(queries, width, [&](unsigned i) -> const T * {
    return first + i < items ? qkv + size_t(row_of(i)) * stride + head_of(i) * width : nullptr;
  });
  fill_rows<D, QUERIES>(slopes, width, [&](unsigned i) -> const T * {
    return first + i < items ? g + (size_t(row_of(i)) * heads + head_of(i)) * width : nullptr;
  });
  Path path = path_of(tile, spans, near);
  unsigned end = tile.depth + tile.rows;
  unsigned start = window == 0 || tile.depth + 1 < window ? 0 : tile.depth + 1 - window;
  auto fetch = [&](unsigned from, unsigned buffer) {
    auto key = [&](unsigned head, unsigned i) -> const T * {
      return from + i < end ? qkv + size_t(row_at(path, from + i)) * stride + head * width : nullptr;
    };
    fill_rows<D, KEYS>(keys + buffer * KEYS * S, width, [&](unsigned i) { return key(heads + kv_head, i); });
    fill_rows<D, KEYS>(values + buffer * KEYS * S, width, [&](unsigned i) { return key(heads + kv_heads + kv_head, i); });
  };

  unsigned own = warp_of_thread() * 16, t = lane_of_thread() % 4;
  bool busy = own < QUERIES && first + own < items;
  unsigned depth[2];
  float shift[2], offset[2], dq[D / 8][4] = {};
  for (int half = 0; half < 2; half++) {
    unsigned i = own + lane_of_thread() / 4 + 8 * half;
    depth[half] = tile.depth + (first + i) % tile.rows;
    size_t at = size_t(row_of(i)) * heads + head_of(i);
    shift[half] = first + i < items ? lse[at] * LOG2_E : 0.0f;
    offset[half] = first + i < items ? delta[at] : 0.0f;
  }
  const Scores scores(scale, cap);
  const float power = scores.unit * LOG2_E;
  unsigned buffer = 0;
  fetch(start, buffer);
  for (unsigned from = start; from < end; from += KEYS) {
    await_copies();
    __syncthreads();
    unsigned now = buffer;
    if (BUFFERS == 2 && from + KEYS < end) fetch(from + KEYS, buffer ^= 1);
    if (busy) {
      const T *key_rows = keys + now * KEYS * S, *value_rows = values + now * KEYS * S;
      float s[KEYS / 8][4] = {}, dp[KEYS / 8][4] = {};
#pragma unroll
      for (int d = 0; d < D; d += 16) {
        FragmentA<T> a, da;
        load_a(a, queries + own * S + d, S);
        load_a(da, slopes + own * S + d, S);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n += 2) {
          FragmentB<T> b[2];
          load_b_transposed(b, key_rows + n * 8 * S + d, S);
          multiply(s[n], a, b[0]);
          multiply(s[n + 1], a, b[1]);
          load_b_transposed(b, value_rows + n * 8 * S + d, S);
          multiply(dp[n], da, b[0]);
          multiply(dp[n + 1], da, b[1]);
        }
      }
      scores.bound(s);
      bool whole = from + KEYS <= tile.depth + 1 && (window == 0 || from + window >= end);
      if (!whole)
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
          for (int i = 0; i < 4; i++)
            if (!sees(depth[i / 2], from + n * 8 + 2 * t + i % 2, window)) s[n][i] = -INFINITY;
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++)
        for (int i = 0; i < 4; i++) {
          float p = power_of_2(s[n][i] * power - shift[i / 2]);
          s[n][i] = p * (dp[n][i] - offset[i / 2]) * scores.bend(s[n][i]);
        }
#pragma unroll
      for (int n = 0; n < KEYS / 8; n += 2) {
        FragmentA<T> a;
        as_a(a, s[n], s[n + 1]);
#pragma unroll
        for (int d = 0; d < D / 8; d += 2) {
          FragmentB<T> b[2];
          load_b(b, key_rows + n * 8 * S + d * 8, S);
          multiply(dq[d], a, b[0]);
          multiply(dq[d + 1], a, b[1]);
        }
      }
    }
    if (BUFFERS == 1 && from + KEYS < end) {
      __syncthreads();
      fetch(from + KEYS, buffer);
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
               const unsigned *spans, unsigned heads, unsigned kv_heads, unsigned width, unsigned window, float scale,
               float cap),
              (qkv, g, lse, delta, d_qkv, tiles, spans, heads, kv_heads, width, window, scale, cap))

// Steps of queries that see some of a tile: QUERIES items at a time of each of some readers, in their order.
template <int QUERIES> struct Readers {
  const unsigned *tiles, *readers;
  unsigned entry, end, first, items, group;
  Tile reader;

  // On to the first items of the reader `entry`; false where there is none.
  __device__ __forceinline__ bool open() {
    if (entry == end) return false;
    reader = tile_at(tiles, readers[entry]);
    first = 0;
    items = group * reader.rows;
    return true;
  }
  __device__ __forceinline__ bool next() {
    first += QUERIES;
    if (first < items) return true;
    entry++;
    return open();
  }
};

// Where a part of a tile's readers leaves its sums, if others have other readers of that tile: of dk (0) or dv (1) of a
// key-value head and row in [slots, G, 2, 64, D].
#define NO_SLOT 0xffffffffu
__device__ __forceinline__ size_t place_of(unsigned slot, unsigned kv_heads, unsigned kv_head, unsigned which,
                                           unsigned row, unsigned width) {
  return (((size_t(slot) * kv_heads + kv_head) * 2 + which) * ITEMS + row) * width;
}

// Blocks that share the columns of dk and dv of a key-value head: the sums of wide heads fit no registers.
template <int D> struct Parts {
  static constexpr int count = D <= 128 ? 1 : 2, columns = D / count;
};

// dk and dv into rows q | k | v, or where several parts share a tile into `sums`: a block for each part (x) and, for each
// key-value head and part of its columns, some rows of the tile (y). A part is (tile, first reader, end of readers,
// slot): the tile as keys, and tiles whose queries see some of it.
template <typename T, int D>
__device__ void attention_dkv(const T *qkv, const T *g, const float *lse, const float *delta, T *d_qkv, float *sums,
                              const unsigned *tiles, const unsigned *parts, const unsigned *readers, unsigned heads,
                              unsigned kv_heads, unsigned width, unsigned window, float scale, float cap) {
  constexpr int QUERIES = Steps<T, D>::backward, BUFFERS = Steps<T, D>::backward_buffers, S = Stride<T, D>::value;
  constexpr int PARTS = Parts<D>::count, C = Parts<D>::columns, KEYS = Items<T, D>::backward;
  DYNAMIC_SHARED(memory);
  SHARED(unsigned, depths, [BUFFERS][QUERIES]);
  SHARED(float, shifts, [BUFFERS][QUERIES]);
  SHARED(float, offsets, [BUFFERS][QUERIES]);
  T *keys = reinterpret_cast<T *>(memory), *values = keys + KEYS * S;
  T *queries = values + KEYS * S, *slopes = queries + BUFFERS * QUERIES * S;
  const unsigned *part = parts + 4 * size_t(blockIdx.x);
  Tile tile = tile_at(tiles, part[0]);
  unsigned slot = part[3], y = blockIdx.y / Items<T, D>::blocks, skipped = blockIdx.y % Items<T, D>::blocks * KEYS;
  if (skipped >= tile.rows) return;
  tile = Tile{tile.row + skipped, min(tile.rows - skipped, unsigned(KEYS)), tile.depth + skipped, 0, 0};
  unsigned group = heads / kv_heads, kv_head = y / PARTS, from = y % PARTS * C;
  unsigned stride = (heads + 2 * kv_heads) * width;
  auto key = [&](unsigned head, unsigned i) -> const T * {
    return i < tile.rows ? qkv + size_t(tile.row + i) * stride + head * width : nullptr;
  };
  fill_rows<D, KEYS>(keys, width, [&](unsigned i) { return key(heads + kv_head, i); });
  fill_rows<D, KEYS>(values, width, [&](unsigned i) { return key(heads + kv_heads + kv_head, i); });

  Readers<QUERIES> step = {tiles, readers, part[1], part[2], 0, 0, group, tile};
  // Fetches what `step` stands at, and says whether all of it is seen by all keys.
  auto fetch = [&](unsigned buffer) {
    unsigned first = step.first, items = step.items;
    Tile reader = step.reader;
    auto row_of = [&](unsigned i) { return reader.row + (first + i) % reader.rows; };
    auto head_of = [&](unsigned i) { return kv_head * group + (first + i) / reader.rows; };
    fill_rows<D, QUERIES>(queries + buffer * QUERIES * S, width, [&](unsigned i) -> const T * {
      return first + i < items ? qkv + size_t(row_of(i)) * stride + head_of(i) * width : nullptr;
    });
    fill_rows<D, QUERIES>(slopes + buffer * QUERIES * S, width, [&](unsigned i) -> const T * {
      return first + i < items ? g + (size_t(row_of(i)) * heads + head_of(i)) * width : nullptr;
    });
    for (unsigned i = threadIdx.x; i < QUERIES; i += blockDim.x) {
      bool there = first + i < items;
      size_t at = there ? size_t(row_of(i)) * heads + head_of(i) : 0;
      // Beyond the items no key is seen.
      depths[buffer][i] = there ? reader.depth + (first + i) % reader.rows + 1 : 0;
      copy_ahead<4>(&shifts[buffer][i], lse + at, there);
      copy_ahead<4>(&offsets[buffer][i], delta + at, there);
    }
    return first + QUERIES <= items && tile.rows == KEYS && tile.depth + KEYS <= reader.depth + 1 &&
           (window == 0 || tile.depth + window >= reader.depth + reader.rows);
  };

  unsigned own = warp_of_thread() * 16, t = lane_of_thread() % 4;
  bool busy = own < tile.rows;
  unsigned depth[2] = {tile.depth + own + lane_of_thread() / 4, tile.depth + own + lane_of_thread() / 4 + 8};
  float dk[C / 8][4] = {}, dv[C / 8][4] = {};
  const Scores scores(scale, cap);
  const float power = scores.unit * LOG2_E;
  unsigned buffer = 0;
  bool more = step.open(), whole = more && fetch(buffer);
  while (more) {
    await_copies();
    __syncthreads();
    unsigned now = buffer;
    bool all_seen = whole;
    more = step.next();
    if (BUFFERS == 2 && more) whole = fetch(buffer ^= 1);
    if (busy) {
      const T *query_rows = queries + now * QUERIES * S, *slope_rows = slopes + now * QUERIES * S;
      float s[QUERIES / 8][4] = {}, dp[QUERIES / 8][4] = {};
#pragma unroll
      for (int d = 0; d < D; d += 16) {
        FragmentA<T> a, da;
        load_a(a, keys + own * S + d, S);
        load_a(da, values + own * S + d, S);
#pragma unroll
        for (int n = 0; n < QUERIES / 8; n += 2) {
          FragmentB<T> b[2];
          load_b_transposed(b, query_rows + n * 8 * S + d, S);
          multiply(s[n], a, b[0]);
          multiply(s[n + 1], a, b[1]);
          load_b_transposed(b, slope_rows + n * 8 * S + d, S);
          multiply(dp[n], da, b[0]);
          multiply(dp[n + 1], da, b[1]);
        }
      }
      scores.bound(s);
      if (!all_seen)
#pragma unroll
        for (int n = 0; n < QUERIES / 8; n++)
          for (int i = 0; i < 4; i++) {
            unsigned query = depths[now][n * 8 + 2 * t + i % 2];
            if (query == 0 || !sees(query - 1, depth[i / 2], window)) s[n][i] = -INFINITY;
          }
#pragma unroll
      for (int n = 0; n < QUERIES / 8; n++)
        for (int i = 0; i < 4; i++) {
          unsigned query = n * 8 + 2 * t + i % 2;
          float p = power_of_2(s[n][i] * power - shifts[now][query] * LOG2_E);
          dp[n][i] = p * (dp[n][i] - offsets[now][query]) * scores.bend(s[n][i]);
          s[n][i] = p;
        }
#pragma unroll
      for (int n = 0; n < QUERIES / 8; n += 2) {
        FragmentA<T> a, da;
        as_a(a, s[n], s[n + 1]);
        as_a(da, dp[n], dp[n + 1]);
#pragma unroll
        for (int d = 0; d < C / 8; d += 2) {
          FragmentB<T> b[2];
          load_b(b, slope_rows + n * 8 * S + from + d * 8, S);
          multiply(dv[d], a, b[0]);
          multiply(dv[d + 1], a, b[1]);
          load_b(b, query_rows + n * 8 * S + from + d * 8, S);
          multiply(dk[d], da, b[0]);
          multiply(dk[d + 1], da, b[1]);
        }
      }
    }
    if (BUFFERS == 1 && more) {
      __syncthreads();
      whole = fetch(buffer);
    }
  }
  if (!busy) return;
  float factor[2] = {1.0f, 1.0f};
  unsigned columns = width > from ? width - from : 0;
  if (slot == NO_SLOT) {
    auto row = [&](unsigned head, unsigned i) -> T * {
      unsigned at = own + i;
      return at < tile.rows ? d_qkv + size_t(tile.row + at) * stride + head * width + from : nullptr;
    };
    write_rows<C, T>(dk, factor, columns, [&](unsigned i) { return row(heads + kv_head, i); });
    write_rows<C, T>(dv, factor, columns, [&](unsigned i) { return row(heads + kv_heads + kv_head, i); });
  } else {
    auto row = [&](unsigned which, unsigned i) -> float * {
      unsigned at = own + i;
      return at < tile.rows ? sums + place_of(slot, kv_heads, kv_head, which, skipped + at, width) + from : nullptr;
    };
    write_rows<C, float>(dk, factor, columns, [&](unsigned i) { return row(0, i); });
    write_rows<C, float>(dv, factor, columns, [&](unsigned i) { return row(1, i); });
  }
}
EXPORT_WIDTHS(attention_dkv,
              (const T *qkv, const T *g, const float *lse, const float *delta, T *d_qkv, float *sums,
               const unsigned *tiles, const unsigned *parts, const unsigned *readers, unsigned heads, unsigned kv_heads,
               unsigned width, unsigned window, float scale, float cap),
              (qkv, g, lse, delta, d_qkv, sums, tiles, parts, readers, heads, kv_heads, width, window, scale, cap))

// dk and dv of tiles that several parts share: a block for each (x) and key-value head (y) adds what they left in the
// order of their slots. `shared` has (tile, first slot, end of slots) of each. The width is even.
template <typename T>
__device__ void attention_dkv_sums(const float *sums, T *d_qkv, const unsigned *tiles, const unsigned *shared,
                                   unsigned heads, unsigned kv_heads, unsigned width) {
  const unsigned *of = shared + 3 * size_t(blockIdx.x);
  Tile tile = tile_at(tiles, of[0]);
  unsigned pairs = width / 2, kv_head = blockIdx.y;
  for (unsigned i = threadIdx.x; i < 2 * tile.rows * pairs; i += blockDim.x) {
    unsigned which = i / (tile.rows * pairs), row = i / pairs % tile.rows, column = i % pairs * 2;
    float sum[2] = {0.0f, 0.0f};
    for (unsigned slot = of[1]; slot < of[2]; slot++) {
      Pack<float, 2> part = load<2>(sums + place_of(slot, kv_heads, kv_head, which, row, width) + column);
      sum[0] += part.x[0];
      sum[1] += part.x[1];
    }
    unsigned head = heads + which * kv_heads + kv_head;
    Pack<T, 2> pair;
    for (int j = 0; j < 2; j++) pair.x[j] = narrow<T>(sum[j]);
    store<2>(d_qkv + (size_t(tile.row + row) * (heads + 2 * kv_heads) + head) * width + column, pair);
  }
}
EXPORT(attention_dkv_sums, 256,
       (const float *sums, T *d_qkv, const unsigned *tiles, const unsigned *shared, unsigned heads, unsigned kv_heads,
        unsigned width),
       (sums, d_qkv, tiles, shared, heads, kv_heads, width))
