// A driver and the libraries of CUDA for a machine without a GPU, as `tests/gpu-rehearsal.sh` builds and uses them: all
// kernels and products on the processor, each as it is launched, or when the graph that it was recorded into is. What
// programs with the feature `cuda` do between their kernels is so run as it would be on a GPU: opening devices, loading
// kernels, memory, copies, products, graphs.
//
// It is stricter than a GPU where a GPU would go on with wrong numbers: memory is NaN until it is written and after it
// was given back; while a stream is recorded, host memory is not copied, nothing waits, and only memory that was taken
// in the recording is given back. Kernels of candle are there as far as they are met; another says its name.
//
// STAND_IN names what it lacks: `graphs` (no stream is recorded), `recording` (products fail while one is), `room` (the
// first launch of each graph finds no memory), `pool` (no memory ahead of its use), `cublaslt`.
#include "emulator.cpp"
#include <mutex>
#include <set>

using Pointer = unsigned long long;
using Work = std::function<void()>;
using Handle = void *;

enum Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901 };

static bool lacks(const char *what) {
  const char *all = getenv("STAND_IN");
  return all != nullptr && strcmp(all, what) == 0;
}

static std::recursive_mutex everything;
#define ALONE std::lock_guard<std::recursive_mutex> alone(everything)

[[noreturn]] static void unknown(const std::string &what) {
  fprintf(stderr, "the stand-in for a GPU: %s\n", what.c_str());
  abort();
}

// What was done, printed at the end.
static struct Counts {
  size_t kernels = 0, of_candle = 0, products = 0, graphs = 0, recorded = 0;
  ~Counts() {
    fprintf(stderr, "the stand-in for a GPU: %zu kernels, %zu of candle, %zu products, %zu graphs recorded and %zu launched\n",
            kernels, of_candle, products, recorded, graphs);
  }
} counts;

// Memory.

static const int GPUS = 2;
static const size_t GPU_BYTES = size_t(80) << 30;
static std::map<Pointer, size_t> taken;
static size_t used = 0;

static Pointer take(size_t bytes) {
  void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(memory, 0xff, (bytes + 255) / 256 * 256);
  taken[Pointer(memory)] = bytes;
  used += bytes;
  return Pointer(memory);
}

static bool give_back(Pointer at) {
  auto found = taken.find(at);
  if (found == taken.end()) return false;
  memset(reinterpret_cast<void *>(at), 0xff, found->second);
  used -= found->second;
  free(reinterpret_cast<void *>(at));
  taken.erase(found);
  return true;
}

// True where all of a stretch of memory is taken.
static bool is_taken(Pointer at, size_t bytes) {
  auto after = taken.upper_bound(at);
  if (after == taken.begin()) return false;
  --after;
  return at + bytes <= after->first + after->second;
}

// Streams and graphs.

struct Graph {
  std::vector<Work> work;
  // Memory that was taken in the recording, and its bytes; and what of it is not given back there.
  std::map<Pointer, size_t> own;
  std::set<Pointer> open;
  bool found_room = false;
  ~Graph() {
    for (auto &[at, bytes] : own) give_back(at);
  }
};

struct Stream {
  std::shared_ptr<Graph> recorded;
  bool spoilt = false;
};

static std::set<Stream *> streams;

// Says why a call is not allowed now, and spoils the recording; `SUCCESS` where nothing is recorded.
static int refuse_in_recording(Stream *stream, const char *what) {
  if (stream == nullptr || !stream->recorded) return SUCCESS;
  fprintf(stderr, "the stand-in for a GPU: %s while a stream is recorded\n", what);
  stream->spoilt = true;
  return CAPTURE_UNSUPPORTED;
}

static int do_or_record(Stream *stream, Work work) {
  if (stream == nullptr) unknown("work on the default stream, which cannot be recorded");
  if (stream->spoilt) return CAPTURE_INVALIDATED;
  if (stream->recorded)
    stream->recorded->work.push_back(work);
  else
    work();
  return SUCCESS;
}

