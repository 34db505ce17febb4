// What matrix products leave to do in linear layers: what they add to, and sums by columns.
#include "common.cuh"

// What a product is added to: residual + bias, each of which may be null. A block for each row.
template <typename T> __device__ void base_rows(const T *residual, const T *bias, T *y, unsigned width) {
  size_t row = size_t(blockIdx.x) * width;
  for (unsigned i = threadIdx.x; i < width; i += blockDim.x) {
    float sum = residual == nullptr ? 0.0f : widen(residual[row + i]);
    y[row + i] = narrow<T>(bias == nullptr ? sum : sum + widen(bias[i]));
  }
}
EXPORT(base_rows, 256, (const T *residual, const T *bias, T *y, unsigned width), (residual, bias, y, width))

// For each chunk of rows (y), the sums of columns: partial [chunks, N].
template <typename T>
__device__ void column_sums(const T *x, float *partial, unsigned rows, unsigned width, unsigned chunk) {
  unsigned column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= width) return;
  unsigned first = blockIdx.y * chunk, end = min(rows, first + chunk);
  float sum = 0;
  for (unsigned row = first; row < end; row++) sum += widen(x[size_t(row) * width + column]);
  partial[size_t(blockIdx.y) * width + column] = sum;
}
EXPORT(column_sums, 128, (const T *x, float *partial, unsigned rows, unsigned width, unsigned chunk),
       (x, partial, rows, width, chunk))

// gradient += the rows of `partial`, which are `stride` apart, in their order.
__device__ void sum_partials(const float *partial, float *gradient, unsigned chunks, unsigned stride, unsigned width) {
  unsigned column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= width) return;
  float sum = 0;
  for (unsigned chunk = 0; chunk < chunks; chunk++) sum += partial[size_t(chunk) * stride + column];
  gradient[column] += sum;
}
EXPORT_AS(add_partials, float, 128,
          (const float *partial, float *gradient, unsigned chunks, unsigned stride, unsigned width),
          sum_partials(partial, gradient, chunks, stride, width))
