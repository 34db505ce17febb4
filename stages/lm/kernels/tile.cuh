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
template <typename T> __device__ __forceinline__ void load_a(FragmentA<T> &a, const T *from, int stride) {
  int g = lane_of_thread() / 4, t = lane_of_thread() % 4;
  for (int i = 0; i < 4; i++)
    *reinterpret_cast<Pack<T, 2> *>(a.x + 2 * i) = load<2>(from + (g + i % 2 * 8) * stride + 2 * t + i / 2 * 8);
}

// B from its transpose: column n of B is the row n, which lies `stride` from the next.
template <typename T> __device__ __forceinline__ void load_b_transposed(FragmentB<T> &b, const T *from, int stride) {
  int g = lane_of_thread() / 4, t = lane_of_thread() % 4;
  for (int i = 0; i < 2; i++)
    *reinterpret_cast<Pack<T, 2> *>(b.x + 2 * i) = load<2>(from + g * stride + 2 * t + 8 * i);
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

// c += a b.
__device__ __forceinline__ void multiply(float (&c)[4], const FragmentA<float> &a, const FragmentB<float> &b) {
  int lane = lane_of_thread();
#pragma unroll
  for (int k = 0; k < 16; k++) {
    int row = lane / 4 * 4 + k % 8 / 2, column = lane % 4 * 8 + k % 8 / 2, i = k / 8 * 4 + k % 2, j = k / 8 * 2 + k % 2;
    float upper = __shfl_sync(ALL_LANES, a.x[i], row), lower = __shfl_sync(ALL_LANES, a.x[i + 2], row);
    float left = __shfl_sync(ALL_LANES, b.x[j], column), right = __shfl_sync(ALL_LANES, b.x[j], column + 4);
    c[0] += upper * left;
    c[1] += upper * right;
    c[2] += lower * left;
    c[3] += lower * right;
  }
}

#ifdef EMULATED
// What the two instructions do, by their documentation: eight lanes give the addresses of the rows of each matrix of
// 8 x 8, and each lane gets two numbers of a column.
inline void load_b(FragmentB<bf16> &b, const bf16 *from, int stride) {
  const bf16 *row = from + emulator::lane() % 16 * stride;
  auto rows = emulator::exchange(row);
  for (int i = 0; i < 4; i++) {
    memcpy(&row, rows[emulator::lane() % 4 * 2 + i % 2 + i / 2 * 8], sizeof(row));
    b.x[i] = row[emulator::lane() / 4];
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
__device__ __forceinline__ void load_b(FragmentB<bf16> &b, const bf16 *from, int stride) {
  const bf16 *row = from + lane_of_thread() % 16 * stride;
  unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(row));
  unsigned *r = reinterpret_cast<unsigned *>(b.x);
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1])
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
