// What the kernels of attention share.
//
// A tile is up to 64 rows of one segment of a forest. Along its path depths run without a gap, so that a key is named by
// its depth: `tiles` holds for each tile its first row, rows, first depth, and the range of its `spans`; `spans` holds
// (first row, first depth) of the segments on the path, from the root down.
//
// The query heads that share a key-value head are taken together: item m of a tile of n rows is row m % n of the
// group's head m / n. So a block multiplies full matrices even where tiles are short.
#pragma once
#include "tile.cuh"

#define ITEMS 64
#define ATTENTION_THREADS 128
#define LOG2_E 1.4426950408889634f

// Queries, or rows of a tile as keys, of a block of the backward: 64, or 32 of wide heads in f32, whose rows would take
// more than the 99 KiB of shared memory that the smallest GPUs have.
template <typename T, int D> struct Items {
  static constexpr int backward = sizeof(T) == 4 && D > 128 ? 32 : ITEMS;
  // Blocks for what is 64 else.
  static constexpr int blocks = ITEMS / backward;
};

// Rows that pass by in shared memory at a time, and in how many buffers. With two, rows arrive while those before them
// are computed with.
template <typename T, int D> struct Steps {
  static constexpr int forward = D > 128 ? 16 : sizeof(T) == 4 ? 32 : 64;
  static constexpr int backward = sizeof(T) == 4 ? 16 : D <= 64 ? 64 : D <= 128 ? 32 : 16;
  static constexpr int forward_buffers = sizeof(T) == 2 ? 2 : 1;
  // Two would be more than the 99 KiB of the smallest GPUs.
  static constexpr int backward_buffers = sizeof(T) == 2 && D <= 128 ? 2 : 1;
};

// The form of scores: scale q k, or where `cap` is not 0 cap tanh(scale q k / cap). A score is kept as s, so that the true
// one is s times `unit`.
struct Scores {
  float unit, squeeze, slope;

  __device__ __forceinline__ Scores(float scale, float cap)
      : unit(cap == 0.0f ? scale : cap), squeeze(cap == 0.0f ? 0.0f : scale / cap), slope(scale) {}

  // Bounds N fragments of products q k.
  template <int N> __device__ __forceinline__ void bound(float (&s)[N][4]) const {
    if (squeeze == 0.0f) return;
#pragma unroll
    for (int n = 0; n < N; n++)
      for (int i = 0; i < 4; i++) s[n][i] = tanhf(s[n][i] * squeeze);
  }
  // The derivative of a true score by q k; any number for keys that are not seen.
  __device__ __forceinline__ float bend(float s) const {
    return squeeze == 0.0f ? slope : slope * (1.0f - fminf(s * s, 1.0f));
  }
};

struct Tile {
  unsigned row, rows, depth, first_span, end_span;
};

__device__ __forceinline__ Tile tile_at(const unsigned *tiles, unsigned i) {
  const unsigned *t = tiles + 5 * size_t(i);
  return Tile{t[0], t[1], t[2], t[3], t[4]};
}

// The segments on a tile's path: (first row, first depth) of each.
struct Path {
  const unsigned *spans;
  unsigned count;
};

// Segments that are kept in shared memory; longer paths are read where they are.
#define NEAR_SPANS 32

// The path of a tile; `near` is shared memory. All threads of a block call it.
__device__ __forceinline__ Path path_of(const Tile &tile, const unsigned *spans, unsigned (&near)[2 * NEAR_SPANS]) {
  unsigned count = tile.end_span - tile.first_span;
  const unsigned *all = spans + 2 * size_t(tile.first_span);
  if (count > NEAR_SPANS) return Path{all, count};
  for (unsigned i = threadIdx.x; i < 2 * count; i += blockDim.x) near[i] = all[i];
  __syncthreads();
  return Path{near, count};
}

// The row at a depth of a path.
__device__ __forceinline__ unsigned row_at(const Path &path, unsigned depth) {
  unsigned span = 0;
  while (span + 1 < path.count && path.spans[2 * (span + 1) + 1] <= depth) span++;
  return path.spans[2 * span] + depth - path.spans[2 * span + 1];
}

// Whether a query sees a key, by their depths; window 0 is none.
__device__ __forceinline__ bool sees(unsigned query, unsigned key, unsigned window) {
  return key <= query && (window == 0 || key + window > query);
}

// Between rows of D numbers in shared memory: 8 more keep the lanes of a warp on different banks. Wide heads in f32 have
// room for 4.
template <typename T, int D> struct Stride {
  static constexpr int value = D + (sizeof(T) == 4 && D > 128 ? 4 : 8);
};

// Fills ROWS rows of shared memory, D columns each, from where `row(i)` points; 0 where that is null, and beyond the
// `width` columns there are. The numbers arrive by `await_copies` and a barrier.
template <int D, int ROWS, typename T, typename Row>
__device__ __forceinline__ void fill_rows(T *to, unsigned width, Row row) {
  constexpr int N = 16 / sizeof(T), PACKS = D / N;
#pragma unroll
  for (unsigned j = 0; j < (ROWS * PACKS + ATTENTION_THREADS - 1) / ATTENTION_THREADS; j++) {
    unsigned i = threadIdx.x + j * ATTENTION_THREADS, r = i / PACKS, column = i % PACKS * N;
    if (ROWS * PACKS % ATTENTION_THREADS != 0 && i >= ROWS * PACKS) break;
    const T *from = row(r);
    T *place = to + r * Stride<T, D>::value + column;
    if (width % N == 0 && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      bool there = from != nullptr && column < width;
      copy_ahead<16>(place, there ? from + column : from, there);
    } else {
      Pack<T, N> numbers;
      for (int k = 0; k < N; k++)
        numbers.x[k] = from != nullptr && column + k < width ? from[column + k] : narrow<T>(0.0f);
      store<N>(place, numbers);
    }
  }
}

// Writes 16 x D results of a warp, times `factor` of each of the lane's two rows, to where `row(i)` points. The
// width is even.
template <int D, typename T, typename Row>
__device__ __forceinline__ void write_rows(const float (&c)[D / 8][4], const float (&factor)[2], unsigned width, Row row) {
  for (int half = 0; half < 2; half++) {
    T *to = row(lane_of_thread() / 4 + 8 * half);
    if (to == nullptr) continue;
    for (int n = 0; n < D / 8; n++) {
      unsigned column = n * 8 + lane_of_thread() % 4 * 2;
      if (column >= width) continue;
      Pack<T, 2> pair;
      for (int j = 0; j < 2; j++) pair.x[j] = narrow<T>(c[n][2 * half + j] * factor[half]);
      store<2>(to + column, pair);
    }
  }
}

// The kernel for heads of up to 32, 64, 96, 128 and 256 columns: NAME_f32_32 ... NAME_bf16_256.
#define EXPORT_WIDTH(name, width, params, args)                                                                       \
  EXPORT_AS(name##_f32_##width, float, ATTENTION_THREADS, params, name<float COMMA width> args)                       \
  EXPORT_AS(name##_bf16_##width, bf16, ATTENTION_THREADS, params, name<bf16 COMMA width> args)
#define COMMA ,
#define EXPORT_WIDTHS(name, params, args)                                                                             \
  EXPORT_WIDTH(name, 32, params, args)                                                                                \
  EXPORT_WIDTH(name, 64, params, args)                                                                                \
  EXPORT_WIDTH(name, 96, params, args)                                                                                \
  EXPORT_WIDTH(name, 128, params, args)                                                                               \
  EXPORT_WIDTH(name, 256, params, args)