extern "C" {
int cuInit(unsigned) { return SUCCESS; }
int cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
int cuGetErrorName(int, const char **name) { return *name = "CUDA_ERROR", SUCCESS; }
int cuGetErrorString(int, const char **text) { return *text = "an error of the stand-in", SUCCESS; }
int cuDeviceGetCount(int *count) { return *count = GPUS, SUCCESS; }
int cuDeviceGet(int *device, int number) { return *device = number, number < GPUS ? SUCCESS : 101; }
int cuDeviceGetName(char *name, int size, int) { return snprintf(name, size, "stand-in"), SUCCESS; }
int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = GPU_BYTES, SUCCESS; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
  // The compute capability, multiprocessors, and whether there are pools of memory.
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 132 : attribute == 115 ? !lacks("pool") : 0;
  return SUCCESS;
}
static char contexts[GPUS];
int cuDevicePrimaryCtxRetain(Handle *context, int device) { return *context = contexts + device, SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
static thread_local Handle current = nullptr;
int cuCtxSetCurrent(Handle context) { return current = context, SUCCESS; }
int cuCtxGetCurrent(Handle *context) { return *context = current, SUCCESS; }
int cuCtxSynchronize() {
  ALONE;
  for (Stream *stream : streams)
    if (int wrong = refuse_in_recording(stream, "all work is waited for")) return wrong;
  return SUCCESS;
}

int cuStreamCreate(Stream **stream, unsigned) { ALONE; return streams.insert(*stream = new Stream), SUCCESS; }
int cuStreamDestroy_v2(Stream *stream) { ALONE; return streams.erase(stream), delete stream, SUCCESS; }
int cuStreamSynchronize(Stream *stream) { ALONE; return refuse_in_recording(stream, "a stream is waited for"); }
int cuStreamWaitEvent(Stream *, Handle, unsigned) { return SUCCESS; }
int cuEventCreate(Handle *event, unsigned) { return *event = new int, SUCCESS; }
int cuEventRecord(Handle, Stream *) { return SUCCESS; }
int cuEventSynchronize(Handle) { return SUCCESS; }
int cuEventDestroy_v2(Handle event) { return delete static_cast<int *>(event), SUCCESS; }
int cuEventElapsedTime_v2(float *ms, Handle, Handle) { return *ms = 1, SUCCESS; }

int cuMemGetInfo_v2(size_t *free, size_t *all) { ALONE; return *free = GPU_BYTES - used, *all = GPU_BYTES, SUCCESS; }
int cuDeviceGetDefaultMemPool(Handle *pool, int) { return *pool = &everything, SUCCESS; }
int cuMemPoolSetAttribute(Handle, int, void *) { return SUCCESS; }
int cuMemPoolGetAttribute(Handle, int, void *value) { return *static_cast<uint64_t *>(value) = 0, SUCCESS; }
int cuMemPoolTrimTo(Handle, size_t) { return SUCCESS; }
int cuDeviceGraphMemTrim(int) { return SUCCESS; }

int cuMemAllocAsync(Pointer *at, size_t bytes, Stream *stream) {
  ALONE;
  if (bytes == 0) return INVALID_VALUE;
  Pointer memory = *at = take(bytes);
  if (!stream->recorded) return SUCCESS;
  stream->recorded->own[memory] = bytes;
  stream->recorded->open.insert(memory);
  return do_or_record(stream, [=] { memset(reinterpret_cast<void *>(memory), 0xff, bytes); });
}
int cuMemFreeAsync(Pointer at, Stream *stream) {
  ALONE;
  if (!stream->recorded) return give_back(at) ? SUCCESS : INVALID_VALUE;
  if (stream->recorded->open.erase(at) == 0) {
    fprintf(stderr, "the stand-in for a GPU: memory from outside is given back while a stream is recorded\n");
    return stream->spoilt = true, CAPTURE_INVALIDATED;
  }
  size_t bytes = stream->recorded->own[at];
  return do_or_record(stream, [=] { memset(reinterpret_cast<void *>(at), 0xff, bytes); });
}
int cuMemAlloc_v2(Pointer *at, size_t bytes) {
  ALONE;
  if (bytes == 0) return INVALID_VALUE;
  return *at = take(bytes), SUCCESS;
}
int cuMemFree_v2(Pointer at) { ALONE; return give_back(at) ? SUCCESS : INVALID_VALUE; }
int cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t bytes, Stream *stream) {
  ALONE;
  if (int wrong = refuse_in_recording(stream, "host memory is copied")) return wrong;
  if (!is_taken(to, bytes)) return INVALID_VALUE;
  return memcpy(reinterpret_cast<void *>(to), from, bytes), SUCCESS;
}
int cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t bytes, Stream *stream) {
  ALONE;
  if (int wrong = refuse_in_recording(stream, "memory is copied to the host")) return wrong;
  if (!is_taken(from, bytes)) return INVALID_VALUE;
  return memcpy(to, reinterpret_cast<void *>(from), bytes), SUCCESS;
}
int cuMemcpyDtoDAsync_v2(Pointer to, Pointer from, size_t bytes, Stream *stream) {
  ALONE;
  if (!is_taken(to, bytes) || !is_taken(from, bytes)) return INVALID_VALUE;
  return do_or_record(stream, [=] { memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes); });
}
int cuMemsetD8Async(Pointer to, unsigned char byte, size_t bytes, Stream *stream) {
  ALONE;
  if (!is_taken(to, bytes)) return INVALID_VALUE;
  return do_or_record(stream, [=] { memset(reinterpret_cast<void *>(to), byte, bytes); });
}

