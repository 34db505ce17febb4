// Rotation of queries and keys in rows q | k | v [T, (A + 2 G) D], in place; values are not touched. P pairs of columns are
// turned, (i, i + P) of each head; columns from 2 P on stay as they are.
#include "common.cuh"

// N pairs of a head by the angles of its row.
template <int N, typename T>
__device__ __forceinline__ void turn_pairs(T *head, const float *cosines, const float *sines, float sign, unsigned pairs) {
  Pack<T, N> first = load<N>(head), second = load<N>(head + pairs);
  for (int j = 0; j < N; j++) {
    float a = widen(first.x[j]), b = widen(second.x[j]), c = cosines[j], s = sign * sines[j];
    first.x[j] = narrow<T>(a * c - b * s);
    second.x[j] = narrow<T>(b * c + a * s);
  }
  store<N>(head, first);
  store<N>(head + pairs, second);
}

// A thread for each `pack` pairs, 8 or 1; `turned` heads of each row are queries and keys, and rows lie `stride` apart.
// cosines and sines are [positions, P], depths [T]; `sign` -1 turns back.
template <typename T>
__device__ void rope_turn(T *qkv, const float *cosines, const float *sines, const unsigned *depths, unsigned count,
                          unsigned turned, unsigned stride, unsigned head_dim, unsigned pairs, unsigned pack,
                          float sign) {
  unsigned packs = pairs / pack, i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  unsigned column = i % packs * pack, head = i / packs % turned, row = i / packs / turned;
  size_t angles = size_t(depths[row]) * pairs + column;
  T *at = qkv + size_t(row) * stride + head * head_dim + column;
  if (pack == 8 && reinterpret_cast<uintptr_t>(qkv) % 16 == 0)
    turn_pairs<8>(at, cosines + angles, sines + angles, sign, pairs);
  else
    for (unsigned j = 0; j < pack; j++) turn_pairs<1>(at + j, cosines + angles + j, sines + angles + j, sign, pairs);
}
EXPORT(rope_turn, 256,
       (T *qkv, const float *cosines, const float *sines, const unsigned *depths, unsigned count, unsigned turned,
        unsigned stride, unsigned head_dim, unsigned pairs, unsigned pack, float sign),
       (qkv, cosines, sines, depths, count, turned, stride, head_dim, pairs, pack, sign))

// Queries that grow with their positions: those of each row times 1 + beta ln(1 + depth / context), in place, the quotient
// being whole. A block for each row; its first `width` columns are queries.
template <typename T>
__device__ void scale_queries(T *qkv, const unsigned *depths, unsigned width, unsigned stride, unsigned context,
                              float beta) {
  unsigned times = depths[blockIdx.x] / context;
  if (times == 0) return;
  float factor = 1.0f + beta * log1pf(float(times));
  T *row = qkv + size_t(blockIdx.x) * stride;
  for (unsigned i = threadIdx.x; i < width; i += blockDim.x) row[i] = narrow<T>(widen(row[i]) * factor);
}
EXPORT(scale_queries, 128,
       (T *qkv, const unsigned *depths, unsigned width, unsigned stride, unsigned context, float beta),
       (qkv, depths, width, stride, context, beta))

// Where the model has a norm of each head, all of which is turned: a warp for each; lane l has the pairs (i, i + D/2) for i = l, l + 32, ...

// Pairs that a lane may have: heads are at most 256 wide.
#define PAIRS 4

struct Pairs {
  float first[PAIRS], second[PAIRS];
};

template <typename T> __device__ __forceinline__ Pairs load_pairs(const T *head, unsigned half) {
  Pairs x;
  for (int j = 0; j < PAIRS; j++) {
    unsigned i = lane_of_thread() + 32 * j;
    x.first[j] = i < half ? widen(head[i]) : 0.0f;
    x.second[j] = i < half ? widen(head[half + i]) : 0.0f;
  }
  return x;
}

template <typename T> __device__ __forceinline__ Pairs load_pairs(Weights<T> weights, unsigned half) {
  return weights.same != nullptr ? load_pairs(weights.same, half) : load_pairs(weights.wide, half);
}

template <typename T> __device__ __forceinline__ void store_pairs(const Pairs &x, T *head, unsigned half) {
  for (int j = 0; j < PAIRS; j++) {
    unsigned i = lane_of_thread() + 32 * j;
    if (i >= half) continue;
    head[i] = narrow<T>(x.first[j]);
    head[half + i] = narrow<T>(x.second[j]);
  }
}

__device__ __forceinline__ float dot_pairs(const Pairs &a, const Pairs &b) {
  float sum = 0;
  for (int j = 0; j < PAIRS; j++) sum += a.first[j] * b.first[j] + a.second[j] * b.second[j];
  return warp_sum(sum);
}

// By the angles of a position; `sign` -1 turns back.
__device__ __forceinline__ void rotate(Pairs &x, const float *cosines, const float *sines, float sign, unsigned half) {
  for (int j = 0; j < PAIRS; j++) {
    unsigned i = lane_of_thread() + 32 * j;
    if (i >= half) continue;
    float a = x.first[j], b = x.second[j], c = cosines[i], s = sign * sines[i];
    x.first[j] = a * c - b * s;
    x.second[j] = b * c + a * s;
  }
}

