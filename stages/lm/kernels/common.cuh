// What all kernels share. Each runs on blocks in one dimension, whole warps of them; rows are contiguous. Numbers are
// read as f32 or bf16 (T), computed in f32 and rounded where they are stored. Sums are taken in a fixed order.
//
// The same sources are compiled for the processor by tests/emulator, with EMULATED defined.
#pragma once

#ifndef EMULATED
#include <cuda_bf16.h>
#include <stdint.h>

using bf16 = __nv_bfloat16;

#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define SHARED(type, name, dims) __shared__ type name dims
#define REGISTER(symbol, threads)

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __bfloat162float(x); }
template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) { return __float2bfloat16_rn(x); }
__device__ __forceinline__ unsigned float_bits(float x) { return __float_as_uint(x); }
#endif

// A kernel under a plain name. `params` may name the type T, `call` is its body.
#define EXPORT_AS(symbol, type, threads, params, call)                                                                \
  namespace of_##symbol {                                                                                             \
  using T = type;                                                                                                     \
  extern "C" __global__ void __launch_bounds__(threads) symbol params { call; }                                       \
  REGISTER(symbol, threads)                                                                                           \
  }

// A kernel for both types of activations: NAME_f32 and NAME_bf16.
#define EXPORT(name, threads, params, args)                                                                           \
  EXPORT_AS(name##_f32, float, threads, params, name<float> args)                                                     \
  EXPORT_AS(name##_bf16, bf16, threads, params, name<bf16> args)

#define ALL_LANES 0xffffffffu

// N numbers that are moved at once.
template <typename T, int N> struct __align__(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T x[N];
};
template <int N, typename T> __device__ __forceinline__ Pack<T, N> load(const T *from) {
  return *reinterpret_cast<const Pack<T, N> *>(from);
}
template <int N, typename T> __device__ __forceinline__ void store(T *to, const Pack<T, N> &pack) {
  *reinterpret_cast<Pack<T, N> *>(to) = pack;
}

// Weights in the type of the rows, or (where `same` is null) in f32.
template <typename T> struct Weights {
  const T *same;
  const float *wide;

  template <int N> __device__ __forceinline__ Pack<float, N> at(unsigned i) const {
    if (same == nullptr) return load<N>(wide + i);
    Pack<T, N> numbers = load<N>(same + i);
    Pack<float, N> all;
    for (int j = 0; j < N; j++) all.x[j] = widen(numbers.x[j]);
    return all;
  }
};

#ifndef EMULATED
// 16 or 4 bytes from global to shared memory beside the computation; zeros where `there` is false. They arrive by the
// next `await_copies`, after which a barrier shows them to other threads.
template <int BYTES> __device__ __forceinline__ void copy_ahead(void *to, const void *from, bool there) {
  unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to)), bytes = there ? BYTES : 0;
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(address), "l"(from), "r"(bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(address), "l"(from), "r"(bytes) : "memory");
}
__device__ __forceinline__ void await_copies() { asm volatile("cp.async.wait_all;\n" ::: "memory"); }

// 2^x: within 2 units in the last place; what would be denormal is 0.
__device__ __forceinline__ float power_of_2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}
#endif

// Whether rows of `width` numbers can be moved in packs of 8.
__device__ __forceinline__ bool packed(unsigned width) { return width % 8 == 0; }
template <typename P, typename... Rest> __device__ __forceinline__ bool packed(unsigned width, P *first, Rest... rest) {
  return reinterpret_cast<uintptr_t>(first) % 16 == 0 && packed(width, rest...);
}

__device__ __forceinline__ unsigned lane_of_thread() { return threadIdx.x % 32; }
__device__ __forceinline__ unsigned warp_of_thread() { return threadIdx.x / 32; }

template <typename N> __device__ __forceinline__ N warp_sum(N x) {
  for (int bits = 16; bits > 0; bits /= 2) x += __shfl_xor_sync(ALL_LANES, x, bits);
  return x;
}

// The sum over a block, for all of its threads.
template <typename N> __device__ __forceinline__ N block_sum(N x) {
  SHARED(N, parts, [32]);
  x = warp_sum(x);
  if (lane_of_thread() == 0) parts[warp_of_thread()] = x;
  __syncthreads();
  N sum = 0;
  for (unsigned i = 0; i < blockDim.x / 32; i++) sum += parts[i];
  __syncthreads();
  return sum;
}

__device__ __forceinline__ float block_max(float x) {
  SHARED(float, parts, [32]);
  for (int bits = 16; bits > 0; bits /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, bits));
  if (lane_of_thread() == 0) parts[warp_of_thread()] = x;
  __syncthreads();
  for (unsigned i = 0; i < blockDim.x / 32; i++) x = fmaxf(x, parts[i]);
  __syncthreads();
  return x;
}
