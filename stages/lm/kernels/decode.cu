// Attention of new rows over a cache. The keys of a path are cut into parts, and rows whose paths begin alike share the
// parts that they have in common; then the parts of each row are joined in the order of their depths.
#include "attend.cuh"

// Rows at depths of their own, which see the keys from one depth to another, or what of them is among their last
// `window` keys; window 0 is none.
struct Between {
  const unsigned *depths;
  unsigned from, to, window;

  __device__ __forceinline__ unsigned depth(const Tile &tile, unsigned row) const { return depths[tile.row + row]; }
  __device__ __forceinline__ unsigned first(const Tile &tile) const { return from; }
  __device__ __forceinline__ unsigned end(const Tile &tile) const { return to; }
  __device__ __forceinline__ bool whole(const Tile &tile, unsigned first, unsigned end) const {
    return end <= to && window == 0;
  }
  __device__ __forceinline__ bool sees(unsigned query, unsigned key, unsigned end) const {
    return key < end && ::sees(query, key, window);
  }
  // Nothing is added to scores.
  __device__ __forceinline__ bool moves() const { return false; }
  __device__ __forceinline__ float moved(unsigned, unsigned, unsigned, unsigned) const { return 0.0f; }
};

// A block for each part (x) and, for each key-value head, 64 of its items (y). A part is (first row, rows, first span, end
// of spans, first depth of its keys, their end, slot); it leaves the softmax over its keys of row i in slot + i of out
// [slots, A D], and the log-sum-exps in lse [slots, A].
template <typename T, int D>
__device__ void attention_parts(const T *q, unsigned q_stride, const T *k, const T *v, unsigned kv_stride, float *out,
                                float *lse, const unsigned *parts, const unsigned *spans, const unsigned *depths,
                                unsigned heads, unsigned kv_heads, unsigned width, unsigned window, float scale,
                                float cap) {
  const unsigned *part = parts + 7 * size_t(blockIdx.x);
  Tile tile = {part[0], part[1], part[4], part[2], part[3]};
  attend<T, D>(q, q_stride, k, v, kv_stride, out, lse, part[6], tile, spans, heads, kv_heads, width,
               Between{depths, part[4], part[5], window}, scale, cap);
}
EXPORT_WIDTHS(attention_parts,
              (const T *q, unsigned q_stride, const T *k, const T *v, unsigned kv_stride, float *out, float *lse,
               const unsigned *parts, const unsigned *spans, const unsigned *depths, unsigned heads, unsigned kv_heads,
               unsigned width, unsigned window, float scale, float cap),
              (q, q_stride, k, v, kv_stride, out, lse, parts, spans, depths, heads, kv_heads, width, window, scale, cap))

// The softmax over all keys of a row [T, A D], from those over its parts: a warp for each head of each row, whose slots are
// slots[starts[row]] .. slots[starts[row + 1]]. The width is even.
template <typename T>
__device__ void attention_joined(const float *parts, const float *lse, T *out, const unsigned *starts,
                                 const unsigned *slots, unsigned count, unsigned heads, unsigned width) {
  unsigned i = blockIdx.x * (blockDim.x / 32) + warp_of_thread(), row = i / heads, head = i % heads;
  if (i >= count) return;
  unsigned first = starts[row], end = starts[row + 1];
  auto lse_of = [&](unsigned part) { return lse[size_t(slots[part]) * heads + head]; };
  float most = -INFINITY, all = 0.0f;
  for (unsigned part = first; part < end; part++) most = fmaxf(most, lse_of(part));
  for (unsigned part = first; part < end; part++) all += power_of_2((lse_of(part) - most) * LOG2_E);
  for (unsigned j = 2 * lane_of_thread(); j < width; j += 64) {
    float sum[2] = {0.0f, 0.0f};
    for (unsigned part = first; part < end; part++) {
      float share = power_of_2((lse_of(part) - most) * LOG2_E) / all;
      Pack<float, 2> x = load<2>(parts + (size_t(slots[part]) * heads + head) * width + j);
      sum[0] += share * x.x[0];
      sum[1] += share * x.x[1];
    }
    Pack<T, 2> pair;
    for (int k = 0; k < 2; k++) pair.x[k] = narrow<T>(sum[k]);
    store<2>(out + size_t(i) * width + j, pair);
  }
}
EXPORT(attention_joined, 128,
       (const float *parts, const float *lse, T *out, const unsigned *starts, const unsigned *slots, unsigned count,
        unsigned heads, unsigned width),
       (parts, lse, out, starts, slots, count, heads, width))
