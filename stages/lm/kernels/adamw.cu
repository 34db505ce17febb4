// The optimizer's step over one tensor, and sums of squares.
#include "common.cuh"

// What a step is made of, besides the learning rate's schedule.
struct StepNumbers {
  float clip, keep, new_m, keep_v, new_v, rate, root_inverse, eps;
};

// N numbers from i on.
template <int N>
__device__ __forceinline__ void step_at(size_t i, float *weight, float *gradient, float *m, float *v, bf16 *half,
                                        const StepNumbers &step) {
  Pack<float, N> weights = load<N>(weight + i), gradients = load<N>(gradient + i), means = load<N>(m + i),
                 squares = load<N>(v + i), zeros;
  Pack<bf16, N> halves;
  for (int j = 0; j < N; j++) {
    float g = gradients.x[j] * step.clip;
    zeros.x[j] = 0.0f;
    means.x[j] += step.new_m * (g - means.x[j]);
    squares.x[j] = step.keep_v * squares.x[j] + step.new_v * g * g;
    weights.x[j] =
        weights.x[j] * step.keep - step.rate * means.x[j] / (sqrtf(squares.x[j]) * step.root_inverse + step.eps);
    halves.x[j] = narrow<bf16>(weights.x[j]);
  }
  store<N>(gradient + i, zeros);
  store<N>(m + i, means);
  store<N>(v + i, squares);
  store<N>(weight + i, weights);
  if (half != nullptr) store<N>(half + i, halves);
}

// g = clip gradient; m += new_m (g - m); v = keep_v v + new_v g^2; w = keep w - rate m / (sqrt(v) root_inverse + eps).
// `half` gets the weights in bf16, where it is not null. The gradient becomes 0.
__device__ void step_numbers(float *weight, float *gradient, float *m, float *v, bf16 *half, unsigned count,
                             const StepNumbers &step) {
  size_t first = blockIdx.x * size_t(blockDim.x) + threadIdx.x, threads = size_t(gridDim.x) * blockDim.x;
  unsigned packs = packed(8, weight, gradient, m, v, half) ? count / 4 : 0;
  for (size_t i = first; i < packs; i += threads) step_at<4>(4 * i, weight, gradient, m, v, half, step);
  for (size_t i = 4 * size_t(packs) + first; i < count; i += threads)
    step_at<1>(i, weight, gradient, m, v, half, step);
}
EXPORT_AS(adamw_step, float, 256,
          (float *weight, float *gradient, float *m, float *v, bf16 *half, unsigned count, float clip, float keep,
           float new_m, float keep_v, float new_v, float rate, float root_inverse, float eps),
          step_numbers(weight, gradient, m, v, half, count,
                       StepNumbers{clip, keep, new_m, keep_v, new_v, rate, root_inverse, eps}))

// partial [blocks]: what each block adds to the sum of the squares of a tensor.
__device__ void square_parts(const float *gradient, double *partial, unsigned count) {
  size_t first = blockIdx.x * size_t(blockDim.x) + threadIdx.x, threads = size_t(gridDim.x) * blockDim.x;
  unsigned packs = packed(8, gradient) ? count / 4 : 0;
  double sum = 0;
  for (size_t i = first; i < packs; i += threads) {
    Pack<float, 4> numbers = load<4>(gradient + 4 * i);
    for (int j = 0; j < 4; j++) sum += double(numbers.x[j]) * numbers.x[j];
  }
  for (size_t i = 4 * size_t(packs) + first; i < count; i += threads) sum += double(gradient[i]) * gradient[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
EXPORT_AS(squares, float, 256, (const float *gradient, double *partial, unsigned offset, unsigned count),
          square_parts(gradient, partial + offset, count))

// The sum for each tensor i of its entries starts[i] .. starts[i + 1] of `partial`: a warp for each.
__device__ void part_sums(const double *partial, const unsigned *starts, double *sums) {
  double sum = 0;
  for (unsigned i = starts[blockIdx.x] + threadIdx.x; i < starts[blockIdx.x + 1]; i += blockDim.x) sum += partial[i];
  sum = warp_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}
EXPORT_AS(sum_parts, float, 32, (const double *partial, const unsigned *starts, double *sums),
          part_sums(partial, starts, sums))
