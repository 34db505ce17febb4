// Rows of RMSNorm: y = w x r, r = 1 / sqrt(mean(x^2) + eps), and dx = onto + r (g w - x r^2 mean(g w x)).
#pragma once
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

// For each chunk of rows (y), the sum of g x r by columns: partial [chunks, H]. A thread for N columns of rows that are
// `stride` apart; `r_of(row, column)` is their 1 / rms.
template <int N, typename T, typename R>
__device__ void norm_weight_columns(const T *x, const T *g, float *partial, unsigned rows, unsigned width,
                                    unsigned stride, unsigned chunk, R r_of) {
  unsigned column = (blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (column >= width) return;
  unsigned first = blockIdx.y * chunk, end = min(rows, first + chunk);
  Pack<float, N> sum;
  for (int j = 0; j < N; j++) sum.x[j] = 0.0f;
#pragma unroll 4
  for (unsigned row = first; row < end; row++) {
    size_t at = size_t(row) * stride + column;
    Pack<T, N> gs = load<N>(g + at), xs = load<N>(x + at);
    float r = r_of(row, column);
    for (int j = 0; j < N; j++) sum.x[j] += widen(gs.x[j]) * widen(xs.x[j]) * r;
  }
  for (int j = 0; j < N; j++) partial[size_t(blockIdx.y) * width + column + j] = sum.x[j];
}
