// Matrix products of 16 x 8 by one warp, of operands in shared memory, as tensor cores make them: in bf16 by one
// instruction, in f32 by shuffles and multiply-adds over the same layout. Sums are f32.
//
// With g = lane / 4 and t = lane % 4, a lane holds of A [16, 16] the pairs of columns from 2t and 2t + 8 of rows g and
// g + 8, of B [16, 8] the pairs of rows from 2t and 2t + 8 of column g, and of C [16, 8] the columns 2t and 2t + 1 of
// rows g and g + 8.
#pragma once
#include "common.cuh"

template <typename T> struct __align__(16) FragmentA {
  T x[8];
};
template <typename T> struct __align__(8) FragmentB {
  T x[4];
};

// A from rows `stride` apart.
__device__ __forceinline__ void load_a(FragmentA<float> &a, const float *from, int stride) {
  int g = lane_of_thread() / 4, t = lane_of_thread() % 4;
  for (int i = 0; i < 4; i++)
    *reinterpret_cast<Pack<float, 2> *>(a.x + 2 * i) = load<2>(from + (g + i % 2 * 8) * stride + 2 * t + i / 2 * 8);
}

// B from its transpose: column n of B is the row n, which lies `stride` from the next.
__device__ __forceinline__ void load_b_transposed(FragmentB<float> &b, const float *from, int stride) {
  int g = lane_of_thread() / 4, t = lane_of_thread() % 4;
  for (int i = 0; i < 2; i++)
    *reinterpret_cast<Pack<float, 2> *>(b.x + 2 * i) = load<2>(from + g * stride + 2 * t + 8 * i);
}

// B from rows `stride` apart.
__device__ __forceinline__ void load_b(FragmentB<float> &b, const float *from, int stride) {
  int g = lane_of_thread() / 4, t = lane_of_thread() % 4;
  for (int i = 0; i < 4; i++) b.x[i] = from[(2 * t + i % 2 + i / 2 * 8) * stride + g];
}

// C as the A of the next product: two neighbours of 8 columns.
template <typename T>
__device__ __forceinline__ void as_a(FragmentA<T> &a, const float (&left)[4], const float (&right)[4]) {
  for (int i = 0; i < 4; i++) {
    a.x[i] = narrow<T>(left[i]);
    a.x[4 + i] = narrow<T>(right[i]);
  }
}

// Two neighbours at once: B from its transpose for columns 0 to 7 and 8 to 15 of B, and B for two columns of 8 blocks.
__device__ __forceinline__ void load_b_transposed(FragmentB<float> (&b)[2], const float *from, int stride) {
  load_b_transposed(b[0], from, stride);
  load_b_transposed(b[1], from + 8 * stride, stride);
}
__device__ __forceinline__ void load_b(FragmentB<float> (&b)[2], const float *from, int stride) {
  load_b(b[0], from, stride);
  load_b(b[1], from + 8, stride);
}

// c += a b. A function that is called: unrolled into the loops around it, it makes 97 % of the code of all kernels, which
// takes a minute to compile and a megabyte to load.
__device__ __noinline__ float4 multiplied(float4 c, float4 a_first, float4 a_second, float4 b_all) {
  float a[8] = {a_first.x, a_first.y, a_first.z, a_first.w, a_second.x, a_second.y, a_second.z, a_second.w};
  float b[4] = {b_all.x, b_all.y, b_all.z, b_all.w};
  int lane = lane_of_thread();
#pragma unroll
  for (int k = 0; k < 16; k++) {
    int row = lane / 4 * 4 + k % 8 / 2, column = lane % 4 * 8 + k % 8 / 2, i = k / 8 * 4 + k % 2, j = k / 8 * 2 + k % 2;
    float upper = __shfl_sync(ALL_LANES, a[i], row), lower = __shfl_sync(ALL_LANES, a[i + 2], row);
    float left = __shfl_sync(ALL_LANES, b[j], column), right = __shfl_sync(ALL_LANES, b[j], column + 4);
    c.x += upper * left;
    c.y += upper * right;
    c.z += lower * left;
    c.w += lower * right;
  }
  return c;
}
__device__ __forceinline__ void multiply(float (&c)[4], const FragmentA<float> &a, const FragmentB<float> &b) {
  float4 sum = multiplied(make_float4(c[0], c[1], c[2], c[3]), make_float4(a.x[0], a.x[1], a.x[2], a.x[3]),
                          make_float4(a.x[4], a.x[5], a.x[6], a.x[7]), make_float4(b.x[0], b.x[1], b.x[2], b.x[3]));
  c[0] = sum.x, c[1] = sum.y, c[2] = sum.z, c[3] = sum.w;
}

