// A look at each access of kernels to memory. The compiler calls the functions below for ThreadSanitizer, whose library
// is not linked. Found are:
//  - races: two threads of a block meet at an address between two barriers, and one of them writes. Shuffles order nothing;
//  - overlaps: a block writes what another block of the same launch reads or writes;
//  - shared memory that is read before the block wrote to it;
//  - addresses that are no multiple of what is moved at once.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

namespace {

constexpr uint32_t NONE = 0, SEVERAL = UINT32_MAX;

struct Access {
  uint32_t block = NONE, thread = 0, epoch = 0;
};

// The last accesses to a byte.
struct Cell {
  Access read, written;
};

struct Memory {
  uintptr_t start, end;
  bool shared;
  std::vector<Cell> cells;
};

std::vector<Memory> memories;
// Blocks are numbered through all launches, from 1 on.
uint32_t block = 0, first_of_launch = 1, thread = 0, epoch = 0;
std::string kernel;
std::set<std::string> found;

void find(const char *what, bool shared) {
  std::string text = kernel + ": " + what + (shared ? " in shared memory" : "");
  if (found.insert(text).second) printf("found: %s\n", text.c_str());
  // One is enough where it is looked for.
  const char *cut = getenv("EMULATOR_CUT");
  if (cut != nullptr && *cut != 0) fflush(stdout), _Exit(0);
}

Memory *memory_at(uintptr_t at) {
  for (Memory &one : memories)
    if (one.start <= at && at < one.end) return &one;
  return nullptr;
}

bool of_launch(const Access &access) { return access.block >= first_of_launch; }
bool other_block(const Access &access) { return of_launch(access) && access.block != block; }
bool unordered(const Access &access) {
  return access.block == block && access.epoch == epoch && access.thread != thread;
}

void look(const void *address, size_t bytes, bool writes) {
  uintptr_t at = reinterpret_cast<uintptr_t>(address);
  Memory *memory = memory_at(at);
  if (memory == nullptr) return;
  bool shared = memory->shared;
  for (size_t i = at - memory->start; i < at - memory->start + bytes && i < memory->cells.size(); i++) {
    Cell &cell = memory->cells[i];
    if (shared && !writes && cell.written.block != block) find("a thread reads what nobody wrote", shared);
    if (!shared && other_block(cell.written))
      find(writes ? "two blocks write to one address" : "a block reads what another writes", shared);
    if (!shared && writes && other_block(cell.read)) find("a block reads what another writes", shared);
    if (unordered(cell.written) || (writes && unordered(cell.read))) find("a race", shared);
    Access now = {block, thread, epoch};
    if (writes) {
      cell.written = now;
    } else {
      if (unordered(cell.read)) now.thread = SEVERAL;
      if (other_block(cell.read)) now.block = SEVERAL;
      cell.read = now;
    }
  }
}

void aligned(const void *address, size_t bytes) {
  uintptr_t at = reinterpret_cast<uintptr_t>(address);
  Memory *memory = memory_at(at);
  if (memory != nullptr && at % bytes != 0) find("an address that is no multiple of what is moved", memory->shared);
}

} // namespace

extern "C" {
void watch_launch(const char *name) {
  kernel = name;
  first_of_launch = block + 1;
  // Shared memory of the launch before, whose place may be another's.
  memories.erase(std::remove_if(memories.begin(), memories.end(), [](const Memory &one) { return one.shared; }),
                 memories.end());
}
void watch_block() { block++; }
void watch_thread(unsigned which, unsigned passed) { thread = which, epoch = passed; }
void watch_shared(const void *start, size_t bytes) {
  uintptr_t at = reinterpret_cast<uintptr_t>(start);
  if (Memory *known = memory_at(at)) {
    known->cells.assign(bytes, {});
    known->start = at, known->end = at + bytes;
  } else {
    memories.push_back({at, at + bytes, true, std::vector<Cell>(bytes)});
  }
}
void watch_read(const void *at, size_t bytes) { look(at, bytes, false); }
void watch_write(const void *at, size_t bytes) { look(at, bytes, true); }
// Memory that all blocks share.
void watch_global(const void *start, size_t bytes) {
  uintptr_t at = reinterpret_cast<uintptr_t>(start);
  if (memory_at(at) == nullptr) memories.push_back({at, at + bytes, false, std::vector<Cell>(bytes)});
}
// Forgets all memory, which may be another's from now on.
void watch_nothing() { memories.clear(); }
unsigned watch_found() { return unsigned(found.size()); }

void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
void __tsan_read_range(void *at, size_t bytes) { look(at, bytes, false); }
void __tsan_write_range(void *at, size_t bytes) { look(at, bytes, true); }
#define ACCESSES(bytes)                                                                                               \
  void __tsan_read##bytes(void *at) { aligned(at, bytes), look(at, bytes, false); }                                   \
  void __tsan_write##bytes(void *at) { aligned(at, bytes), look(at, bytes, true); }                                   \
  void __tsan_unaligned_read##bytes(void *at) { look(at, bytes, false); }                                             \
  void __tsan_unaligned_write##bytes(void *at) { look(at, bytes, true); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
}
