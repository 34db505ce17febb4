// The LM head: rows of logits [C, V] in f32, a block for each row.
#include "common.cuh"

// The largest number that passed, and the sum of exponentials of all that passed less it.
struct Running {
  float largest, sum;
};

// Takes in N numbers. NaN goes into the sum, and stays.
template <int N> __device__ __forceinline__ void take(Running &running, const Pack<float, N> &numbers) {
  float largest = running.largest;
  for (int j = 0; j < N; j++) largest = fmaxf(largest, numbers.x[j]);
  // Where all that passed is -infinity, its exponentials are 0.
  float shift = largest == -INFINITY ? 0.0f : largest;
  float sum = running.sum * expf(running.largest - shift);
  for (int j = 0; j < N; j++) sum += expf(numbers.x[j] - shift);
  running = Running{largest, sum};
}

// ln sum exp of each row, and the logits of targets less it: the logits are read once. The targets of row r of the chunk
// are the entries starts[r] .. starts[r + 1] of `tokens`.
__device__ void row_scores(const float *logits, const unsigned *starts, const unsigned *tokens, double *lse,
                           double *logps, unsigned vocab) {
  const float *row = logits + size_t(blockIdx.x) * vocab;
  Running running = {-INFINITY, 0.0f};
  if (vocab % 4 == 0) {
    unsigned i = threadIdx.x * 4, step = blockDim.x * 4;
    for (; i + step < vocab; i += 2 * step) {
      Pack<float, 4> one = load<4>(row + i), other = load<4>(row + i + step);
      Pack<float, 8> both;
      for (int j = 0; j < 4; j++) both.x[j] = one.x[j], both.x[4 + j] = other.x[j];
      take<8>(running, both);
    }
    for (; i < vocab; i += step) take<4>(running, load<4>(row + i));
  } else {
    for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) take<1>(running, load<1>(row + i));
  }
  float largest = block_max(running.largest);
  double total = largest + log(block_sum(double(running.sum * expf(running.largest - largest))));
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
  const float *row = logits + size_t(blockIdx.x) * vocab;
  T *to = dz + size_t(blockIdx.x) * vocab;
  unsigned first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
  float total = 0, shift = lse[blockIdx.x];
  for (unsigned i = first; i < end; i++) total += g[i];
  auto slope = [&](float logit) { return -total * expf(logit - shift); };
  if (vocab % 8 == 0) {
    for (unsigned i = threadIdx.x * 8; i < vocab; i += blockDim.x * 8) {
      Pack<float, 4> left = load<4>(row + i), right = load<4>(row + i + 4);
      Pack<T, 8> slopes;
      for (int j = 0; j < 4; j++) {
        slopes.x[j] = narrow<T>(slope(left.x[j]));
        slopes.x[4 + j] = narrow<T>(slope(right.x[j]));
      }
      store<8>(to + i, slopes);
    }
  } else {
    for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) to[i] = narrow<T>(slope(row[i]));
  }
  __syncthreads();
  // The columns of targets once more, with what their targets add; the first of those that share a token adds for all.
  for (unsigned i = first + threadIdx.x; i < end; i += blockDim.x) {
    unsigned token = tokens[i], before = first;
    while (tokens[before] != token) before++;
    if (before < i) continue;
    float sum = slope(row[token]);
    for (unsigned other = i; other < end; other++) sum += tokens[other] == token ? g[other] : 0.0f;
    to[token] = narrow<T>(sum);
  }
}
EXPORT(head_backward, 256,
       (const float *logits, const unsigned *starts, const unsigned *tokens, const float *lse, const float *g, T *dz,
        unsigned vocab),
       (logits, starts, tokens, lse, g, dz, vocab))
