// The LM head: rows of logits [C, V] in f32, a block for each row.
#include "common.cuh"

// ln sum exp of each row, and the logits of targets less it. The targets of row r of the chunk are the entries
// starts[r] .. starts[r + 1] of `tokens`.
__device__ void row_scores(const float *logits, const unsigned *starts, const unsigned *tokens, double *lse,
                           double *logps, unsigned vocab) {
  const float *row = logits + size_t(blockIdx.x) * vocab;
  float largest = -INFINITY;
  bool damaged = false;
  for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) {
    largest = fmaxf(largest, row[i]);
    damaged = damaged || row[i] != row[i];
  }
  largest = block_max(largest);
  // Sums of exponentials, one for each thread; NaN goes into them and so into the result.
  float sum = damaged ? NAN : 0.0f;
  for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) sum += expf(row[i] - largest);
  double total = largest + log(block_sum(double(sum)));
  if (threadIdx.x == 0) lse[blockIdx.x] = total;
  for (unsigned i = starts[blockIdx.x] + threadIdx.x; i < starts[blockIdx.x + 1]; i += blockDim.x)
    logps[i] = row[tokens[i]] - total;
}
EXPORT_AS(head_scores, float, 256,
          (const float *logits, const unsigned *starts, const unsigned *tokens, double *lse, double *logps,
           unsigned vocab),
          row_scores(logits, starts, tokens, lse, logps, vocab))

// dz = sum over the row's targets of g (onehot - p), p = exp(z - lse). `starts` and `tokens` as above, g [targets].
template <typename T>
__device__ void head_backward(const float *logits, const unsigned *starts, const unsigned *tokens, const float *lse,
                              const float *g, T *dz, unsigned vocab) {
  size_t at = size_t(blockIdx.x) * vocab;
  unsigned first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
  float total = 0, shift = lse[blockIdx.x];
  for (unsigned i = first; i < end; i++) total += g[i];
  for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) {
    float slope = -total * expf(logits[at + i] - shift);
    for (unsigned target = first; target < end; target++) slope += tokens[target] == i ? g[target] : 0.0f;
    dz[at + i] = narrow<T>(slope);
  }
}
EXPORT(head_backward, 256,
       (const float *logits, const unsigned *starts, const unsigned *tokens, const float *lse, const float *g, T *dz,
        unsigned vocab),
       (logits, starts, tokens, lse, g, dz, vocab))