int cuStreamBeginCapture_v2(Stream *stream, int) {
  ALONE;
  if (stream->recorded || lacks("graphs")) return CAPTURE_UNSUPPORTED;
  return stream->recorded = std::make_shared<Graph>(), stream->spoilt = false, SUCCESS;
}
int cuStreamIsCapturing(Stream *stream, int *status) {
  ALONE;
  return *status = !stream->recorded ? 0 : stream->spoilt ? 2 : 1, SUCCESS;
}
int cuStreamEndCapture(Stream *stream, Handle *graph) {
  ALONE;
  if (!stream->recorded) return CAPTURE_UNSUPPORTED;
  auto recorded = std::move(stream->recorded);
  stream->recorded = nullptr;
  if (std::exchange(stream->spoilt, false)) return *graph = nullptr, CAPTURE_INVALIDATED;
  return *graph = new std::shared_ptr<Graph>(recorded), SUCCESS;
}
int cuGraphInstantiateWithFlags(Handle *exec, Handle graph, unsigned long long) {
  counts.recorded++;
  return *exec = new std::shared_ptr<Graph>(*static_cast<std::shared_ptr<Graph> *>(graph)), SUCCESS;
}
int cuGraphDestroy(Handle graph) { ALONE; return delete static_cast<std::shared_ptr<Graph> *>(graph), SUCCESS; }
int cuGraphExecDestroy(Handle graph) { return cuGraphDestroy(graph); }
int cuGraphLaunch(Handle exec, Stream *stream) {
  ALONE;
  if (int wrong = refuse_in_recording(stream, "a graph is launched")) return wrong;
  Graph &graph = **static_cast<std::shared_ptr<Graph> *>(exec);
  // Memory that a graph leaves taken makes its second launch an error.
  if (!graph.open.empty()) return INVALID_VALUE;
  if (!std::exchange(graph.found_room, true) && lacks("room")) return OUT_OF_MEMORY;
  counts.graphs++;
  for (Work &work : graph.work) work();
  return SUCCESS;
}
}

// Kernels of candle, by the first word of their names; numbers pass through f64.

struct Type {
  size_t bytes;
  double (*get)(const void *);
  void (*set)(void *, double);
};
static double of_half(unsigned half) {
  unsigned exponent = half >> 10 & 31, fraction = half & 1023;
  double x = exponent == 31 ? (fraction == 0 ? INFINITY : NAN)
             : exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, int(exponent) - 25);
  return half >> 15 ? -x : x;
}
// To the nearest, of two the even one.
static uint16_t to_half(double x) {
  unsigned sign = std::signbit(x) << 15;
  if (x != x) return 0x7e00;
  if (x == 0) return sign;
  int exponent;
  frexp(x, &exponent);
  // Units of the last place of numbers of this size.
  int unit = std::max(exponent - 11, -24);
  double units = nearbyint(ldexp(fabs(x), -unit));
  if (fabs(x) == INFINITY || ldexp(units, unit) >= 65536) return sign | 0x7c00;
  return sign + unsigned(unit == -24 ? units : ((unit + 25) << 10) + units - 1024);
}
template <typename T> static Type type_of() {
  return {sizeof(T), [](const void *at) { return double(*static_cast<const T *>(at)); },
          [](void *at, double x) { *static_cast<T *>(at) = T(x); }};
}
static const std::map<std::string, Type> TYPES = {
    {"f32", type_of<float>()}, {"f64", type_of<double>()}, {"u32", type_of<uint32_t>()}, {"i64", type_of<int64_t>()},
    {"u8", type_of<uint8_t>()},
    {"f16", {2, [](const void *at) { return of_half(*static_cast<const uint16_t *>(at)); },
             [](void *at, double x) { *static_cast<uint16_t *>(at) = to_half(x); }}},
    {"bf16", {2, [](const void *at) { return double(widen(*static_cast<const bf16 *>(at))); },
              [](void *at, double x) { *static_cast<bf16 *>(at) = narrow<bf16>(float(x)); }}}};

