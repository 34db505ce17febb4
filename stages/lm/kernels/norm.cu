// RMSNorm over rows of H numbers: y = w x r, r = 1 / sqrt(mean(x^2) + eps). A block for each row.
#include "norm.cuh"

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

template <typename T>
__device__ void norm_weight(const T *x, const float *inverse, const T *g, float *partial, unsigned rows, unsigned width,
                            unsigned chunk, unsigned pack) {
  auto r_of = [&](unsigned row, unsigned) { return inverse[row]; };
  if (pack == 8 && packed(width, x, g))
    norm_weight_columns<8>(x, g, partial, rows, width, width, chunk, r_of);
  else
    norm_weight_columns<1>(x, g, partial, rows, width, width, chunk, r_of);
}
EXPORT(norm_weight, 128,
       (const T *x, const float *inverse, const T *g, float *partial, unsigned rows, unsigned width, unsigned chunk,
        unsigned pack),
       (x, inverse, g, partial, rows, width, chunk, pack))