// The norm of each head, and its rotation. `query` and `key` are the norms' weights [D].
template <typename T>
__device__ void rope_norm(T *qkv, Weights<T> query, Weights<T> key, const float *cosines, const float *sines,
                          const unsigned *depths, unsigned rows, unsigned heads, unsigned kv_heads, unsigned head_dim,
                          float eps) {
  unsigned turned = heads + kv_heads, half = head_dim / 2;
  unsigned item = blockIdx.x * (blockDim.x / 32) + warp_of_thread(), row = item / turned, head = item % turned;
  if (row >= rows) return;
  T *at = qkv + (size_t(row) * (turned + kv_heads) + head) * head_dim;
  Pairs x = load_pairs(at, half), w = load_pairs(head < heads ? query : key, half);
  float r = 1.0f / sqrtf(dot_pairs(x, x) / head_dim + eps);
  for (int j = 0; j < PAIRS; j++) {
    x.first[j] = x.first[j] * r * w.first[j];
    x.second[j] = x.second[j] * r * w.second[j];
  }
  size_t angles = size_t(depths[row]) * half;
  rotate(x, cosines + angles, sines + angles, 1.0f, half);
  store_pairs(x, at, half);
}
EXPORT(rope_norm, 256,
       (T *qkv, const T *query, const float *wide_query, const T *key, const float *wide_key, const float *cosines,
        const float *sines, const unsigned *depths, unsigned rows, unsigned heads, unsigned kv_heads, unsigned head_dim,
        float eps),
       (qkv, Weights<T>{query, wide_query}, Weights<T>{key, wide_key}, cosines, sines, depths, rows, heads, kv_heads,
        head_dim, eps))

// The gradient by what went into `rope_norm`, in place; a block for each chunk of rows, its warps taking heads in turn.
// `before` are the rows before norm and rotation. partial [blocks, 2, D] gets what the chunk adds to the gradients of the
// norms' weights.
template <typename T>
__device__ void rope_norm_backward(T *g, const T *before, Weights<T> query, Weights<T> key, const float *cosines,
                                   const float *sines, const unsigned *depths, float *partial, unsigned rows,
                                   unsigned heads, unsigned kv_heads, unsigned head_dim, float eps, unsigned chunk) {
  DYNAMIC_SHARED(memory);
  float *sums = reinterpret_cast<float *>(memory); // [warps, 2, D]
  unsigned turned = heads + kv_heads, half = head_dim / 2, warps = blockDim.x / 32;
  unsigned first = blockIdx.x * chunk, end = min(rows, first + chunk);
  Pairs dw[2];
  for (int j = 0; j < PAIRS; j++)
    for (int part = 0; part < 2; part++) dw[part].first[j] = dw[part].second[j] = 0.0f;
  for (unsigned i = warp_of_thread(); i < (end - first) * turned; i += warps) {
    unsigned row = first + i / turned, head = i % turned;
    size_t at = (size_t(row) * (turned + kv_heads) + head) * head_dim;
    Pairs dy = load_pairs(g + at, half);
    size_t angles = size_t(depths[row]) * half;
    rotate(dy, cosines + angles, sines + angles, -1.0f, half);
    Pairs x = load_pairs(before + at, half), w = load_pairs(head < heads ? query : key, half);
    float r = 1.0f / sqrtf(dot_pairs(x, x) / head_dim + eps);
    for (int j = 0; j < PAIRS; j++) {
      float a = dy.first[j] * x.first[j] * r, b = dy.second[j] * x.second[j] * r;
      dw[0].first[j] += head < heads ? a : 0.0f;
      dw[0].second[j] += head < heads ? b : 0.0f;
      dw[1].first[j] += head < heads ? 0.0f : a;
      dw[1].second[j] += head < heads ? 0.0f : b;
      dy.first[j] *= w.first[j];
      dy.second[j] *= w.second[j];
    }
    float mean = dot_pairs(dy, x) / head_dim * r * r;
    for (int j = 0; j < PAIRS; j++) {
      dy.first[j] = r * (dy.first[j] - x.first[j] * mean);
      dy.second[j] = r * (dy.second[j] - x.second[j] * mean);
    }
    store_pairs(dy, g + at, half);
  }
  for (int part = 0; part < 2; part++)
    store_pairs(dw[part], sums + (warp_of_thread() * 2 + part) * head_dim, half);
  __syncthreads();
  for (unsigned i = threadIdx.x; i < 2 * head_dim; i += blockDim.x) {
    float sum = 0;
    for (unsigned warp = 0; warp < warps; warp++) sum += sums[warp * 2 * head_dim + i];
    partial[size_t(blockIdx.x) * 2 * head_dim + i] = sum;
  }
}
EXPORT(rope_norm_backward, 256,
       (T *g, const T *before, const T *query, const float *wide_query, const T *key, const float *wide_key,
        const float *cosines, const float *sines, const unsigned *depths, float *partial, unsigned rows, unsigned heads,
        unsigned kv_heads, unsigned head_dim, float eps, unsigned chunk),
       (g, before, Weights<T>{query, wide_query}, Weights<T>{key, wide_key}, cosines, sines, depths, partial, rows,
        heads, kv_heads, head_dim, eps, chunk))