struct Numbers {
  Type type;
  char *start;
  double operator[](size_t i) const { return type.get(start + i * type.bytes); }
  void set(size_t i, double x) const { type.set(start + i * type.bytes, x); }
};

// Where number i is in a tensor of these dimensions and strides, both behind `dims`; none where it lies without gaps.
static size_t place(size_t i, size_t count, const size_t *dims, const size_t *strides) {
  if (dims == nullptr) return i;
  size_t at = 0;
  for (size_t d = count; d-- > 0; i /= dims[d]) at += i % dims[d] * strides[d];
  return at;
}

// The bits of the arguments of a call.
using Bits = std::vector<uint64_t>;

static std::vector<std::string> words(const std::string &name) {
  std::vector<std::string> all = {""};
  for (char c : name)
    if (c == '_') all.push_back("");
    else all.back() += c;
  return all;
}

static double number(const Type &type, const uint64_t &bits) { return type.get(&bits); }

// Runs a kernel of candle, whose arguments are those of its source.
static void of_candle(const std::string &name, const Bits &bits) {
  counts.of_candle++;
  auto parts = words(name);
  auto last = TYPES.find(parts.back());
  if (last == TYPES.end()) unknown("no kernel " + name);
  const Type type = last->second;
  auto numbers = [&](const Type &type, size_t i) { return Numbers{type, reinterpret_cast<char *>(bits[i])}; };
  size_t count = bits[0], rank = bits[1];
  const size_t *dims = reinterpret_cast<const size_t *>(bits[2]), *strides = dims == nullptr ? nullptr : dims + rank;
  const std::string &first = parts[0];
  auto in = [&](size_t argument, size_t i, const size_t *strides) {
    return numbers(type, argument)[place(i, rank, dims, strides)];
  };
  if (first == "cast") {
    Numbers from = numbers(TYPES.at(parts[1]), 3), to = numbers(type, 4);
    for (size_t i = 0; i < count; i++) to.set(i, from[place(i, rank, dims, strides)]);
  } else if (first == "ucopy" || first == "usqr" || first == "uneg" || first == "uexp" || first == "uabs" || first == "utanh" ||
             first == "usqrt" || first == "ulog") {
    auto of = [&](double x) {
      return first == "usqr" ? x * x : first == "uneg" ? -x : first == "uexp" ? exp(x) : first == "uabs" ? fabs(x)
             : first == "utanh" ? tanh(x) : first == "usqrt" ? sqrt(x) : first == "ulog" ? log(x) : x;
    };
    Numbers to = numbers(type, 4);
    for (size_t i = 0; i < count; i++) to.set(i, of(in(3, i, strides)));
  } else if (first == "badd" || first == "bsub" || first == "bmul" || first == "bdiv") {
    const size_t *others = dims == nullptr ? nullptr : strides + rank;
    Numbers to = numbers(type, 5);
    for (size_t i = 0; i < count; i++) {
      double x = in(3, i, strides), y = in(4, i, others);
      to.set(i, first == "badd" ? x + y : first == "bsub" ? x - y : first == "bmul" ? x * y : x / y);
    }
  } else if (first == "affine") {
    Numbers to = numbers(type, 4);
    double factor = number(type, bits[5]), more = number(type, bits[6]);
    for (size_t i = 0; i < count; i++) to.set(i, in(3, i, strides) * factor + more);
  } else if (first == "const") {
    for (size_t i = 0; i < count; i++) numbers(type, 4).set(place(i, rank, dims, strides), number(type, bits[3]));
  } else if (first == "is") {
    // Rows of a table without gaps: ids (whose dimensions come first), table, result; then numbers before the rows, rows,
    // ids, and numbers of a row.
    Numbers ids = numbers(TYPES.at(parts[1]), 3), to = numbers(type, 5);
    for (size_t i = 0; i < count; i++) {
      size_t left = i / (bits[8] * bits[9]), id = size_t(ids[i / bits[9] % bits[8]]);
      // The largest number of a type is no index.
      if (id == (parts[1] == "u8" ? 0xff : 0xffffffff)) {
        to.set(i, 0);
        continue;
      }
      if (id >= bits[7]) unknown(name + ": a row beyond the table");
      to.set(i, numbers(type, 4)[(left * bits[7] + id) * bits[9] + i % bits[9]]);
    }
  } else if (name == "dequantize_block_q8_0_f32") {
    // Blocks of 32 numbers of 8 bits behind their scale in half precision.
    const unsigned char *from = reinterpret_cast<const unsigned char *>(bits[0]);
    for (size_t i = 0; i < 32 * size_t(uint32_t(bits[2])); i++) {
      const unsigned char *block = from + i / 32 * 34;
      numbers(type, 1).set(i, of_half(block[0] | block[1] << 8) * int8_t(block[2 + i % 32]));
    }
  } else if (first == "fast") {
    // Sums or extremes of stretches: all numbers, those of a stretch, rank, dimensions, source, result.
    const size_t *sizes = reinterpret_cast<const size_t *>(bits[3]), ranks = bits[2];
    Numbers from = numbers(type, 4), to = numbers(type, 5);
    for (size_t row = 0; row < count / bits[1]; row++) {
      double all = parts[1] == "sum" ? 0 : parts[1] == "max" ? -INFINITY : INFINITY;
      for (size_t i = row * bits[1]; i < (row + 1) * bits[1]; i++) {
        double x = from[place(i, ranks, sizes, sizes == nullptr ? nullptr : sizes + ranks)];
        all = parts[1] == "sum" ? all + x : parts[1] == "max" ? std::max(all, x) : std::min(all, x);
      }
      to.set(row, all);
    }
  } else if (first == "copy2d") {
    Numbers from = numbers(type, 0), to = numbers(type, 1);
    auto size = [&](size_t i) { return size_t(uint32_t(bits[i])); };
    for (size_t row = 0; row < size(2); row++)
      for (size_t i = 0; i < size(3); i++) to.set(row * size(5) + i, from[row * size(4) + i]);
  } else {
    unknown("no kernel " + name);
  }
}

