// As much of CUDA as the kernels use, in plain C++: the threads of a block are fibers on one system thread that take
// turns at barriers and shuffles. It finds what goes wrong on a GPU by chance there: a missing barrier (the order of
// the threads is reversed in every other block), a barrier that some threads never reach, shared memory that is read
// before it is written (it starts as NaN in each block) or beyond its end, asynchronous copies that are not waited for,
// addresses that are not aligned, more shared memory than any supported GPU has, and threads or arguments that do not fit
// a kernel's declaration. `watch.cpp` looks at each access besides.
#pragma once
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <map>
#include <memory>
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
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define DYNAMIC_SHARED(name) unsigned char *name = emulator::block().shared.data()
#define SHARED(type, name, dims)                                                                                       \
  static char key_of_##name;                                                                                          \
  auto &name = emulator::shared_array<type dims>(&key_of_##name)

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

inline unsigned float_bits(float x) {
  unsigned bits;
  memcpy(&bits, &x, 4);
  return bits;
}

// Built with WATCHED, what each thread reads and writes is told to `watch.cpp`.
#ifdef WATCHED
extern "C" {
void watch_launch(const char *kernel);
void watch_block();
void watch_thread(unsigned thread, unsigned epoch);
void watch_shared(const void *start, size_t bytes);
void watch_read(const void *at, size_t bytes);
void watch_write(const void *at, size_t bytes);
}
#else
inline void watch_launch(const char *) {}
inline void watch_block() {}
inline void watch_thread(unsigned, unsigned) {}
inline void watch_shared(const void *, size_t) {}
inline void watch_read(const void *, size_t) {}
inline void watch_write(const void *, size_t) {}
#endif

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
  std::unique_ptr<unsigned char[]> stack;
};

// An array of a kernel in shared memory, by the address of its declaration.
struct Array {
  const void *key;
  std::vector<unsigned char> memory;
};

struct Block {
  Dim index, grid, size;
  // Dynamic, with a guard behind it; and that of arrays.
  std::vector<unsigned char> shared;
  std::vector<Array> arrays;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Barrier barrier;
  // Barriers so far that order what is before and after.
  unsigned epoch = 0;
  Fiber *current = nullptr;
  jmp_buf scheduler;
  std::function<void()> body;
  size_t progress = 0;
};
// A system thread that launches kernels has a block of its own.
inline Block &block() {
  static thread_local Block own;
  return own;
}

// Bytes behind dynamic shared memory that nobody may write to; AddressSanitizer has its own.
#ifdef __SANITIZE_ADDRESS__
constexpr size_t GUARD = 0;
#else
constexpr size_t GUARD = 1024;
#endif

// Shared memory that a block can have on the smallest GPU that is supported, in bytes: compute capability 8.6.
constexpr size_t MOST_SHARED = 99 << 10;

// What a kernel did wrong first, or nothing.
inline thread_local const char *faulted = nullptr;
inline void fault(const char *what) {
  if (faulted == nullptr) faulted = what;
}

// Goes to another fiber, whose stack is as it was left. AddressSanitizer takes each jump for one that leaves frames
// behind, and looks through the stack: three quarters of all time.
#ifdef __SANITIZE_ADDRESS__
inline void jump(jmp_buf to) {
  static const auto libc = reinterpret_cast<void (*)(jmp_buf, int)>(dlsym(dlopen("libc.so.6", RTLD_LAZY), "_longjmp"));
  libc(to, 1);
}
#else
inline void jump(jmp_buf to) { _longjmp(to, 1); }
#endif

inline void yield() {
  if (_setjmp(block().current->at) == 0) jump(block().scheduler);
}

// Until `count` have arrived; true for the one that comes last.
inline bool wait(Barrier &barrier, unsigned count) {
  unsigned generation = barrier.generation;
  block().progress++;
  if (++barrier.arrived == count) {
    barrier.arrived = 0;
    barrier.generation = generation + 1;
    return true;
  }
  while (*const_cast<volatile unsigned *>(&barrier.generation) == generation) yield();
  return false;
}

inline unsigned lane() { return block().current->index.x % 32; }
inline Warp &warp() { return block().warps[block().current->index.x / 32]; }

// What each lane gives, for all lanes of the warp to read until the exchange after the next.
template <typename T> unsigned char (*exchange(const T &mine))[64] {
  static_assert(sizeof(T) <= 64);
  auto slots = warp().slots[block().current->turn ^= 1];
  memcpy(slots[lane()], &mine, sizeof(T));
  wait(warp().barrier, 32);
  return slots;
}

// A barrier of a source line. `EMULATOR_CUT`, such as attention.cu:46, names one that orders nothing for `watch.cpp`.
inline void barrier(const char *file, int line) {
  static const std::string cut = getenv("EMULATOR_CUT") == nullptr ? "" : getenv("EMULATOR_CUT");
  if (wait(block().barrier, block().size.x)) {
    const char *name = strrchr(file, '/');
    block().epoch += cut != std::string(name == nullptr ? file : name + 1) + ':' + std::to_string(line);
  }
  watch_thread(block().current->index.x, block().epoch);
  // What is still under way may arrive after the barrier too.
  for (const Copy &copy : block().current->copies) watch_write(copy.to, copy.bytes);
}

