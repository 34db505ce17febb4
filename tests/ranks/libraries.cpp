// What halftone opens of NVIDIA's driver and of NCCL, without a GPU: memory of the processor stands for that of GPUs, a
// thread for each stream, files for the wires between ranks. Calls that real libraries refuse are refused: work without a
// context, addresses that no GPU has, a communicator that is still at work, two ranks on one GPU.
//
// EMULATED_NCCL_FAULT="RANK CALL CODE" lets a call of one rank fail: call 0 is its start, call N its Nth swap; the code is
// one of ncclResult_t, and 7 lets it hang. EMULATED_GPUS has the number of GPUs, 8 unless given.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <thread>
#include <vector>

namespace {

enum Cuda { CUDA_OK = 0, CUDA_INVALID_VALUE = 1, CUDA_NOT_INITIALIZED = 3, CUDA_INVALID_DEVICE = 101, CUDA_INVALID_CONTEXT = 201, CUDA_NOT_READY = 600 };
enum Nccl { OK = 0, INTERNAL = 3, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, IN_PROGRESS = 7 };

void moment() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }

std::atomic<bool> begun{false};
thread_local uintptr_t context = 0;

std::mutex memory_lock;
std::map<uint64_t, std::pair<size_t, uintptr_t>> memory;

// True where all of it is memory of the calling thread's GPU.
bool on_gpu(uint64_t address, size_t bytes) {
  std::lock_guard<std::mutex> guard(memory_lock);
  auto after = memory.upper_bound(address);
  if (after == memory.begin()) return false;
  auto [start, rest] = *std::prev(after);
  return address + bytes <= start + rest.first && rest.second == context;
}

// Does one thing after the other, beside those that ask for it.
struct Stream {
  uintptr_t context;
  std::mutex lock;
  std::condition_variable wake;
  std::deque<std::function<void()>> work;
  bool busy = false;

  explicit Stream(uintptr_t of) : context(of) {
    std::thread([this] {
      for (;;) {
        std::unique_lock<std::mutex> held(lock);
        busy = false;
        wake.wait(held, [this] { return !work.empty(); });
        auto next = std::move(work.front());
        work.pop_front();
        busy = true;
        held.unlock();
        moment();
        next();
      }
    }).detach();
  }

  void add(std::function<void()> next) {
    std::lock_guard<std::mutex> held(lock);
    work.push_back(std::move(next));
    wake.notify_one();
  }

  bool done() {
    std::lock_guard<std::mutex> held(lock);
    return work.empty() && !busy;
  }
};

struct Comm {
  std::string folder;
  int ranks, rank;
  uintptr_t context;
  std::atomic<int> state{IN_PROGRESS};
  std::atomic<bool> aborted{false};
  std::string last;
  int calls = 0;
  std::map<int, int> sent, taken;

  void fail(int code, std::string what) {
    last = std::move(what);
    state = code;
  }

  std::string file(int from, int to, int number) const {
    return folder + "/" + std::to_string(from) + "-" + std::to_string(to) + "-" + std::to_string(number);
  }

  // The code with which this call is to fail, or 0.
  int fault() {
    int of, call, code;
    const char *text = getenv("EMULATED_NCCL_FAULT");
    if (!text || sscanf(text, "%d %d %d", &of, &call, &code) != 3) return 0;
    return of == rank && call == calls ? code : 0;
  }
};

struct Swap {
  bool sends;
  void *address;
  size_t bytes;
  int peer;
  Comm *comm;
  Stream *stream;
};

thread_local int depth = 0, refused = OK;
thread_local std::vector<Swap> group;

// A file that appears as a whole.
void write(const std::string &path, const void *bytes, size_t count) {
  std::ofstream(path + ".new", std::ios::binary).write(static_cast<const char *>(bytes), count);
  rename((path + ".new").c_str(), path.c_str());
}

// Waits for a file; false where the communicator is given up first.
bool await(const Comm *comm, const std::string &path) {
  struct stat found;
  while (stat(path.c_str(), &found) != 0) {
    if (comm->aborted) return false;
    moment();
  }
  return true;
}

