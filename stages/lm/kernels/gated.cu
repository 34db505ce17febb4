// Gated activations, act(gate) * up of rows gate | up [T, 2 F]. A block for each row.
#include "common.cuh"

// An activation x s(x), and its derivative.
struct Gate {
  float value, slope;
};

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// x sigmoid(x), with the derivative s (1 + x (1 - s)).
struct Silu {
  static __device__ __forceinline__ Gate of(float x) {
    float s = sigmoid(x);
    return Gate{x * s, s * (1.0f + x * (1.0f - s))};
  }
};

// gelu by tanh: x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3), with the derivative s + x s (1 - s) 2 u'.
struct Gelu {
  static __device__ __forceinline__ Gate of(float x) {
    const float root = 0.7978845608028654f, cube = 0.044715f;
    float s = sigmoid(2.0f * root * (x + cube * x * x * x));
    return Gate{x * s, s + x * s * (1.0f - s) * (2.0f * root + 6.0f * root * cube * x * x)};
  }
};

template <typename A, int N, typename T> __device__ void gate_row(const T *gate, const T *up, T *y, unsigned width) {
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> g = load<N>(gate + i), u = load<N>(up + i);
    for (int j = 0; j < N; j++) g.x[j] = narrow<T>(A::of(widen(g.x[j])).value * widen(u.x[j]));
    store<N>(y + i, g);
  }
}

template <typename A, typename T> __device__ void gated_forward(const T *gate_up, T *y, unsigned width) {
  const T *gate = gate_up + size_t(blockIdx.x) * 2 * width;
  T *row = y + size_t(blockIdx.x) * width;
  if (packed(width, gate_up, y))
    gate_row<A, 8>(gate, gate + width, row, width);
  else
    gate_row<A, 1>(gate, gate + width, row, width);
}

template <typename A, int N, typename T>
__device__ void gate_row_backward(const T *gate_up, const T *g, T *y, T *d, unsigned width) {
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> gates = load<N>(gate_up + i), ups = load<N>(gate_up + width + i), gs = load<N>(g + i), ys;
    for (int j = 0; j < N; j++) {
      float up = widen(ups.x[j]), slope = widen(gs.x[j]);
      Gate gate = A::of(widen(gates.x[j]));
      ys.x[j] = narrow<T>(gate.value * up);
      gates.x[j] = narrow<T>(slope * up * gate.slope);
      ups.x[j] = narrow<T>(slope * gate.value);
    }
    store<N>(y + i, ys);
    store<N>(d + i, gates);
    store<N>(d + width + i, ups);
  }
}

// The activation again, d gate = g up act'(gate), d up = g act(gate).
template <typename A, typename T> __device__ void gated_backward(const T *gate_up, const T *g, T *y, T *d, unsigned width) {
  size_t row = size_t(blockIdx.x) * width;
  if (packed(width, gate_up, g, y, d))
    gate_row_backward<A, 8>(gate_up + 2 * row, g + row, y + row, d + 2 * row, width);
  else
    gate_row_backward<A, 1>(gate_up + 2 * row, g + row, y + row, d + 2 * row, width);
}

template <typename T> __device__ void swiglu_forward(const T *gate_up, T *y, unsigned width) {
  gated_forward<Silu>(gate_up, y, width);
}
template <typename T> __device__ void geglu_forward(const T *gate_up, T *y, unsigned width) {
  gated_forward<Gelu>(gate_up, y, width);
}
template <typename T> __device__ void swiglu_backward(const T *gate_up, const T *g, T *y, T *d, unsigned width) {
  gated_backward<Silu>(gate_up, g, y, d, width);
}
template <typename T> __device__ void geglu_backward(const T *gate_up, const T *g, T *y, T *d, unsigned width) {
  gated_backward<Gelu>(gate_up, g, y, d, width);
}
EXPORT(swiglu_forward, 256, (const T *gate_up, T *y, unsigned width), (gate_up, y, width))
EXPORT(geglu_forward, 256, (const T *gate_up, T *y, unsigned width), (gate_up, y, width))
EXPORT(swiglu_backward, 256, (const T *gate_up, const T *g, T *y, T *d, unsigned width), (gate_up, g, y, d, width))
EXPORT(geglu_backward, 256, (const T *gate_up, const T *g, T *y, T *d, unsigned width), (gate_up, g, y, d, width))
