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

// A logit z, or cap tanh(z / cap) where BOUND.
template <bool BOUND> __device__ __forceinline__ float bounded(float z, float cap) {
  return BOUND ? cap * tanhf(z / cap) : z;
}
template <bool BOUND, int N> __device__ __forceinline__ Pack<float, N> logits_at(const float *row, unsigned i, float cap) {
  Pack<float, N> numbers = load<N>(row + i);
  for (int j = 0; j < N; j++) numbers.x[j] = bounded<BOUND>(numbers.x[j], cap);
  return numbers;
}

template <bool BOUND> __device__ Running running_of(const float *row, unsigned vocab, float cap) {
  Running running = {-INFINITY, 0.0f};
  if (vocab % 4 == 0) {
    unsigned i = threadIdx.x * 4, step = blockDim.x * 4;
    for (; i + step < vocab; i += 2 * step) {
      Pack<float, 4> one = logits_at<BOUND, 4>(row, i, cap), other = logits_at<BOUND, 4>(row, i + step, cap);
      Pack<float, 8> both;
      for (int j = 0; j < 4; j++) both.x[j] = one.x[j], both.x[4 + j] = other.x[j];
      take<8>(running, both);
    }
    for (; i < vocab; i += step) take<4>(running, logits_at<BOUND, 4>(row, i, cap));
  } else {
    for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) take<1>(running, logits_at<BOUND, 1>(row, i, cap));
  }
  return running;
}

// ln sum exp of each row, and the logits of targets less it: the logits are read once. The targets of row r of the chunk
// are the entries starts[r] .. starts[r + 1] of `tokens`. Where `cap` is not 0 it bounds the logits.
__device__ void row_scores(const float *logits, const unsigned *starts, const unsigned *tokens, double *lse,
                           double *logps, unsigned vocab, float cap) {
  const float *row = logits + size_t(blockIdx.x) * vocab;
  Running running = cap == 0.0f ? running_of<false>(row, vocab, cap) : running_of<true>(row, vocab, cap);
  float largest = block_max(running.largest);
  double total = largest + log(block_sum(double(running.sum * expf(running.largest - largest))));
  if (threadIdx.x == 0) lse[blockIdx.x] = total;
  for (unsigned i = starts[blockIdx.x] + threadIdx.x; i < starts[blockIdx.x + 1]; i += blockDim.x) {
    float z = row[tokens[i]];
    logps[i] = (cap == 0.0f ? z : bounded<true>(z, cap)) - total;
  }
}
EXPORT_AS(head_scores, float, 256,
          (const float *logits, const unsigned *starts, const unsigned *tokens, double *lse, double *logps,
           unsigned vocab, float cap),
          row_scores(logits, starts, tokens, lse, logps, vocab, cap))

// p = exp(z - lse), rounded to the type of activations: the gradient is made of that, so that it is the same to the last
// bit whether p is kept from the forward or computed again.
template <typename T> __device__ __forceinline__ T share(float z, float lse) { return narrow<T>(expf(z - lse)); }

template <typename T>
__device__ void head_shares(const float *logits, const double *lse, T *p, unsigned vocab) {
  const float *row = logits + size_t(blockIdx.x) * vocab;
  T *to = p + size_t(blockIdx.x) * vocab;
  float shift = float(lse[blockIdx.x]);
  if (vocab % 8 == 0) {
    for (unsigned i = threadIdx.x * 8; i < vocab; i += blockDim.x * 8) {
      Pack<float, 4> left = load<4>(row + i), right = load<4>(row + i + 4);
      Pack<T, 8> shares;
      for (int j = 0; j < 4; j++) shares.x[j] = share<T>(left.x[j], shift), shares.x[4 + j] = share<T>(right.x[j], shift);
      store<8>(to + i, shares);
    }
  } else {
    for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) to[i] = share<T>(row[i], shift);
  }
}
EXPORT(head_shares, 256, (const float *logits, const double *lse, T *p, unsigned vocab), (logits, lse, p, vocab))

