// Masks of dropout: a function of a key for each row, one for the place, and the column.
#include "common.cuh"

// The finalizer of SplitMix64.
__device__ __forceinline__ unsigned long long mix(unsigned long long z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

// y = x scale, or 0 where the number's 32 bits are below `threshold`; a draw of 64 serves two columns, the low half the
// first. `keys` holds two halves for each row, the low one first. A block for each row.
template <typename T>
__device__ void dropout(const T *x, const unsigned *keys, T *y, unsigned width, unsigned place_low, unsigned place_high,
                        unsigned threshold, float scale) {
  unsigned long long place = (unsigned long long)place_high << 32 | place_low;
  unsigned long long own = (unsigned long long)keys[2 * blockIdx.x + 1] << 32 | keys[2 * blockIdx.x];
  unsigned long long key = mix(own ^ place);
  const T *from = x + size_t(blockIdx.x) * width;
  T *to = y + size_t(blockIdx.x) * width;
  for (unsigned pair = threadIdx.x; 2 * pair < width; pair += blockDim.x) {
    unsigned long long both = mix(key + (pair + 1ull) * 0x9e3779b97f4a7c15ull);
    for (unsigned i = 2 * pair; i < width && i < 2 * pair + 2; i++, both >>= 32)
      to[i] = narrow<T>(unsigned(both) < threshold ? 0.0f : widen(from[i]) * scale);
  }
}
EXPORT(dropout, 128,
       (const T *x, const unsigned *keys, T *y, unsigned width, unsigned place_low, unsigned place_high,
        unsigned threshold, float scale),
       (x, keys, y, width, place_low, place_high, threshold, scale))