// Arguments of a kernel of candle.
static size_t arguments_of(const std::string &name) {
  static const std::map<std::string, size_t> all = {{"is", 10}, {"affine", 7}, {"badd", 6}, {"bsub", 6}, {"bmul", 6},
      {"bdiv", 6}, {"copy2d", 6}, {"fast", 6}, {"cast", 5}, {"const", 5}, {"ucopy", 5}, {"usqr", 5}, {"uneg", 5},
      {"uexp", 5}, {"uabs", 5}, {"utanh", 5}, {"usqrt", 5}, {"ulog", 5}, {"dequantize", 3}};
  auto found = all.find(words(name)[0]);
  if (found == all.end()) unknown("no kernel " + name);
  return found->second;
}

extern "C" {
int cuModuleLoadData(Handle *module, const void *) { return *module = &everything, SUCCESS; }
int cuModuleUnload(Handle) { return SUCCESS; }
int cuModuleGetFunction(Handle *function, Handle, const char *name) {
  ALONE;
  static std::set<std::string> names;
  return *function = const_cast<std::string *>(&*names.insert(name).first), SUCCESS;
}
int cuFuncSetAttribute(Handle, int attribute, int value) {
  // Bytes of dynamic shared memory: an H100 has 227 KiB.
  return attribute == 8 && value > 227 * 1024 ? INVALID_VALUE : SUCCESS;
}
int cuLaunchKernel(Handle function, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned, unsigned, unsigned shared,
                   Stream *stream, void **arguments, void **) {
  ALONE;
  const std::string &name = *static_cast<std::string *>(function);
  auto found = emulator::kernels().find(name);
  bool ours = found != emulator::kernels().end();
  Bits bits(ours ? found->second.kinds.size() : arguments_of(name));
  // A 32-bit argument has nothing behind it that may be read.
  for (size_t i = 0; i < bits.size(); i++) {
    bool narrow = ours && strchr("uf", found->second.kinds[i]) != nullptr;
    memcpy(&bits[i], arguments[i], narrow ? 4 : 8);
  }
  if (z != 1) return INVALID_VALUE;
  if (!ours) return do_or_record(stream, [=] { of_candle(name, bits); });
  std::string kinds = found->second.kinds;
  return do_or_record(stream, [=] {
    Bits own = bits;
    std::vector<void *> places;
    for (uint64_t &one : own) places.push_back(&one);
    unsigned grid[2] = {x, y};
    counts.kernels++;
    if (const char *wrong = emulate(name.c_str(), grid, threads, shared, kinds.c_str(), places.data())) unknown(wrong);
  });
}
}