void perform(const std::vector<Swap> &swaps) {
  for (const Swap &swap : swaps) {
    if (!swap.sends) continue;
    Comm *comm = swap.comm;
    write(comm->file(comm->rank, swap.peer, comm->sent[swap.peer]++), swap.address, swap.bytes);
    std::ofstream(comm->folder + "/bytes-" + std::to_string(comm->rank), std::ios::app) << swap.bytes << "\n";
  }
  for (const Swap &swap : swaps) {
    if (swap.sends) continue;
    Comm *comm = swap.comm;
    std::string path = comm->file(swap.peer, comm->rank, comm->taken[swap.peer]++);
    if (!await(comm, path)) return;
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    std::string bytes = text.str();
    if (bytes.size() != swap.bytes) return comm->fail(INTERNAL, "a rank takes other bytes than were sent");
    memcpy(swap.address, bytes.data(), bytes.size());
    remove(path.c_str());
  }
}

int add(bool sends, void *address, size_t bytes, int kind, int peer, Comm *comm, Stream *stream) {
  if (depth == 0) return INVALID_USAGE;
  bool fits = comm && comm->state == OK && kind == 0 && peer >= 0 && peer < comm->ranks && peer != comm->rank;
  fits = fits && stream && stream->context == context && on_gpu(reinterpret_cast<uint64_t>(address), bytes);
  if (!fits) return refused = INVALID_ARGUMENT;
  group.push_back({sends, address, bytes, peer, comm, stream});
  return OK;
}

}  // namespace

extern "C" {

int cuInit(unsigned) {
  begun = true;
  return CUDA_OK;
}

int cuDeviceGet(int *device, int number) {
  const char *gpus = getenv("EMULATED_GPUS");
  *device = number;
  if (!begun) return CUDA_NOT_INITIALIZED;
  return number < (gpus ? atoi(gpus) : 8) ? CUDA_OK : CUDA_INVALID_DEVICE;
}

int cuDevicePrimaryCtxRetain(void **of, int device) {
  *of = reinterpret_cast<void *>(static_cast<uintptr_t>(device) + 1);
  return CUDA_OK;
}

int cuCtxSetCurrent(void *of) {
  context = reinterpret_cast<uintptr_t>(of);
  return CUDA_OK;
}

int cuStreamCreate(void **stream, unsigned flags) {
  if (!context) return CUDA_INVALID_CONTEXT;
  if (flags != 1) return CUDA_INVALID_VALUE;
  *stream = new Stream(context);
  return CUDA_OK;
}

int cuStreamQuery(void *stream) {
  if (!context) return CUDA_INVALID_CONTEXT;
  return static_cast<Stream *>(stream)->done() ? CUDA_OK : CUDA_NOT_READY;
}

int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  if (!context) return CUDA_INVALID_CONTEXT;
  if (bytes == 0) return CUDA_INVALID_VALUE;
  void *start = malloc(bytes);
  memset(start, 0xff, bytes);
  *address = reinterpret_cast<uint64_t>(start);
  std::lock_guard<std::mutex> guard(memory_lock);
  memory[*address] = {bytes, context};
  return CUDA_OK;
}

int cuMemFree_v2(uint64_t address) {
  std::lock_guard<std::mutex> guard(memory_lock);
  if (!memory.erase(address)) return CUDA_INVALID_VALUE;
  free(reinterpret_cast<void *>(address));
  return CUDA_OK;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
  if (!on_gpu(to, bytes)) return CUDA_INVALID_VALUE;
  std::vector<char> copy(static_cast<const char *>(from), static_cast<const char *>(from) + bytes);
  static_cast<Stream *>(stream)->add([=] { memcpy(reinterpret_cast<void *>(to), copy.data(), copy.size()); });
  return CUDA_OK;
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
  if (!on_gpu(from, bytes)) return CUDA_INVALID_VALUE;
  static_cast<Stream *>(stream)->add([=] { memcpy(to, reinterpret_cast<void *>(from), bytes); });
  return CUDA_OK;
}

