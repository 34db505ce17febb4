// Numbers one by one. A thread takes 8 of them.
#include "common.cuh"

// y[i] = of(i) for the numbers of a thread. `pack` gives 8 from a place on where all addresses fit packs.
template <typename T, typename Pack8, typename One>
__device__ __forceinline__ void each(T *y, unsigned count, bool packs, Pack8 pack, One one) {
  unsigned first = (blockIdx.x * blockDim.x + threadIdx.x) * 8;
  if (packs && first + 8 <= count) {
    store<8>(y + first, pack(first));
    return;
  }
  for (unsigned i = first; i < min(count, first + 8); i++) y[i] = one(i);
}

// y = a + b.
template <typename T> __device__ void add_numbers(const T *a, const T *b, T *y, unsigned count) {
  each(
      y, count, packed(8, a, b, y),
      [&](unsigned i) {
        Pack<T, 8> x = load<8>(a + i), z = load<8>(b + i);
        for (int j = 0; j < 8; j++) x.x[j] = narrow<T>(widen(x.x[j]) + widen(z.x[j]));
        return x;
      },
      [&](unsigned i) { return narrow<T>(widen(a[i]) + widen(b[i])); });
}
EXPORT(add_numbers, 256, (const T *a, const T *b, T *y, unsigned count), (a, b, y, count))

// y = factor x.
template <typename T> __device__ void scale_numbers(const T *x, T *y, unsigned count, float factor) {
  each(
      y, count, packed(8, x, y),
      [&](unsigned i) {
        Pack<T, 8> z = load<8>(x + i);
        for (int j = 0; j < 8; j++) z.x[j] = narrow<T>(widen(z.x[j]) * factor);
        return z;
      },
      [&](unsigned i) { return narrow<T>(widen(x[i]) * factor); });
}
EXPORT(scale_numbers, 256, (const T *x, T *y, unsigned count, float factor), (x, y, count, factor))

// y = 1 + x in f32, by a thread for each.
template <typename T> __device__ void plus_one(const T *x, float *y, unsigned count) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) y[i] = 1.0f + widen(x[i]);
}
EXPORT(plus_one, 256, (const T *x, float *y, unsigned count), (x, y, count))

// x = cap tanh(x / cap), in place.
__device__ void bound_numbers(float *x, unsigned count, float cap) {
  auto one = [&](unsigned i) { return cap * tanhf(x[i] / cap); };
  each(
      x, count, packed(8, x),
      [&](unsigned i) {
        Pack<float, 8> z;
        for (int j = 0; j < 8; j++) z.x[j] = one(i + j);
        return z;
      },
      one);
}
EXPORT_AS(cap_numbers, float, 256, (float *x, unsigned count, float cap), bound_numbers(x, count, cap))