// Products.

static Type type_of_data(int kind) { return TYPES.at(kind == 0 ? "f32" : kind == 1 ? "f64" : kind == 14 ? "bf16" : "none"); }

struct Matrix {
  Numbers numbers;
  size_t stride;
  bool transposed;
  double at(size_t row, size_t column) const {
    return transposed ? numbers[column + row * stride] : numbers[row + column * stride];
  }
};

// d = alpha a b + beta c + bias of rows, all by columns; `sums` gets those of the rows of the transposed b.
static void multiply_all(size_t m, size_t n, size_t k, double alpha, Matrix a, Matrix b, double beta, Matrix c, Matrix d,
                         const Numbers *bias, const Numbers *sums) {
  counts.products++;
  std::vector<double> left(m * k), right(k * n);
  for (size_t i = 0; i < m; i++)
    for (size_t j = 0; j < k; j++) left[i * k + j] = a.at(i, j);
  for (size_t j = 0; j < n; j++)
    for (size_t i = 0; i < k; i++) right[j * k + i] = b.at(i, j);
  for (size_t j = 0; j < n; j++) {
    double all = 0;
    for (size_t i = 0; i < k; i++) all += right[j * k + i];
    if (sums != nullptr) sums->set(j, all);
    for (size_t i = 0; i < m; i++) {
      double sum = 0;
      for (size_t l = 0; l < k; l++) sum += left[i * k + l] * right[j * k + l];
      sum = alpha * sum + (beta == 0 ? 0 : beta * c.at(i, j)) + (bias == nullptr ? 0 : (*bias)[i]);
      d.numbers.set(i + j * d.stride, sum);
    }
  }
}

enum { NOT_INITIALIZED = 1, EXECUTION_FAILED = 13 };

struct Blas {
  Stream *stream = nullptr;
};

