// All kernels, for the processor: built as a shared library by the tests of `ops::cuda`.
#define EMULATED
#include "cuda.h"

#include "../../kernels/adamw.cu"
#include "../../kernels/attention.cu"
#include "../../kernels/attention_backward.cu"
#include "../../kernels/decode.cu"
#include "../../kernels/embed.cu"
#include "../../kernels/encode.cu"
#include "../../kernels/dropout.cu"
#include "../../kernels/gated.cu"
#include "../../kernels/head.cu"
#include "../../kernels/linear.cu"
#include "../../kernels/norm.cu"
#include "../../kernels/pointwise.cu"
#include "../../kernels/rope.cu"
#include "../../kernels/sampling.cu"
#include "../../kernels/whole_norm.cu"

// Runs a kernel; gives what is wrong with the launch, or nothing. `kinds` has a letter for each argument.
extern "C" const char *emulate(const char *name, const unsigned *grid, unsigned threads, unsigned shared,
                               const char *kinds, void **args) {
  using namespace emulator;
  static thread_local std::string what;
  static thread_local unsigned launches = 0;
  auto found = kernels().find(name);
  if (found == kernels().end()) return (what = std::string("there is no kernel ") + name).c_str();
  const Kernel &kernel = found->second;
  if (kernel.kinds != kinds)
    return (what = std::string(name) + " takes " + kernel.kinds + " and got " + kinds).c_str();
  if (threads != kernel.threads)
    return (what = std::string(name) + " is declared for " + std::to_string(kernel.threads) + " threads").c_str();
  if (grid[0] == 0 || grid[1] == 0 || grid[1] > 65535) return (what = std::string(name) + ": a grid out of range").c_str();
  block().shared.assign(shared + GUARD, 0xff);
  block().arrays.clear();
  block().grid = {grid[0], grid[1], 1};
  block().size = {threads, 1, 1};
  block().body = [&] { kernel.call(args); };
  launches++;
  watch_launch(name);
  for (unsigned y = 0; y < grid[1]; y++)
    for (unsigned x = 0; x < grid[0]; x++) {
      block().index = {x, y, 0};
      if (!run_block(threads, (x + y + launches) % 2 == 1))
        return (what = std::string(name) + ": threads wait for others that never come").c_str();
      size_t taken = shared;
      for (const Array &one : block().arrays) taken += one.memory.size();
      if (taken > MOST_SHARED) fault("takes more shared memory than a block can have");
      if (faulted != nullptr) {
        what = std::string(name) + ' ' + faulted;
        faulted = nullptr;
        return what.c_str();
      }
      for (size_t i = 0; i < GUARD; i++)
        if (block().shared[shared + i] != 0xff) return (what = std::string(name) + " writes beyond its shared memory").c_str();
    }
  return nullptr;
}