int cuGetErrorString(int code, const char **text) {
  *text = code == CUDA_INVALID_DEVICE ? "invalid device ordinal" : "an error of the driver";
  return CUDA_OK;
}

struct Id {
  char text[128];
};

int ncclGetUniqueId(Id *id) {
  const char *folder = getenv("TMPDIR");
  snprintf(id->text, sizeof id->text, "%s/nccl-XXXXXX", folder ? folder : "/tmp");
  return mkdtemp(id->text) ? OK : 2;
}

struct Config {
  size_t size;
  unsigned magic, version;
  int blocking, cluster, least, most;
  const char *net;
};

int ncclCommInitRankConfig(void **made, int ranks, Id id, int rank, Config *config) {
  bool fits = config->size == sizeof(Config) && config->magic == 0xcafebeef && config->version == 21700;
  fits = fits && config->blocking == 0 && config->cluster == INT32_MIN && config->most == INT32_MIN && !config->net;
  if (!fits || rank < 0 || rank >= ranks) return INVALID_ARGUMENT;
  if (!context) return 1;
  auto *comm = new Comm;
  comm->folder = id.text, comm->ranks = ranks, comm->rank = rank, comm->context = context;
  *made = comm;
  int fault = comm->fault();
  if (fault == IN_PROGRESS) return IN_PROGRESS;
  std::thread([=] {
    if (fault) return comm->fail(fault, "no socket");
    std::string gpu = std::to_string(comm->context);
    write(comm->folder + "/rank-" + std::to_string(rank), gpu.data(), gpu.size());
    std::map<std::string, int> gpus;
    for (int other = 0; other < ranks; ++other) {
      std::string path = comm->folder + "/rank-" + std::to_string(other);
      if (!await(comm, path)) return;
      std::string of;
      std::ifstream(path) >> of;
      auto [first, fresh] = gpus.emplace(of, other);
      if (!fresh) return comm->fail(INVALID_USAGE, "Duplicate GPU detected : rank " + std::to_string(first->second) + " and rank " + std::to_string(other));
    }
    comm->state = OK;
  }).detach();
  return IN_PROGRESS;
}

int ncclCommGetAsyncError(Comm *comm, int *state) {
  if (!comm) return INVALID_ARGUMENT;
  *state = comm->state;
  return OK;
}

int ncclGroupStart() {
  ++depth;
  return OK;
}

int ncclSend(void *from, size_t bytes, int kind, int peer, Comm *comm, Stream *stream) {
  return add(true, from, bytes, kind, peer, comm, stream);
}

int ncclRecv(void *to, size_t bytes, int kind, int peer, Comm *comm, Stream *stream) {
  return add(false, to, bytes, kind, peer, comm, stream);
}

int ncclGroupEnd() {
  if (depth == 0) return INVALID_USAGE;
  if (--depth > 0) return OK;
  std::vector<Swap> swaps;
  swaps.swap(group);
  int code = refused;
  refused = OK;
  if (code != OK || swaps.empty()) return code;
  Comm *comm = swaps[0].comm;
  comm->calls += 1;
  comm->state = IN_PROGRESS;
  int fault = comm->fault();
  if (fault == IN_PROGRESS) return IN_PROGRESS;
  std::thread([=] {
    moment();
    if (fault) return comm->fail(fault, "the other side has gone");
    swaps[0].stream->add([=] { perform(swaps); });
    int waited = IN_PROGRESS;
    comm->state.compare_exchange_strong(waited, OK);
  }).detach();
  return IN_PROGRESS;
}

int ncclCommAbort(Comm *comm) {
  comm->aborted = true;
  return OK;
}

const char *ncclGetErrorString(int code) {
  const char *texts[] = {"no error", "unhandled cuda error", "unhandled system error", "internal error", "invalid argument", "invalid usage", "remote process exited or there was a network error", "NCCL operation in progress"};
  return code >= 0 && code < 8 ? texts[code] : "unknown result code";
}

const char *ncclGetLastError(Comm *comm) { return comm ? comm->last.c_str() : ""; }

}
