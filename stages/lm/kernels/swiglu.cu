// silu(gate) * up of rows gate | up [T, 2 F]. A block for each row.
#include "common.cuh"

template <int N, typename T> __device__ void gate_row(const T *gate, const T *up, T *y, unsigned width) {
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> g = load<N>(gate + i), u = load<N>(up + i);
    for (int j = 0; j < N; j++) {
      float x = widen(g.x[j]);
      g.x[j] = narrow<T>(x / (1.0f + expf(-x)) * widen(u.x[j]));
    }
    store<N>(y + i, g);
  }
}

template <typename T> __device__ void swiglu_forward(const T *gate_up, T *y, unsigned width) {
  const T *gate = gate_up + size_t(blockIdx.x) * 2 * width;
  T *row = y + size_t(blockIdx.x) * width;
  if (packed(width, gate_up, y))
    gate_row<8>(gate, gate + width, row, width);
  else
    gate_row<1>(gate, gate + width, row, width);
}
EXPORT(swiglu_forward, 256, (const T *gate_up, T *y, unsigned width), (gate_up, y, width))

template <int N, typename T>
__device__ void gate_row_backward(const T *gate_up, const T *g, T *y, T *d, unsigned width) {
  for (unsigned i = threadIdx.x * N; i < width; i += blockDim.x * N) {
    Pack<T, N> gates = load<N>(gate_up + i), ups = load<N>(gate_up + width + i), gs = load<N>(g + i), ys;
    for (int j = 0; j < N; j++) {
      float gate = widen(gates.x[j]), up = widen(ups.x[j]), slope = widen(gs.x[j]);
      float s = 1.0f / (1.0f + expf(-gate));
      ys.x[j] = narrow<T>(gate * s * up);
      gates.x[j] = narrow<T>(slope * up * s * (1.0f + gate * (1.0f - s)));
      ups.x[j] = narrow<T>(slope * gate * s);
    }
    store<N>(y + i, ys);
    store<N>(d + i, gates);
    store<N>(d + width + i, ups);
  }
}

// The activation again, and with s = sigmoid(gate): d gate = g up s (1 + gate (1 - s)), d up = g gate s.
template <typename T> __device__ void swiglu_backward(const T *gate_up, const T *g, T *y, T *d, unsigned width) {
  size_t row = size_t(blockIdx.x) * width;
  if (packed(width, gate_up, g, y, d))
    gate_row_backward<8>(gate_up + 2 * row, g + row, y + row, d + 2 * row, width);
  else
    gate_row_backward<1>(gate_up + 2 * row, g + row, y + row, d + 2 * row, width);
}
EXPORT(swiglu_backward, 256, (const T *gate_up, const T *g, T *y, T *d, unsigned width), (gate_up, g, y, d, width))
