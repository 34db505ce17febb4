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

// Built with ThreadSanitizer, the same finds races: each thread of a block is a fiber to it, __syncthreads orders what is
// before and after, and shuffles order nothing. What the emulator itself does is not looked at.
#ifdef __SANITIZE_THREAD__
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned);
void __tsan_switch_to_fiber(void *, unsigned);
void __tsan_acquire(void *);
void __tsan_release(void *);
}
#define UNCHECKED __attribute__((no_sanitize("thread")))
#else
#define UNCHECKED
#endif

namespace emulator {

struct Barrier {
  volatile unsigned arrived = 0, generation = 0;
  // Addresses for ThreadSanitizer, of even and odd generations.
  char order[2];
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
  void *known = nullptr; // to ThreadSanitizer
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
  volatile size_t progress = 0;
  // For ThreadSanitizer.
  ucontext_t outside;
  void *known = nullptr;
  char begin, end;
};
inline Block block;

// What a kernel did wrong first, or nothing.
inline const char *faulted = nullptr;
inline void fault(const char *what) {
  if (faulted == nullptr) faulted = what;
}

#ifdef __SANITIZE_THREAD__
UNCHECKED inline void yield() {
  Fiber *fiber = block.current;
  __tsan_switch_to_fiber(block.known, 1);
  swapcontext(&fiber->start, &block.outside);
}
inline void before(char *place) { __tsan_release(place); }
inline void after(char *place) { __tsan_acquire(place); }
#else
inline void yield() {
  if (_setjmp(block.current->at) == 0) _longjmp(block.scheduler, 1);
}
inline void before(char *) {}
inline void after(char *) {}
#endif

// Until `count` have arrived. What they did before is ordered before what they do after where `orders` says so.
UNCHECKED inline void wait(Barrier &barrier, unsigned count, bool orders) {
  unsigned generation = barrier.generation;
  if (orders) before(&barrier.order[generation % 2]);
  block.progress = block.progress + 1;
  unsigned arrived = barrier.arrived + 1;
  barrier.arrived = arrived;
  if (arrived == count) {
    barrier.arrived = 0;
    barrier.generation = generation + 1;
  } else {
    while (barrier.generation == generation) yield();
  }
  if (orders) after(&barrier.order[generation % 2]);
}
// Bytes that only the emulator moves.
#ifdef __SANITIZE_THREAD__
UNCHECKED inline void move(void *to, const void *from, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) static_cast<volatile char *>(to)[i] = static_cast<const volatile char *>(from)[i];
}
#else
inline void move(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }
#endif

UNCHECKED inline unsigned lane() { return block.current->index.x % 32; }
UNCHECKED inline Warp &warp() { return block.warps[block.current->index.x / 32]; }

// What each lane gives, for all lanes of the warp to read until the exchange after the next.
template <typename T> UNCHECKED unsigned char (*exchange(const T &mine))[64] {
  static_assert(sizeof(T) <= 64);
  auto slots = warp().slots[block.current->turn ^= 1];
  move(slots[lane()], &mine, sizeof(T));
  wait(warp().barrier, 32, false);
  return slots;
}

// A fiber runs block after block.
UNCHECKED inline void enter() {
  for (;;) {
    after(&block.begin);
    block.body();
    if (!block.current->copies.empty()) fault("ends while copies are under way");
    block.current->copies.clear();
    before(&block.end);
    block.current->done = true;
    block.progress = block.progress + 1;
    yield();
  }
}

// Makes a fiber that enters.
inline void prepare(Fiber &fiber) {
  fiber.started = true;
  fiber.stack.resize(256 << 10);
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack.data();
  fiber.start.uc_stack.ss_size = fiber.stack.size();
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, enter, 0);
}

// Runs the fibers of a block to their end; false where they wait for each other forever.
UNCHECKED inline bool run_block(unsigned threads, bool reversed) {
  // Contexts point into themselves and cannot be moved.
  block.fibers.reserve(1024);
  if (block.fibers.size() < threads) block.fibers.resize(threads);
  block.warps.assign((threads + 31) / 32, Warp());
  block.barrier = Barrier();
  for (unsigned i = 0; i < threads; i++) {
    block.fibers[i].index = {i, 0, 0};
    block.fibers[i].done = false;
    block.fibers[i].turn = 0;
  }
  before(&block.begin);
  for (size_t before = size_t(-1); before != block.progress;) {
    before = block.progress;
    for (volatile unsigned i = 0; i < threads; i = i + 1) {
      Fiber &fiber = block.fibers[reversed ? threads - 1 - i : i];
      if (fiber.done) continue;
      block.current = &fiber;
#ifdef __SANITIZE_THREAD__
      if (block.known == nullptr) block.known = __tsan_get_current_fiber();
      if (!fiber.started) {
        prepare(fiber);
        fiber.known = __tsan_create_fiber(0);
      }
      __tsan_switch_to_fiber(fiber.known, 1);
      swapcontext(&block.outside, &fiber.start);
#else
      if (_setjmp(block.scheduler) != 0) continue;
      if (fiber.started) _longjmp(fiber.at, 1);
      prepare(fiber);
      setcontext(&fiber.start);
#endif
    }
  }
  for (unsigned i = 0; i < threads; i++) {
    if (block.fibers[i].done) continue;
    block.fibers.clear(); // They are stuck in the middle of their work.
    return false;
  }
  after(&block.end);
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

// Copies may arrive at any time until `await_copies`: until then there is NaN.
template <int BYTES> void copy_ahead(void *to, const void *from, bool there) {
  if (reinterpret_cast<uintptr_t>(to) % BYTES != 0 || (there && reinterpret_cast<uintptr_t>(from) % BYTES != 0))
    emulator::fault("copies to or from an address that is no multiple of the size");
  memset(to, 0xff, BYTES);
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

inline void __syncthreads() { emulator::wait(emulator::block.barrier, emulator::block.size.x, true); }
inline void __syncwarp() { emulator::wait(emulator::warp().barrier, 32, true); }
template <typename T> UNCHECKED T __shfl_sync(unsigned, T x, int source) {
  auto slots = emulator::exchange(x);
  emulator::move(&x, slots[source % 32], sizeof(T));
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
