// RMSNorm over rows of H numbers: y = w x r, r = 1 / sqrt(mean(x^2) + eps). A block for each row.
#include "common.cuh"

template <int N, typename T> __device__ void scale_row(const T *x, Weights<T> w, float r, T *y, unsigned width) {
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> numbers = load<N>(x + i);
    Pack<float, N> weights = w.template at<N>(i);
    for (int j = 0; j < N; j++) numbers.x[j] = narrow<T>(widen(numbers.x[j]) * r * weights.x[j]);
    store<N>(y + i, numbers);
  }
}

template <int N, typename T> __device__ float squares(const T *x, unsigned width) {
  float sum = 0;
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> numbers = load<N>(x + i);
    for (int j = 0; j < N; j++) sum += widen(numbers.x[j]) * widen(numbers.x[j]);
  }
  return block_sum(sum);
}

template <typename T>
__device__ void norm_forward(const T *x, Weights<T> w, T *y, float *inverse, unsigned width, float eps) {
  size_t row = size_t(blockIdx.x) * width;
  bool packs = packed(width, x, w.same, w.wide, y);
  float sum = packs ? squares<8>(x + row, width) : squares<1>(x + row, width);
  float r = 1.0f / sqrtf(sum / width + eps);
  if (threadIdx.x == 0) inverse[blockIdx.x] = r;
  if (packs)
    scale_row<8>(x + row, w, r, y + row, width);
  else
    scale_row<1>(x + row, w, r, y + row, width);
}
EXPORT(norm_forward, 128,
       (const T *x, const T *w, const float *wide, T *y, float *inverse, unsigned width, float eps),
       (x, Weights<T>{w, wide}, y, inverse, width, eps))

template <typename T>
__device__ void norm_again(const T *x, Weights<T> w, const float *inverse, T *y, unsigned width) {
  size_t row = size_t(blockIdx.x) * width;
  if (packed(width, x, w.same, w.wide, y))
    scale_row<8>(x + row, w, inverse[blockIdx.x], y + row, width);
  else
    scale_row<1>(x + row, w, inverse[blockIdx.x], y + row, width);
}
EXPORT(norm_again, 128, (const T *x, const T *w, const float *wide, const float *inverse, T *y, unsigned width),
       (x, Weights<T>{w, wide}, inverse, y, width))

template <int N, typename T>
__device__ void row_backward(const T *x, Weights<T> w, float r, const T *g, const T *onto, T *dx, unsigned width) {
  float sum = 0;
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> a = load<N>(x + i), c = load<N>(g + i);
    Pack<float, N> b = w.template at<N>(i);
    for (int j = 0; j < N; j++) sum += widen(a.x[j]) * b.x[j] * widen(c.x[j]);
  }
  float mean = block_sum(sum) / width * r * r;
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> a = load<N>(x + i), c = load<N>(g + i), d;
    Pack<float, N> b = w.template at<N>(i);
    if (onto != nullptr) d = load<N>(onto + i);
    for (int j = 0; j < N; j++) {
      float change = r * (widen(c.x[j]) * b.x[j] - widen(a.x[j]) * mean);
      d.x[j] = narrow<T>(onto != nullptr ? widen(d.x[j]) + change : change);
    }
    store<N>(dx + i, d);
  }
}

// dx = onto + r (g w - x r^2 mean(g w x)); `onto` may be null.
template <typename T>
__device__ void norm_backward(const T *x, Weights<T> w, const float *inverse, const T *g, const T *onto, T *dx,
                              unsigned width) {
  size_t row = size_t(blockIdx.x) * width;
  const T *base = onto == nullptr ? nullptr : onto + row;
  if (packed(width, x, w.same, w.wide, g, onto, dx))
    row_backward<8>(x + row, w, inverse[blockIdx.x], g + row, base, dx + row, width);
  else
    row_backward<1>(x + row, w, inverse[blockIdx.x], g + row, base, dx + row, width);
}
EXPORT(norm_backward, 128,
       (const T *x, const T *w, const float *wide, const float *inverse, const T *g, const T *onto, T *dx,
        unsigned width),
       (x, Weights<T>{w, wide}, inverse, g, onto, dx, width))

// For each chunk of rows (y), the sum of g x r by columns: partial [chunks, H]. A thread for N columns.
template <int N, typename T>
__device__ void norm_weight_columns(const T *x, const float *inverse, const T *g, float *partial, unsigned rows,
                                    unsigned width, unsigned chunk) {
  unsigned column = (blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  unsigned first = blockIdx.y * chunk, end = min(rows, first + chunk);
  Pack<float, N> sum;
  for (int j = 0; j < N; j++) sum.x[j] = 0.0f;
#pragma unroll 4
  for (unsigned row = first; row < end; row++) {
    size_t at = size_t(row) * width + column;
    Pack<T, N> gs = load<N>(g + at), xs = load<N>(x + at);
    float r = inverse[row];
    for (int j = 0; j < N; j++) sum.x[j] += widen(gs.x[j]) * widen(xs.x[j]) * r;
  }
  for (int j = 0; j < N; j++) partial[size_t(blockIdx.y) * width + column + j] = sum.x[j];
}
template <typename T>
__device__ void norm_weight(const T *x, const float *inverse, const T *g, float *partial, unsigned rows, unsigned width,
                            unsigned chunk, unsigned pack) {
  if (pack == 8 && packed(width, x, g))
    norm_weight_columns<8>(x, inverse, g, partial, rows, width, chunk);
  else
    norm_weight_columns<1>(x, inverse, g, partial, rows, width, chunk);
}
EXPORT(norm_weight, 128,
       (const T *x, const float *inverse, const T *g, float *partial, unsigned rows, unsigned width, unsigned chunk,
        unsigned pack),
       (x, inverse, g, partial, rows, width, chunk, pack))