// A probability, and the slope of its logit by the one that is not bounded.
struct Share {
  float p, bend;
};

// Of a row of logits, with a bound where `cap` is not 0.
template <typename T> struct FromLogits {
  const float *row;
  float lse, cap;
  __device__ __forceinline__ Share of(float z) const {
    if (cap == 0.0f) return Share{widen(share<T>(z, lse)), 1.0f};
    float t = tanhf(z / cap);
    return Share{widen(share<T>(cap * t, lse)), 1.0f - t * t};
  }
  __device__ __forceinline__ Share at(unsigned i) const { return of(row[i]); }
  __device__ __forceinline__ void all(unsigned i, Share (&shares)[8]) const {
    Pack<float, 4> left = load<4>(row + i), right = load<4>(row + i + 4);
    for (int j = 0; j < 4; j++) shares[j] = of(left.x[j]), shares[4 + j] = of(right.x[j]);
  }
};

// Of a row of kept probabilities.
template <typename T> struct FromShares {
  const T *row;
  __device__ __forceinline__ Share at(unsigned i) const { return Share{widen(row[i]), 1.0f}; }
  __device__ __forceinline__ void all(unsigned i, Share (&shares)[8]) const {
    Pack<T, 8> numbers = load<8>(row + i);
    for (int j = 0; j < 8; j++) shares[j] = Share{widen(numbers.x[j]), 1.0f};
  }
};

// Entries first .. end of `tokens` and `g` are the row's targets.
template <typename T, typename From>
__device__ void row_slopes(From from, const unsigned *tokens, const float *g, unsigned first, unsigned end, T *to,
                           unsigned vocab) {
  float total = 0;
  for (unsigned i = first; i < end; i++) total += g[i];
  if (vocab % 8 == 0) {
    for (unsigned i = threadIdx.x * 8; i < vocab; i += blockDim.x * 8) {
      Share shares[8];
      from.all(i, shares);
      Pack<T, 8> slopes;
      for (int j = 0; j < 8; j++) slopes.x[j] = narrow<T>(-total * shares[j].p * shares[j].bend);
      store<8>(to + i, slopes);
    }
  } else {
    for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) {
      Share one = from.at(i);
      to[i] = narrow<T>(-total * one.p * one.bend);
    }
  }
  __syncthreads();
  // The columns of targets once more, with what their targets add; the first of those that share a token adds for all.
  for (unsigned i = first + threadIdx.x; i < end; i += blockDim.x) {
    unsigned token = tokens[i], before = first;
    while (tokens[before] != token) before++;
    if (before < i) continue;
    Share one = from.at(token);
    float sum = -total * one.p;
    for (unsigned other = i; other < end; other++) sum += tokens[other] == token ? g[other] : 0.0f;
    to[token] = narrow<T>(sum * one.bend);
  }
}

// dz = sum over the row's targets of g (onehot - p), times the slope of the bound: of logits, or where `kept` is not null
// of kept probabilities. `starts` and `tokens` as above, g [targets].
template <typename T>
__device__ void head_backward(const float *logits, const T *kept, const unsigned *starts, const unsigned *tokens,
                              const float *lse, const float *g, T *dz, unsigned vocab, float cap) {
  size_t row = size_t(blockIdx.x) * vocab;
  unsigned first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
  if (kept == nullptr)
    row_slopes(FromLogits<T>{logits + row, lse[blockIdx.x], cap}, tokens, g, first, end, dz + row, vocab);
  else
    row_slopes(FromShares<T>{kept + row}, tokens, g, first, end, dz + row, vocab);
}
EXPORT(head_backward, 256,
       (const float *logits, const T *kept, const unsigned *starts, const unsigned *tokens, const float *lse,
        const float *g, T *dz, unsigned vocab, float cap),
       (logits, kept, starts, tokens, lse, g, dz, vocab, cap))
