// As much of CUDA as the kernels use, in plain C++: the threads of a block are fibers on one system thread that take
// turns at barriers and shuffles. It finds what goes wrong on a GPU by chance there: a missing barrier (the order of
// the threads is reversed in every other block), a barrier that some threads never reach, shared memory that is read
// before it is written (it starts as NaN) or beyond its end, asynchronous copies that are not waited for, addresses that
// are not aligned, and arguments that do not fit a kernel's signature.
#pragma once
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <type_traits>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ inline
#define __restrict__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define DYNAMIC_SHARED(name) unsigned char *name = emulator::block.shared

struct Dim {
  unsigned x, y, z;
};

struct float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct bf16 {
  uint16_t bits;
};

inline float widen(float x) { return x; }
inline float widen(bf16 x) {
  uint32_t bits = uint32_t(x.bits) << 16;
  float wide;
  memcpy(&wide, &bits, 4);
  return wide;
}
template <typename T> T narrow(float x);
template <> inline float narrow<float>(float x) { return x; }
template <> inline bf16 narrow<bf16>(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (x != x) return bf16{0x7fff};
  return bf16{uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

namespace emulator {

struct Barrier {
  unsigned arrived = 0, generation = 0;
};

// One slot per lane for what a warp exchanges; two sets in turn, so that nobody overwrites what others still read.
struct Warp {
  Barrier barrier;
  unsigned char slots[2][32][64];
};

// A copy from global to shared memory that is under way.
struct Copy {
  void *to;
  const void *from;
  size_t bytes;
  bool there;
};

struct Fiber {
  Dim index;
  std::vector<Copy> copies;
  bool done = false, started = false;
  unsigned turn = 0;
  ucontext_t start;
  jmp_buf at;
  std::vector<unsigned char> stack;
};

struct Block {
  Dim index, grid, size;
  unsigned char *shared = nullptr;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Barrier barrier;
  Fiber *current = nullptr;
  jmp_buf scheduler;
  std::function<void()> body;
  size_t progress = 0;
};
inline Block block;

// What a kernel did wrong first, or nothing.
inline const char *faulted = nullptr;
inline void fault(const char *what) {
  if (faulted == nullptr) faulted = what;
}

inline void yield() {
  if (_setjmp(block.current->at) == 0) _longjmp(block.scheduler, 1);
}
inline void wait(Barrier &barrier, unsigned count) {
  unsigned generation = barrier.generation;
  block.progress++;
  if (++barrier.arrived == count) {
    barrier.arrived = 0;
    barrier.generation++;
  } else {
    while (barrier.generation == generation) yield();
  }
}
inline unsigned lane() { return block.current->index.x % 32; }
inline Warp &warp() { return block.warps[block.current->index.x / 32]; }

// What each lane gives, for all lanes of the warp to read until the exchange after the next.
template <typename T> unsigned char (*exchange(const T &mine))[64] {
  static_assert(sizeof(T) <= 64);
  auto slots = warp().slots[block.current->turn ^= 1];
  memcpy(slots[lane()], &mine, sizeof(T));
  wait(warp().barrier, 32);
  return slots;
}

// A fiber runs block after block.
inline void enter() {
  for (;;) {
    block.body();
    if (!block.current->copies.empty()) fault("ends while copies are under way");
    block.current->copies.clear();
    block.current->done = true;
    block.progress++;
    yield();
  }
}

// Runs the fibers of a block to their end; false where they wait for each other forever.
inline bool run_block(unsigned threads, bool reversed) {
  if (block.fibers.size() < threads) block.fibers.resize(threads);
  block.warps.assign((threads + 31) / 32, Warp());
  block.barrier = Barrier();
  for (unsigned i = 0; i < threads; i++) {
    block.fibers[i].index = {i, 0, 0};
    block.fibers[i].done = false;
    block.fibers[i].turn = 0;
  }
  for (size_t before = size_t(-1); before != block.progress;) {
    before = block.progress;
    for (volatile unsigned i = 0; i < threads; i = i + 1) {
      Fiber &fiber = block.fibers[reversed ? threads - 1 - i : i];
      if (fiber.done) continue;
      block.current = &fiber;
      if (_setjmp(block.scheduler) != 0) continue;
      if (fiber.started) _longjmp(fiber.at, 1);
      fiber.started = true;
      fiber.stack.resize(192 << 10);
      getcontext(&fiber.start);
      fiber.start.uc_stack.ss_sp = fiber.stack.data();
      fiber.start.uc_stack.ss_size = fiber.stack.size();
      makecontext(&fiber.start, enter, 0);
      setcontext(&fiber.start);
    }
  }
  for (unsigned i = 0; i < threads; i++) {
    if (block.fibers[i].done) continue;
    block.fibers.clear(); // They are stuck in the middle of their work.
    return false;
  }
  return true;
}

// An argument's kind: f float, d double, u unsigned; pointers to F float, D double, U unsigned, B bf16.
template <typename A> constexpr char kind() {
  using P = std::remove_cv_t<std::remove_pointer_t<A>>;
  if constexpr (!std::is_pointer_v<A>)
    return std::is_same_v<A, float> ? 'f' : std::is_same_v<A, double> ? 'd' : std::is_same_v<A, unsigned> ? 'u' : '?';
  return std::is_same_v<P, float> ? 'F' : std::is_same_v<P, double> ? 'D' : std::is_same_v<P, unsigned> ? 'U' : 'B';
}

struct Kernel {
  std::string kinds;
  std::function<void(void **)> call;
};
inline std::map<std::string, Kernel> &kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}
template <typename... A, size_t... I> void call(void (*f)(A...), void **args, std::index_sequence<I...>) {
  f(*static_cast<A *>(args[I])...);
}
struct Register {
  template <typename... A> Register(const char *name, void (*f)(A...)) {
    kernels()[name] = {{kind<A>()...}, [f](void **args) { call(f, args, std::index_sequence_for<A...>{}); }};
  }
};

} // namespace emulator

inline float power_of_2(float x) { return exp2f(x); }

// Copies arrive as late as they may: what is read before `await_copies` is what was there before.
template <int BYTES> void copy_ahead(void *to, const void *from, bool there) {
  if (reinterpret_cast<uintptr_t>(to) % BYTES != 0 || (there && reinterpret_cast<uintptr_t>(from) % BYTES != 0))
    emulator::fault("copies to or from an address that is no multiple of the size");
  emulator::block.current->copies.push_back({to, from, BYTES, there});
}
inline void await_copies() {
  for (const emulator::Copy &copy : emulator::block.current->copies)
    copy.there ? (void)memcpy(copy.to, copy.from, copy.bytes) : (void)memset(copy.to, 0, copy.bytes);
  emulator::block.current->copies.clear();
}

#define threadIdx (emulator::block.current->index)
#define blockIdx (emulator::block.index)
#define blockDim (emulator::block.size)
#define gridDim (emulator::block.grid)
#define REGISTER(symbol) static emulator::Register registered(#symbol, symbol);

inline void __syncthreads() { emulator::wait(emulator::block.barrier, emulator::block.size.x); }
inline void __syncwarp() { emulator::wait(emulator::warp().barrier, 32); }
template <typename T> T __shfl_sync(unsigned, T x, int source) {
  auto slots = emulator::exchange(x);
  memcpy(&x, slots[source % 32], sizeof(T));
  return x;
}
template <typename T> T __shfl_xor_sync(unsigned mask, T x, int bits) {
  return __shfl_sync(mask, x, emulator::lane() ^ bits);
}
template <typename T> T __shfl_up_sync(unsigned mask, T x, unsigned by) {
  unsigned lane = emulator::lane();
  return __shfl_sync(mask, x, lane >= by ? lane - by : lane);
}
using std::max;
using std::min;
