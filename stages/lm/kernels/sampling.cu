// The choice of the next token from rows of logits in f32, a block for each row: greedy, or by the share of the
// probabilities that a uniform number of the host passes.
#include "common.cuh"

// Logits in their order, as integers: larger ones for larger logits.
__device__ __forceinline__ unsigned rank_of(float x) {
  unsigned bits = float_bits(x);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// The tokens that stay: those of a rank above `least`, and of that rank the first `ties`.
struct Kept {
  unsigned least, ties;
};

// The largest rank r for which the sum of `of(rank, token)` over tokens of rank r and above is at least `wanted`.
template <typename N, typename Of>
__device__ unsigned rank_reaching(const float *row, unsigned vocab, N wanted, Of of) {
  unsigned rank = 0;
  for (unsigned bit = 0x80000000u; bit != 0; bit >>= 1) {
    N sum = 0;
    for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) {
      unsigned own = rank_of(row[i]);
      if (own >= (rank | bit)) sum += of(own, row[i]);
    }
    if (block_sum(sum) >= wanted) rank |= bit;
  }
  return rank;
}

// What top_k leaves (those as likely as the last of them too; 0 leaves all), and of that top_p: a token stays while those
// before it, by their logits and then by their ids, have less than top_p of the sum of all.
__device__ Kept kept_of(const float *row, unsigned vocab, float largest, float temperature, unsigned top_k, double top_p) {
  Kept kept = {0, vocab};
  if (top_k > 0 && top_k < vocab)
    kept.least = rank_reaching(row, vocab, top_k, [](unsigned, float) { return 1u; });
  if (top_p >= 1.0) return kept;
  unsigned lowest = kept.least;
  auto weight = [&](unsigned rank, float x) { return rank < lowest ? 0.0 : double(expf((x - largest) / temperature)); };
  double all = 0;
  for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) all += weight(rank_of(row[i]), row[i]);
  double wanted = top_p * block_sum(all);
  kept.least = rank_reaching(row, vocab, wanted, weight);
  double above = 0, equal = 0;
  for (unsigned i = threadIdx.x; i < vocab; i += blockDim.x) {
    unsigned rank = rank_of(row[i]);
    if (rank > kept.least) above += weight(rank, row[i]);
    if (rank == kept.least) equal = weight(rank, row[i]);
  }
  above = block_sum(above);
  double each = block_max(float(equal));
  kept.ties = each > 0.0 ? unsigned(fmax(1.0, fmin(ceil((wanted - above) / each), double(vocab)))) : vocab;
  return kept;
}

// Walks the kept tokens of `first` .. `end`, of which `seen` of the least rank came before: `use(token)` says whether to
// go on.
template <typename Use>
__device__ void walk(const float *row, unsigned first, unsigned end, Kept kept, unsigned seen, Use use) {
  for (unsigned i = first; i < end; i++) {
    unsigned rank = rank_of(row[i]);
    bool stays = rank > kept.least || (rank == kept.least && seen < kept.ties);
    seen += rank == kept.least;
    if (stays && !use(i)) return;
  }
}

// `uniform` [rows] is in [0, 1). rows[i] is the row of `logits` that choice i is made from. With temperature 0
// the first of the likeliest is taken. `result` [choices, 2] gets the token and its ln p at temperature 1.
__device__ void choose_row(const float *logits, const unsigned *rows, const double *uniform, double *result,
                           unsigned vocab, double temperature, unsigned top_k, double top_p) {
  SHARED(double, sums, [256]);
  SHARED(unsigned, candidates, [256]);
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
  unsigned candidate = vocab, seen = 0;
  Kept kept = {0, vocab};
  auto weight_of = [&](unsigned i) { return exp((double(row[i]) - largest) / temperature); };
  if (temperature > 0.0) {
    kept = kept_of(row, vocab, largest, float(temperature), top_k, top_p);
    if (kept.ties < vocab) {
      unsigned own = 0;
      for (unsigned i = first; i < end; i++) own += rank_of(row[i]) == kept.least;
      candidates[threadIdx.x] = own;
      __syncthreads();
      for (unsigned i = 0; i < threadIdx.x; i++) seen += candidates[i];
      __syncthreads();
    }
    walk(row, first, end, kept, seen, [&](unsigned i) {
      weight += weight_of(i);
      return true;
    });
  } else {
    for (unsigned i = first; i < end && candidate == vocab; i++)
      if (row[i] == largest) candidate = i;
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
    walk(row, first, end, kept, seen, [&](unsigned i) {
      double one = weight_of(i);
      if (!(one > 0.0)) return true;
      last = i;
      reached += one;
      if (reached > wanted) candidate = i;
      return candidate == vocab;
    });
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
           double temperature, unsigned top_k, double top_p),
          choose_row(logits, rows, uniform, result, vocab, temperature, top_k, top_p))
