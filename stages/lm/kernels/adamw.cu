// The optimizer's step over one tensor, and sums of squares.
#include "common.cuh"

// g = clip gradient; m += new_m (g - m); v = keep_v v + new_v g^2; w = keep w - rate m / (sqrt(v) root_inverse + eps).
// `half` gets the weights in bf16, where it is not null. The gradient becomes 0.
__device__ void step_numbers(float *weight, float *gradient, float *m, float *v, bf16 *half, unsigned count, float clip,
                             float keep, float new_m, float keep_v, float new_v, float rate, float root_inverse,
                             float eps) {
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x) {
    float g = gradient[i] * clip;
    gradient[i] = 0.0f;
    float mean = m[i] + new_m * (g - m[i]);
    float square = keep_v * v[i] + new_v * g * g;
    float w = weight[i] * keep - rate * mean / (sqrtf(square) * root_inverse + eps);
    m[i] = mean;
    v[i] = square;
    weight[i] = w;
    if (half != nullptr) half[i] = narrow<bf16>(w);
  }
}
EXPORT_AS(adamw_step, float, 256,
          (float *weight, float *gradient, float *m, float *v, bf16 *half, unsigned count, float clip, float keep,
           float new_m, float keep_v, float new_v, float rate, float root_inverse, float eps),
          step_numbers(weight, gradient, m, v, half, count, clip, keep, new_m, keep_v, new_v, rate, root_inverse, eps))

// partial [blocks]: what each block adds to the sum of the squares of a tensor.
__device__ void square_parts(const float *gradient, double *partial, unsigned count) {
  double sum = 0;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < count; i += size_t(gridDim.x) * blockDim.x)
    sum += double(gradient[i]) * gradient[i];
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