// The array of this block that a declaration stands for.
template <typename A> A &shared_array(const void *key) {
  auto &arrays = block().arrays;
  auto found = std::find_if(arrays.begin(), arrays.end(), [&](const Array &one) { return one.key == key; });
  if (found == arrays.end()) {
    arrays.push_back({key, std::vector<unsigned char>(sizeof(A), 0xff)});
    found = arrays.end() - 1;
    watch_shared(found->memory.data(), sizeof(A));
  }
  return *reinterpret_cast<A *>(found->memory.data());
}

inline void enter() {
  for (;;) {
    block().body();
    if (!block().current->copies.empty()) fault("ends while copies are under way");
    block().current->copies.clear();
    block().current->done = true;
    block().progress++;
    yield();
  }
}

// Makes a fiber that enters.
inline void prepare(Fiber &fiber) {
  fiber.started = true;
  constexpr size_t bytes = 256 << 10;
  fiber.stack.reset(new unsigned char[bytes]);
  getcontext(&fiber.start);
  fiber.start.uc_stack.ss_sp = fiber.stack.get();
  fiber.start.uc_stack.ss_size = bytes;
  fiber.start.uc_link = nullptr;
  makecontext(&fiber.start, enter, 0);
}

// Runs the fibers of a block to their end; false where they wait for each other forever.
inline bool run_block(unsigned threads, bool reversed) {
  // Contexts point into themselves and cannot be moved.
  block().fibers.reserve(1024);
  if (block().fibers.size() < threads) block().fibers.resize(threads);
  block().warps.assign((threads + 31) / 32, Warp());
  block().barrier = Barrier();
  block().epoch = 0;
  watch_block();
  // Arrays are kept where they are: they move when one is added, which the vectors of their memory do not.
  for (Array &one : block().arrays) {
    memset(one.memory.data(), 0xff, one.memory.size());
    watch_shared(one.memory.data(), one.memory.size());
  }
  std::fill(block().shared.begin(), block().shared.end(), 0xff);
  watch_shared(block().shared.data(), block().shared.size() - GUARD);
  for (unsigned i = 0; i < threads; i++) {
    block().fibers[i].index = {i, 0, 0};
    block().fibers[i].done = false;
    block().fibers[i].turn = 0;
  }
  for (size_t before = size_t(-1); before != block().progress;) {
    before = block().progress;
    for (volatile unsigned i = 0; i < threads; i = i + 1) {
      Fiber &fiber = block().fibers[reversed ? threads - 1 - i : i];
      if (fiber.done) continue;
      block().current = &fiber;
      watch_thread(fiber.index.x, block().epoch);
      if (_setjmp(block().scheduler) != 0) continue;
      if (fiber.started) jump(fiber.at);
      prepare(fiber);
      setcontext(&fiber.start);
    }
  }
  for (unsigned i = 0; i < threads; i++) {
    if (block().fibers[i].done) continue;
    block().fibers.clear(); // They are stuck in the middle of their work.
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
  // Of each block, by its declaration.
  unsigned threads;
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
  template <typename... A> Register(const char *name, unsigned threads, void (*f)(A...)) {
    kernels()[name] = {{kind<A>()...}, threads, [f](void **args) { call(f, args, std::index_sequence_for<A...>{}); }};
  }
};

} // namespace emulator

inline float power_of_2(float x) { return exp2f(x); }

// Copies may arrive at any time until `await_copies`: until then there is NaN.
template <int BYTES> void copy_ahead(void *to, const void *from, bool there) {
  if (reinterpret_cast<uintptr_t>(to) % BYTES != 0 || (there && reinterpret_cast<uintptr_t>(from) % BYTES != 0))
    emulator::fault("copies to or from an address that is no multiple of the size");
  memset(to, 0xff, BYTES);
  watch_write(to, BYTES);
  emulator::block().current->copies.push_back({to, from, BYTES, there});
}
inline void await_copies() {
  for (const emulator::Copy &copy : emulator::block().current->copies) {
    if (copy.there) {
      memcpy(copy.to, copy.from, copy.bytes);
      watch_read(copy.from, copy.bytes);
    } else {
      memset(copy.to, 0, copy.bytes);
    }
    watch_write(copy.to, copy.bytes);
  }
  emulator::block().current->copies.clear();
}

#define threadIdx (emulator::block().current->index)
#define blockIdx (emulator::block().index)
#define blockDim (emulator::block().size)
#define gridDim (emulator::block().grid)
#define REGISTER(symbol, threads) static emulator::Register registered(#symbol, threads, symbol);

#define __syncthreads() emulator::barrier(__FILE__, __LINE__)
template <typename T> T __shfl_sync(unsigned, T x, int source) {
  auto slots = emulator::exchange(x);
  memcpy(&x, slots[source % 32], sizeof(T));
  return x;
}
template <typename T> T __shfl_xor_sync(unsigned mask, T x, int bits) {
  return __shfl_sync(mask, x, emulator::lane() ^ bits);
}
using std::max;
using std::min;
