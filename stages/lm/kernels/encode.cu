// Encoders: attention to both sides, the norm with a mean, and activations without a gate.
#include "attend.cuh"

// A token sees all of its text, or what is at most `reach` from it; reach 0 is none. The text of a tile has the number of
// the tile's only span. `bias`, where it is not null, is added to scores by head and distance from a query to a key:
// [A, 2 n - 1], n `distances`.
struct Around {
  const unsigned *lengths;
  unsigned reach, distances;
  const float *bias;

  __device__ __forceinline__ unsigned depth(const Tile &tile, unsigned row) const { return tile.depth + row; }
  __device__ __forceinline__ unsigned first(const Tile &tile) const {
    return reach == 0 || tile.depth < reach ? 0 : tile.depth - reach;
  }
  __device__ __forceinline__ unsigned end(const Tile &tile) const {
    unsigned length = lengths[tile.first_span];
    return reach == 0 ? length : min(length, tile.depth + tile.rows + reach);
  }
  __device__ __forceinline__ bool whole(const Tile &tile, unsigned from, unsigned to) const {
    return to <= end(tile) && (reach == 0 || (to <= tile.depth + reach + 1 && from + reach + 1 >= tile.depth + tile.rows));
  }
  __device__ __forceinline__ bool sees(unsigned query, unsigned key, unsigned end) const {
    return key < end && (reach == 0 || (key <= query + reach && query <= key + reach));
  }
  __device__ __forceinline__ bool moves() const { return bias != nullptr; }
  __device__ __forceinline__ float moved(unsigned head, unsigned query, unsigned key, unsigned end) const {
    return key < end ? bias[size_t(head) * (2 * distances - 1) + distances - 1 + key - query] : 0.0f;
  }
};

// Of q | k | v [T, 3 H] to [T, H].
template <typename T, int D>
__device__ void attention_around(const T *qkv, T *out, const unsigned *tiles, const unsigned *spans,
                                 const unsigned *lengths, unsigned heads, unsigned width, unsigned reach,
                                 const float *bias, unsigned distances, float scale) {
  unsigned all = heads * width, stride = 3 * all;
  float *lse = nullptr;
  Tile tile = tile_at(tiles, blockIdx.x);
  attend<T, D>(qkv, stride, qkv + all, qkv + 2 * all, stride, out, lse, tile.row, tile, spans, heads, heads, width,
               Around{lengths, reach, distances, bias}, scale, 0.0f);
}
EXPORT_WIDTHS(attention_around,
              (const T *qkv, T *out, const unsigned *tiles, const unsigned *spans, const unsigned *lengths,
               unsigned heads, unsigned width, unsigned reach, const float *bias, unsigned distances, float scale),
              (qkv, out, tiles, spans, lengths, heads, width, reach, bias, distances, scale))

// Rows in place to mean 0 and variance 1, times w, plus b. A block for each row.
template <int N, typename T>
__device__ void normalise_row(T *x, const float *w, const float *b, unsigned width, float eps) {
  float sum = 0;
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> numbers = load<N>(x + i);
    for (int j = 0; j < N; j++) sum += widen(numbers.x[j]);
  }
  float mean = block_sum(sum) / width;
  sum = 0;
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> numbers = load<N>(x + i);
    for (int j = 0; j < N; j++) sum += (widen(numbers.x[j]) - mean) * (widen(numbers.x[j]) - mean);
  }
  float scale = 1.0f / sqrtf(block_sum(sum) / width + eps);
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> numbers = load<N>(x + i);
    Pack<float, N> weights = load<N>(w + i), biases = load<N>(b + i);
    for (int j = 0; j < N; j++)
      numbers.x[j] = narrow<T>((widen(numbers.x[j]) - mean) * scale * weights.x[j] + biases.x[j]);
    store<N>(x + i, numbers);
  }
}
template <typename T> __device__ void layer_norm(T *x, const float *w, const float *b, unsigned width, float eps) {
  T *row = x + size_t(blockIdx.x) * width;
  if (packed(width, x, w, b))
    normalise_row<8>(row, w, b, width, eps);
  else
    normalise_row<1>(row, w, b, width, eps);
}
EXPORT(layer_norm, 128, (T *x, const float *w, const float *b, unsigned width, float eps), (x, w, b, width, eps))

// GELU (0), GELU by tanh (1), ReLU (2).
__device__ __forceinline__ float activated(float x, unsigned kind) {
  if (kind == 0) return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
  if (kind == 1) return x / (1.0f + expf(-2.0f * 0.7978845608028654f * (x + 0.044715f * x * x * x)));
  return fmaxf(x, 0.0f);
}

// The activation of the first `width` numbers of each row, times the `width` behind them where there are twice as many.
// y may be x where there are not. A block for each row.
template <int N, typename T>
__device__ void activate_row(const T *x, T *y, unsigned width, bool gated, unsigned kind) {
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> numbers = load<N>(x + i), factors;
    if (gated) factors = load<N>(x + width + i);
    for (int j = 0; j < N; j++) {
      float active = activated(widen(numbers.x[j]), kind);
      numbers.x[j] = narrow<T>(gated ? active * widen(factors.x[j]) : active);
    }
    store<N>(y + i, numbers);
  }
}
template <typename T> __device__ void activate(const T *x, T *y, unsigned width, unsigned gated, unsigned kind) {
  const T *row = x + size_t(blockIdx.x) * width * (gated + 1);
  T *to = y + size_t(blockIdx.x) * width;
  if (packed(width, x, y))
    activate_row<8>(row, to, width, gated, kind);
  else
    activate_row<1>(row, to, width, gated, kind);
}
EXPORT(activate, 256, (const T *x, T *y, unsigned width, unsigned gated, unsigned kind), (x, y, width, gated, kind))
