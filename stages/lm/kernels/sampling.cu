// The choice of the next token from rows of logits in f32, a block for each row: greedy, or by the share of the
// probabilities that a uniform number of the host passes.
#include "common.cuh"

// `uniform` [rows] is in [0, 1). rows[i] is the row of `logits` that choice i is made from. With temperature 0
// the first of the likeliest is taken. `result` [choices, 2] gets the token and its ln p at temperature 1.
__device__ void choose_row(const float *logits, const unsigned *rows, const double *uniform, double *result,
                           unsigned vocab, double temperature) {
  __shared__ double sums[256];
  __shared__ unsigned candidates[256];
  const float *row = logits + size_t(rows[blockIdx.x]) * vocab;
  unsigned per_thread = (vocab + blockDim.x - 1) / blockDim.x;
  unsigned first = min(vocab, threadIdx.x * per_thread), end = min(vocab, first + per_thread);
  float largest = -INFINITY;
  for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) largest = fmaxf(largest, row[i]);
  largest = block_max(largest);
  double sum = 0;
  for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) sum += exp(double(row[i]) - largest);
  double log_sum = largest + log(block_sum(sum));
  // Each thread has a stretch of tokens: its weights and, where greedy, the first of the likeliest in it.
  double weight = 0;
  unsigned candidate = vocab;
  for (unsigned i = first; i < end; i++) {
    if (temperature > 0.0)
      weight += exp((double(row[i]) - largest) / temperature);
    else if (row[i] == largest && candidate == vocab)
      candidate = i;
  }
  sums[threadIdx.x] = weight;
  candidates[threadIdx.x] = candidate;
  __syncthreads();
  if (temperature > 0.0) {
    double before = 0, total = 0;
    for (unsigned i = 0; i < blockDim.x; i++) {
      before += i < threadIdx.x ? sums[i] : 0.0;
      total += sums[i];
    }
    double wanted = uniform[blockIdx.x] * total, reached = before;
    // The stretch in which the sum passes what is wanted; where rounding lets it pass nowhere, the last with weight.
    unsigned last = vocab;
    for (unsigned i = first; i < end; i++) {
      double one = exp((double(row[i]) - largest) / temperature);
      if (!(one > 0.0)) continue;
      last = i;
      reached += one;
      if (reached > wanted) {
        candidate = i;
        break;
      }
    }
    __syncthreads();
    candidates[threadIdx.x] = candidate;
    sums[threadIdx.x] = last == vocab ? -1.0 : double(last);
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    unsigned token = vocab;
    for (unsigned i = 0; i < blockDim.x && token == vocab; i++) token = candidates[i];
    for (unsigned i = blockDim.x; i > 0 && token == vocab; i--)
      if (temperature > 0.0 && sums[i - 1] >= 0.0) token = unsigned(sums[i - 1]);
    // No token where the logits are not finite: the ln p says so.
    result[2 * blockIdx.x] = token == vocab ? 0.0 : double(token);
    result[2 * blockIdx.x + 1] = token == vocab ? NAN : row[token] - log_sum;
  }
}
EXPORT_AS(choose, float, 256,
          (const float *logits, const unsigned *rows, const double *uniform, double *result, unsigned vocab,
           double temperature),
          choose_row(logits, rows, uniform, result, vocab, temperature))