#ifdef EMULATED
// What the instructions do, by their documentation: lanes 8 m to 8 m + 7 give the addresses of the rows of matrix m of
// 8 x 8, and each lane gets of each matrix two numbers of the row lane / 4, or of that column where it is transposed.
inline void load_matrices(bf16 *to, const bf16 *row, bool transposed) {
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0) emulator::fault("ldmatrix of an address that is no multiple of 16");
  auto rows = emulator::exchange(row);
  int g = emulator::lane() / 4, t = emulator::lane() % 4;
  for (int i = 0; i < 8; i++) {
    int major = transposed ? 2 * t + i % 2 : g, minor = transposed ? g : 2 * t + i % 2;
    memcpy(&row, rows[i / 2 * 8 + major], sizeof(row));
    to[i] = row[minor];
  }
}
inline void multiply(float (&c)[4], const FragmentA<bf16> &a, const FragmentB<bf16> &b) {
  struct Both {
    FragmentA<bf16> a;
    FragmentB<bf16> b;
  } both = {a, b}, other;
  auto slots = emulator::exchange(both);
  int lane = emulator::lane();
  for (int k = 0; k < 16; k++)
    for (int i = 0; i < 4; i++) {
      memcpy(&other, slots[lane / 4 * 4 + k % 8 / 2], sizeof(other));
      float left = widen(other.a.x[k / 8 * 4 + i / 2 * 2 + k % 2]);
      memcpy(&other, slots[(lane % 4 * 2 + i % 2) * 4 + k % 8 / 2], sizeof(other));
      c[i] += left * widen(other.b.x[k / 8 * 2 + k % 2]);
    }
}
#else
__device__ __forceinline__ void load_matrices(bf16 *to, const bf16 *row, bool transposed) {
  unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  unsigned *r = reinterpret_cast<unsigned *>(to);
  if (transposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}
__device__ __forceinline__ void multiply(float (&c)[4], const FragmentA<bf16> &a, const FragmentB<bf16> &b) {
  const unsigned *l = reinterpret_cast<const unsigned *>(a.x), *r = reinterpret_cast<const unsigned *>(b.x);
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(l[0]), "r"(l[1]), "r"(l[2]), "r"(l[3]), "r"(r[0]), "r"(r[1]));
}
#endif

// The same of bf16: four matrices of 8 x 8 by one instruction.
__device__ __forceinline__ void load_a(FragmentA<bf16> &a, const bf16 *from, int stride) {
  unsigned lane = lane_of_thread();
  load_matrices(a.x, from + lane % 16 * stride + lane / 16 * 8, false);
}
__device__ __forceinline__ void load_b_transposed(FragmentB<bf16> (&b)[2], const bf16 *from, int stride) {
  unsigned lane = lane_of_thread();
  load_matrices(b[0].x, from + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8, false);
}
__device__ __forceinline__ void load_b(FragmentB<bf16> (&b)[2], const bf16 *from, int stride) {
  unsigned lane = lane_of_thread();
  load_matrices(b[0].x, from + lane % 16 * stride + lane / 16 * 8, true);
}