extern "C" {
int cublasCreate_v2(Blas **blas) { return *blas = new Blas, SUCCESS; }
int cublasDestroy_v2(Blas *blas) { return delete blas, SUCCESS; }
int cublasSetStream_v2(Blas *blas, Stream *stream) { return blas->stream = stream, SUCCESS; }
int cublasSetMathMode(Blas *, int) { return SUCCESS; }
int cublasSetWorkspace_v2(Blas *, void *at, size_t bytes) { return is_taken(Pointer(at), bytes) ? SUCCESS : 7; }
int cublasGemmStridedBatchedEx(Blas *blas, int ta, int tb, int m, int n, int k, const float *alpha, void *a, int ka, int lda,
                               long long sa, void *b, int kb, int ldb, long long sb, const float *beta, void *c, int kc,
                               int ldc, long long sc, int batch, int, int) {
  ALONE;
  if (blas->stream->recorded && lacks("recording")) return blas->stream->spoilt = true, EXECUTION_FAILED;
  float factor = *alpha, kept = *beta;
  return do_or_record(blas->stream, [=] {
    for (long long i = 0; i < batch; i++) {
      auto matrix = [&](void *at, int kind, long long gap, int ld, int op) {
        Type type = type_of_data(kind);
        return Matrix{{type, static_cast<char *>(at) + i * gap * type.bytes}, size_t(ld), op != 0};
      };
      Matrix d = matrix(c, kc, sc, ldc, 0);
      multiply_all(m, n, k, factor, matrix(a, ka, sa, lda, ta), matrix(b, kb, sb, ldb, tb), kept, d, d, nullptr, nullptr);
    }
  });
}
int cublasGemmEx(Blas *blas, int ta, int tb, int m, int n, int k, const float *alpha, void *a, int ka, int lda, void *b,
                 int kb, int ldb, const float *beta, void *c, int kc, int ldc, int compute, int algorithm) {
  return cublasGemmStridedBatchedEx(blas, ta, tb, m, n, k, alpha, a, ka, lda, 0, b, kb, ldb, 0, beta, c, kc, ldc, 0, 1,
                                    compute, algorithm);
}

// cublasLt.

struct Description {
  int transposed[2] = {0, 0}, epilogue = 1;
  void *vector = nullptr;
};
struct Layout {
  int kind;
  uint64_t rows, columns;
  int64_t stride;
};
int cublasLtCreate(Handle *handle) { return *handle = new int, lacks("cublaslt") ? NOT_INITIALIZED : SUCCESS; }
int cublasLtDestroy(Handle handle) { return delete static_cast<int *>(handle), SUCCESS; }
int cublasLtMatmulDescCreate(Description **description, int, int) { return *description = new Description, SUCCESS; }
int cublasLtMatmulDescDestroy(Description *description) { return delete description, SUCCESS; }
int cublasLtMatmulDescSetAttribute(Description *description, int attribute, const void *value, size_t) {
  if (attribute == 3 || attribute == 4) description->transposed[attribute - 3] = *static_cast<const int *>(value);
  else if (attribute == 7) description->epilogue = *static_cast<const int *>(value);
  else if (attribute == 8) description->vector = *static_cast<void *const *>(value);
  else unknown("an attribute of a product");
  return SUCCESS;
}
int cublasLtMatrixLayoutCreate(Layout **layout, int kind, uint64_t rows, uint64_t columns, int64_t stride) {
  return *layout = new Layout{kind, rows, columns, stride}, stride < int64_t(rows) ? 7 : SUCCESS;
}
int cublasLtMatrixLayoutDestroy(Layout *layout) { return delete layout, SUCCESS; }
int cublasLtMatmulPreferenceCreate(Handle *preference) { return *preference = new int, SUCCESS; }
int cublasLtMatmulPreferenceDestroy(Handle preference) { return delete static_cast<int *>(preference), SUCCESS; }
int cublasLtMatmulPreferenceSetAttribute(Handle, int, const void *, size_t) { return SUCCESS; }
struct Heuristic {
  uint64_t algorithm[8];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};
int cublasLtMatmulAlgoGetHeuristic(Handle, Handle, Handle, Handle, Handle, Handle, Handle, int, Heuristic *found, int *count) {
  return *found = {}, *count = 1, SUCCESS;
}
int cublasLtMatmul(Handle, Description *description, const float *alpha, void *a, Layout *la, void *b, Layout *lb,
                   const float *beta, void *c, Layout *lc, void *d, Layout *ld, const void *, void *, size_t, Stream *stream) {
  ALONE;
  Description of = *description;
  auto matrix = [](void *at, const Layout *layout, int op) {
    return Matrix{{type_of_data(layout->kind), static_cast<char *>(at)}, size_t(layout->stride), op != 0};
  };
  Matrix left = matrix(a, la, of.transposed[0]), right = matrix(b, lb, of.transposed[1]);
  Matrix base = matrix(c, lc, 0), to = matrix(d, ld, 0);
  size_t m = ld->rows, n = ld->columns, k = of.transposed[0] ? la->rows : la->columns;
  double factor = *alpha, kept = *beta;
  return do_or_record(stream, [=] {
    // The bias is of the kind of d; the sums of a gradient too, but where that is f32.
    Numbers vector = {to.numbers.type, static_cast<char *>(of.vector)};
    multiply_all(m, n, k, factor, left, right, kept, base, to, of.epilogue == 4 ? &vector : nullptr,
                 of.epilogue == 512 ? &vector : nullptr);
  });
}

int curandCreateGenerator(Handle *generator, int) { return *generator = new int, SUCCESS; }
int curandDestroyGenerator(Handle generator) { return delete static_cast<int *>(generator), SUCCESS; }
int curandSetStream(Handle, Stream *) { return SUCCESS; }
int curandSetPseudoRandomGeneratorSeed(Handle, unsigned long long) { return SUCCESS; }
}
