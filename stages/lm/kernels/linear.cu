// What matrix products leave to do in linear layers: what they add to, and sums by columns.
#include "common.cuh"

// What a product is added to: residual + bias, each of which may be null. A block for each row.
template <int N, typename T> __device__ void base_row(const T *residual, const T *bias, T *y, unsigned width) {
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> sum, more;
    for (int j = 0; j < N; j++) sum.x[j] = narrow<T>(0.0f);
    if (residual != nullptr) sum = load<N>(residual + i);
    if (bias != nullptr) {
      more = load<N>(bias + i);
      for (int j = 0; j < N; j++) sum.x[j] = narrow<T>(widen(sum.x[j]) + widen(more.x[j]));
    }
    store<N>(y + i, sum);
  }
}
template <typename T> __device__ void base_rows(const T *residual, const T *bias, T *y, unsigned width) {
  size_t row = size_t(blockIdx.x) * width;
  const T *base = residual == nullptr ? nullptr : residual + row;
  if (packed(width, residual, bias, y))
    base_row<8>(base, bias, y + row, width);
  else
    base_row<1>(base, bias, y + row, width);
}
EXPORT(base_rows, 128, (const T *residual, const T *bias, T *y, unsigned width), (residual, bias, y, width))

// For each chunk of rows (y), the sums of columns: partial [chunks, N]. A thread for P columns.
template <int P, typename T>
__device__ void sums_of_columns(const T *x, float *partial, unsigned rows, unsigned width, unsigned chunk) {
  unsigned column = (blockIdx.x * blockDim.x + threadIdx.x) * P;
  if (column >= width) return;
  unsigned first = blockIdx.y * chunk, end = min(rows, first + chunk);
  Pack<float, P> sum;
  for (int j = 0; j < P; j++) sum.x[j] = 0.0f;
#pragma unroll 4
  for (unsigned row = first; row < end; row++) {
    Pack<T, P> numbers = load<P>(x + size_t(row) * width + column);
    for (int j = 0; j < P; j++) sum.x[j] += widen(numbers.x[j]);
  }
  for (int j = 0; j < P; j++) partial[size_t(blockIdx.y) * width + column + j] = sum.x[j];
}
template <typename T>
__device__ void column_sums(const T *x, float *partial, unsigned rows, unsigned width, unsigned chunk, unsigned pack) {
  if (pack == 8 && packed(width, x))
    sums_of_columns<8>(x, partial, rows, width, chunk);
  else
    sums_of_columns<1>(x, partial, rows, width, chunk);
}
EXPORT(column_sums, 128,
       (const T *x, float *partial, unsigned rows, unsigned width, unsigned chunk, unsigned pack),
       (x, partial, rows, width, chunk, pack))

// gradient += the rows of `partial`, which are `stride` apart, in a fixed order: a block for 32 columns, whose warps take
// rows in turn; then their sums are added in the order of warps.
__device__ void sum_partials(const float *partial, float *gradient, unsigned chunks, unsigned stride, unsigned width) {
  SHARED(float, sums, [8][32]);
  unsigned column = blockIdx.x * 32 + lane_of_thread();
  float sum = 0;
  if (column < width)
    for (unsigned chunk = warp_of_thread(); chunk < chunks; chunk += 8) sum += partial[size_t(chunk) * stride + column];
  sums[warp_of_thread()][lane_of_thread()] = sum;
  __syncthreads();
  if (warp_of_thread() != 0 || column >= width) return;
  for (int warp = 1; warp < 8; warp++) sum += sums[warp][lane_of_thread()];
  gradient[column] += sum;
}
EXPORT_AS(add_partials, float, 256,
          (const float *partial, float *gradient, unsigned chunks, unsigned stride, unsigned width),
          sum_partials(partial, gradient, chunks, stride, width))
