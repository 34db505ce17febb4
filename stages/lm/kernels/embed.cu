// Rows of a table [V, H].
#include "common.cuh"

// y[t] = table[ids[t]], a block for each row.
template <typename T> __device__ void gather_rows(const T *table, const unsigned *ids, T *y, unsigned width) {
  const T *from = table + size_t(ids[blockIdx.x]) * width;
  T *to = y + size_t(blockIdx.x) * width;
  if (packed(width, table, y))
    for (unsigned i = threadIdx.x * 8; i < width; i += blockDim.x * 8) store<8>(to + i, load<8>(from + i));
  else
    for (unsigned i = threadIdx.x; i < width; i += blockDim.x) to[i] = from[i];
}
EXPORT(gather_rows, 128, (const T *table, const unsigned *ids, T *y, unsigned width), (table, ids, y, width))

// table[rows[i]] = source[i], of whose `stride` columns those from `column` on are taken; a block for each row. A row of
// all bits is none.
template <typename T>
__device__ void put_rows(T *table, const unsigned *rows, const T *source, unsigned width, unsigned stride,
                         unsigned column) {
  const T *from = source + size_t(blockIdx.x) * stride + column;
  T *to = table + size_t(rows[blockIdx.x]) * width;
  if (rows[blockIdx.x] == ~0u) return;
  for (unsigned i = threadIdx.x; i < width; i += blockDim.x) to[i] = from[i];
}
EXPORT(put_rows, 128,
       (T * table, const unsigned *rows, const T *source, unsigned width, unsigned stride, unsigned column),
       (table, rows, source, width, stride, column))

// y[t] = dx[places[t] - 1], or 0 where places[t] is 0; a block for each row.
template <typename T> __device__ void spread_rows(const T *dx, const unsigned *places, T *y, unsigned width) {
  unsigned place = places[blockIdx.x];
  T *to = y + size_t(blockIdx.x) * width;
  for (unsigned i = threadIdx.x; i < width; i += blockDim.x)
    to[i] = place == 0 ? narrow<T>(0.0f) : dx[size_t(place - 1) * width + i];
}
EXPORT(spread_rows, 128, (const T *dx, const unsigned *places, T *y, unsigned width), (dx, places, y, width))

// gradient[id] += the rows of dx that read it, in their order. A block (x) for each distinct id: `runs` holds for each
// its id and where its rows start in `order`, and ends with (0, end). y cuts the columns.
template <typename T>
__device__ void embed_backward(const T *dx, const unsigned *runs, const unsigned *order, float *gradient,
                               unsigned width) {
  unsigned column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= width) return;
  const unsigned *run = runs + 2 * blockIdx.x;
  float sum = gradient[size_t(run[0]) * width + column];
  for (unsigned i = run[1]; i < run[3]; i++) sum += widen(dx[size_t(order[i]) * width + column]);
  gradient[size_t(run[0]) * width + column] = sum;
}
EXPORT(embed_backward, 128,
       (const T *dx, const unsigned *runs, const unsigned *order, float *gradient, unsigned width),
       (dx, runs, order, gradient, width))
