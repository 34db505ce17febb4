// RMSNorm of all queries together and of all keys together in rows q | k | v, which have `queries`, `keys` and `keys`
// columns. A block for each row (x) and part (y); values pass unchanged.
#include "norm.cuh"

// The part of a block.
struct Columns {
  size_t start;
  unsigned width;
  bool values;
};
__device__ __forceinline__ Columns columns_of_block(unsigned queries, unsigned keys) {
  unsigned part = blockIdx.y, first = part == 0 ? 0 : queries + (part - 1) * keys;
  return Columns{size_t(blockIdx.x) * (queries + 2 * keys) + first, part == 0 ? queries : keys, part == 2};
}

template <int N, typename T> __device__ void copy_row(const T *x, T *y, unsigned width) {
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) store<N>(y + i, load<N>(x + i));
}

template <int N, typename T>
__device__ void norm_columns(const T *x, Weights<T> w, T *y, const Columns &columns, float eps) {
  x += columns.start, y += columns.start;
  if (columns.values) return copy_row<N>(x, y, columns.width);
  float r = 1.0f / sqrtf(squares<N>(x, columns.width) / columns.width + eps);
  scale_row<N>(x, w, r, y, columns.width);
}
template <typename T>
__device__ void whole_norm(const T *x, Weights<T> query, Weights<T> key, T *y, unsigned queries, unsigned keys,
                           float eps) {
  Columns columns = columns_of_block(queries, keys);
  Weights<T> w = blockIdx.y == 0 ? query : key;
  if (packed(queries, x, y) && packed(keys, w.same, w.wide))
    norm_columns<8>(x, w, y, columns, eps);
  else
    norm_columns<1>(x, w, y, columns, eps);
}
EXPORT(whole_norm, 128,
       (const T *x, const T *query, const float *wide_query, const T *key, const float *wide_key, T *y,
        unsigned queries, unsigned keys, float eps),
       (x, Weights<T>{query, wide_query}, Weights<T>{key, wide_key}, y, queries, keys, eps))

template <int N, typename T>
__device__ void norm_columns_backward(const T *x, Weights<T> w, const T *g, T *dx, float *inverse,
                                      const Columns &columns, float eps) {
  x += columns.start, g += columns.start, dx += columns.start;
  if (columns.values) return copy_row<N>(g, dx, columns.width);
  float r = 1.0f / sqrtf(squares<N>(x, columns.width) / columns.width + eps);
  if (threadIdx.x == 0) inverse[2 * size_t(blockIdx.x) + blockIdx.y] = r;
  const T *onto = nullptr;
  row_backward<N>(x, w, r, g, onto, dx, columns.width);
}

// The gradient by x, the input of `whole_norm`, given that by its output; and 1 / rms of queries and keys [T, 2].
template <typename T>
__device__ void whole_norm_backward(const T *x, Weights<T> query, Weights<T> key, const T *g, T *dx, float *inverse,
                                    unsigned queries, unsigned keys, float eps) {
  Columns columns = columns_of_block(queries, keys);
  Weights<T> w = blockIdx.y == 0 ? query : key;
  if (packed(queries, x, g, dx) && packed(keys, w.same, w.wide))
    norm_columns_backward<8>(x, w, g, dx, inverse, columns, eps);
  else
    norm_columns_backward<1>(x, w, g, dx, inverse, columns, eps);
}
EXPORT(whole_norm_backward, 128,
       (const T *x, const T *query, const float *wide_query, const T *key, const float *wide_key, const T *g, T *dx,
        float *inverse, unsigned queries, unsigned keys, float eps),
       (x, Weights<T>{query, wide_query}, Weights<T>{key, wide_key}, g, dx, inverse, queries, keys, eps))

// For each chunk of rows (y), what it adds to the gradients of the weights: partial [chunks, queries + keys].
template <typename T>
__device__ void whole_norm_weight(const T *x, const float *inverse, const T *g, float *partial, unsigned rows,
                                  unsigned queries, unsigned keys, unsigned chunk, unsigned pack) {
  unsigned width = queries + keys, stride = width + keys;
  auto r_of = [&](unsigned row, unsigned column) { return inverse[2 * size_t(row) + (column < queries ? 0 : 1)]; };
  if (pack == 8 && packed(queries, x, g) && packed(keys))
    norm_weight_columns<8>(x, g, partial, rows, width, stride, chunk, r_of);
  else
    norm_weight_columns<1>(x, g, partial, rows, width, stride, chunk, r_of);
}
EXPORT(whole_norm_weight, 128,
       (const T *x, const float *inverse, const T *g, float *partial, unsigned rows, unsigned queries, unsigned keys,
        unsigned chunk, unsigned pack),
       (x, inverse, g, partial, rows, queries, keys, chunk, pack))
