// Runs kernels on made-up data: `ops::cuda::tests` builds it with `watch.cpp`, which looks at each access, and with
// AddressSanitizer and UndefinedBehaviorSanitizer. The numbers are other tests' concern, where the kernels are called as
// the decoder calls them.
#include "emulator.cpp"
#include <random>

static std::mt19937 random_bits(1);

template <typename T> static std::vector<T> numbers(size_t count, float scale = 1) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<T> all(count);
  for (T &x : all) x = narrow<T>(normal(random_bits));
  return all;
}

#ifdef WATCHED
extern "C" void watch_global(const void *start, size_t bytes);
extern "C" void watch_nothing();
extern "C" unsigned watch_found();
#else
static void watch_global(const void *, size_t) {}
static void watch_nothing() {}
static unsigned watch_found() { return 0; }
#endif

// An argument by its bits.
struct Argument {
  uint64_t bits = 0;
  template <typename T> Argument(const std::vector<T> &all) : bits(reinterpret_cast<uint64_t>(all.data())) {
    watch_global(all.data(), all.size() * sizeof(T));
  }
  template <typename T> Argument(const T *at) : bits(reinterpret_cast<uint64_t>(at)) {}
  Argument(unsigned x) : bits(x) {}
  Argument(float x) { memcpy(&bits, &x, 4); }
  Argument(double x) { memcpy(&bits, &x, 8); }
};

static void run(const char *name, unsigned x, unsigned y, unsigned threads, unsigned shared, std::vector<Argument> all) {
  std::vector<void *> places;
  for (Argument &one : all) places.push_back(&one.bits);
  unsigned grid[2] = {x, y};
  const char *wrong =
      emulate(name, grid, threads, shared, emulator::kernels().at(name).kinds.c_str(), places.data());
  if (wrong != nullptr) printf("fault: %s\n", wrong), exit(1);
}

struct Segment {
  unsigned row, length, depth;
};

template <typename T> constexpr const char *TYPE = std::is_same_v<T, float> ? "_f32" : "_bf16";

// A trunk and two branches; `window` 0 is none, and so is `cap`.
template <typename T>
static void attend(unsigned heads, unsigned kv_heads, unsigned width, unsigned window, float cap) {
  const unsigned length = sizeof(T) == 2 && width <= 64 ? 150 : 40, branch = length / 2;
  const unsigned rows = length + branch + 9, stride = (heads + 2 * kv_heads) * width;
  std::vector<std::pair<Segment, std::vector<Segment>>> tiles;
  auto add = [&](Segment own, std::vector<Segment> path) {
    path.push_back(own);
    for (unsigned start = 0; start < own.length; start += 64)
      tiles.push_back({{own.row + start, std::min(64u, own.length - start), own.depth + start}, path});
  };
  Segment trunk = {0, length, 0};
  add(trunk, {});
  add({length, branch, length}, {trunk});
  add({length + branch, 9, length}, {trunk});
  std::vector<unsigned> flat, spans, parts, readers, shared_tiles = {0, 0, 2};
  for (auto &[own, path] : tiles) {
    unsigned first = spans.size() / 2;
    for (Segment &span : path) spans.insert(spans.end(), {span.row, span.depth});
    flat.insert(flat.end(), {own.row, own.length, own.depth, first, unsigned(spans.size() / 2)});
  }
  // The first tile's readers are cut in two.
  for (unsigned keys = 0; keys < tiles.size(); keys++) {
    auto &own = tiles[keys].first;
    unsigned first = readers.size(), none = -1;
    for (unsigned reader = 0; reader < tiles.size(); reader++)
      for (Segment &span : tiles[reader].second)
        if (own.row + own.length > span.row && own.row < span.row + span.length) readers.push_back(reader);
    unsigned end = readers.size(), cut = keys == 0 ? first + 1 : end;
    parts.insert(parts.end(), {keys, first, cut, keys == 0 ? 0 : none});
    if (keys == 0) parts.insert(parts.end(), {keys, cut, end, 1});
  }
  auto qkv = numbers<T>(rows * stride), g = numbers<T>(rows * heads * width);
  std::vector<T> out(rows * heads * width), d_qkv(rows * stride);
  std::vector<float> lse(rows * heads), delta(rows * heads), sums(2 * kv_heads * 2 * 64 * width);
  const bool half = sizeof(T) == 2;
  const bool wide = width > 128;
  unsigned padded = wide ? 256 : (width + 31) / 32 * 32, row = (padded + (wide && !half ? 4 : 8)) * sizeof(T);
  unsigned forward = half ? 2 * (wide ? 16 : 64) : wide ? 16 : 32, columns = wide ? 2 : 1;
  unsigned items = wide && !half ? 32 : 64, blocks = 64 / items;
  unsigned back = !half ? 16 : padded <= 64 ? 2 * 64 : padded <= 128 ? 2 * 32 : 16;
  std::string suffix = TYPE<T> + ('_' + std::to_string(padded));
  const T *keys = qkv.data() + heads * width, *values = keys + kv_heads * width;
  run(("attention" + suffix).c_str(), tiles.size(), heads, 128, (64 + 2 * forward) * row,
      {qkv, stride, keys, values, stride, out, lse, flat, spans, heads, kv_heads, width, window, 0.125f, cap});
  run((std::string("attention_delta") + TYPE<T>).c_str(), (rows * heads + 3) / 4, 1, 128, 0,
      {out, g, delta, rows * heads, width});
  unsigned shared = (2 * items + 2 * back) * row;
  run(("attention_dq" + suffix).c_str(), tiles.size(), heads * blocks, 128, shared,
      {qkv, g, lse, delta, d_qkv, flat, spans, heads, kv_heads, width, window, 0.125f, cap});
  run(("attention_dkv" + suffix).c_str(), parts.size() / 4, kv_heads * columns * blocks, 128, shared,
      {qkv, g, lse, delta, d_qkv, sums, flat, parts, readers, heads, kv_heads, width, window, 0.125f, cap});
  run((std::string("attention_dkv_sums") + TYPE<T>).c_str(), 1, kv_heads, 256, 0,
      {sums, d_qkv, flat, shared_tiles, heads, kv_heads, width});
}

// Two rows that see 100 keys in common, and then some of their own.
template <typename T> static void decode(unsigned window) {
  const unsigned rows = 2, heads = 4, kv_heads = 2, width = 64, stride = (heads + 2 * kv_heads) * width, keys = 120;
  auto q = numbers<T>(rows * stride), k = numbers<T>(keys * kv_heads * width), v = numbers<T>(keys * kv_heads * width);
  std::vector<unsigned> parts = {0, 2, 0, 1, 0, 70, 0, 0, 2, 0, 1, 70, 100, 2, 0, 1, 1, 2, 100, 105, 4, 1, 1, 2, 3, 100, 101, 5};
  std::vector<unsigned> spans = {0, 0, 100, 100, 110, 100}, depths = {104, 100}, starts = {0, 3, 6}, slots = {0, 2, 4, 1, 3, 5};
  std::vector<float> of_parts(6 * heads * width), lse(6 * heads);
  std::vector<T> out(rows * heads * width);
  const bool half = sizeof(T) == 2;
  run(("attention_parts" + (TYPE<T> + std::string("_64"))).c_str(), 4, heads, 128, (64 + 2 * (half ? 128 : 32)) * 72 * sizeof(T),
      {q, stride, k, v, kv_heads * width, of_parts, lse, parts, spans, depths, heads, kv_heads, width, window, 0.2f, 0.0f});
  run((std::string("attention_joined") + TYPE<T>).c_str(), rows * heads / 4, 1, 128, 0,
      {of_parts, lse, out, starts, slots, rows * heads, heads, width});
}

// Two texts, the first of which is one token.
template <typename T> static void encode(unsigned heads, unsigned width, unsigned reach, bool biased) {
  const unsigned length = 100, rows = length + 1, distances = length, all = heads * width, inner = 72;
  std::vector<unsigned> tiles = {0, 1, 0, 0, 1, 1, 64, 0, 1, 2, 65, 36, 64, 1, 2}, spans = {0, 0, 1, 0};
  std::vector<unsigned> lengths = {1, length};
  auto qkv = numbers<T>(rows * 3 * all), x = numbers<T>(rows * 2 * inner);
  auto bias = numbers<float>(heads * (2 * distances - 1)), w = numbers<float>(2 * inner), b = numbers<float>(2 * inner);
  std::vector<T> out(rows * all), y(rows * inner);
  unsigned padded = (width + 31) / 32 * 32, forward = sizeof(T) == 2 ? 2 * 64 : 32;
  const float *none = nullptr;
  run(("attention_around" + (TYPE<T> + ('_' + std::to_string(padded)))).c_str(), 3, heads, 128,
      (64 + 2 * forward) * (padded + 8) * sizeof(T),
      {qkv, out, tiles, spans, lengths, heads, width, reach, biased ? Argument(bias) : Argument(none), distances, 0.2f});
  run((std::string("layer_norm") + TYPE<T>).c_str(), rows, 1, 128, 0, {x, w, b, 2 * inner, 1e-5f});
  run((std::string("activate") + TYPE<T>).c_str(), rows, 1, 256, 0, {x, y, inner, 1u, 0u});
  run((std::string("activate") + TYPE<T>).c_str(), rows, 1, 256, 0, {x, x, 2 * inner, 0u, 1u});
}

static void rows_and_columns() {
  const unsigned rows = 70, width = 256, chunk = 16, chunks = 5;
  auto x = numbers<bf16>(rows * width), w = numbers<bf16>(width), g = numbers<bf16>(rows * width);
  std::vector<bf16> y(rows * width), dx(rows * width);
  std::vector<float> inverse(rows), partial(chunks * width), gradient(width);
  const float *none = nullptr;
  run("norm_forward_bf16", rows, 1, 128, 0, {x, w, none, y, inverse, width, 1e-6f});
  run("norm_again_bf16", rows, 1, 128, 0, {x, w, none, inverse, y, width});
  run("norm_backward_bf16", rows, 1, 128, 0, {x, w, none, inverse, g, g, dx, width});
  const unsigned queries = 128, keys = 64;
  std::vector<float> both(rows * 2);
  run("whole_norm_bf16", rows, 3, 128, 0, {x, w, none, w, none, y, queries, keys, 1e-6f});
  run("whole_norm_backward_bf16", rows, 3, 128, 0, {x, w, none, w, none, g, dx, both, queries, keys, 1e-6f});
  run("whole_norm_weight_bf16", 1, chunks, 128, 0, {x, both, g, partial, rows, queries, keys, chunk, 8u});
  run("base_rows_bf16", rows, 1, 128, 0, {g, w, y, width});
  run("norm_weight_bf16", 1, chunks, 128, 0, {x, inverse, g, partial, rows, width, chunk, 8u});
  run("add_partials", width / 32, 1, 256, 0, {partial, gradient, chunks, width, width});
  run("column_sums_bf16", 1, chunks, 128, 0, {g, partial, rows, width, chunk, 8u});
}

// Rows of tables; two rows that are put at one place where `EMULATOR_FAULT` is overlap.
static void rows_of_tables(bool overlap) {
  const unsigned width = 72, rows = 9;
  auto table = numbers<bf16>(20 * width), source = numbers<bf16>(rows * width);
  std::vector<bf16> y(rows * width), wide(20 * width);
  std::vector<float> gradient(20 * width);
  std::vector<unsigned> ids = {3, 7, 7, 0, 19, 3, 3, 5, 1}, places(20), order = {3, 8, 0, 5, 6, 7, 1, 2, 4};
  std::vector<unsigned> runs = {0, 0, 1, 1, 3, 2, 5, 5, 7, 6, 19, 8, 0, 9}, targets = {4, 2, 9, overlap ? 2u : 1u, ~0u};
  places[4] = 1, places[11] = 9;
  run("gather_rows_bf16", rows, 1, 128, 0, {table, ids, y, width});
  run("put_rows_bf16", targets.size(), 1, 128, 0, {table, targets, source, width, width, 0u});
  run("spread_rows_bf16", 20, 1, 128, 0, {source, places, wide, width});
  run("embed_backward_bf16", 6, 1, 128, 0, {source, runs, order, gradient, width});
}

// Gated activations, of an output that is a row short where `EMULATOR_FAULT` is short.
static void gate(bool is_short) {
  const unsigned rows = 5, width = 264;
  auto pairs = numbers<bf16>(rows * 2 * width), g = numbers<bf16>(rows * width);
  std::vector<bf16> y((is_short ? rows - 1 : rows) * width), d(rows * 2 * width);
  run("swiglu_forward_bf16", rows, 1, 256, 0, {pairs, y, width});
  run("geglu_backward_bf16", rows, 1, 256, 0, {pairs, g, y, d, width});
  run("swiglu_backward_bf16", rows, 1, 256, 0, {pairs, g, y, d, width});
}

static void turn_heads() {
  const unsigned rows = 37, heads = 3, kv_heads = 1, width = 64, stride = (heads + 2 * kv_heads) * width;
  auto qkv = numbers<bf16>(rows * stride), g = numbers<bf16>(rows * stride), query = numbers<bf16>(width),
       key = numbers<bf16>(width);
  std::vector<float> cosines(rows * width / 2, 0.6f), sines(rows * width / 2, 0.8f), partial(3 * 2 * width);
  std::vector<unsigned> depths(rows);
  for (unsigned i = 0; i < rows; i++) depths[i] = i;
  std::vector<bf16> before = qkv;
  const float *none = nullptr;
  run("rope_norm_bf16", (rows * (heads + kv_heads) + 7) / 8, 1, 256, 0,
      {qkv, query, none, key, none, cosines, sines, depths, rows, heads, kv_heads, width, 1e-6f});
  run("rope_norm_backward_bf16", 3, 1, 256, 8 * 2 * width * 4,
      {g, before, query, none, key, none, cosines, sines, depths, partial, rows, heads, kv_heads, width, 1e-6f, 16u});
  unsigned count = rows * (heads + kv_heads) * width / 2 / 8;
  run("rope_turn_bf16", (count + 255) / 256, 1, 256, 0,
      {g, cosines, sines, depths, count, heads + kv_heads, stride, width, width / 2, 8u, -1.0f});
  run("scale_queries_bf16", rows, 1, 128, 0, {g, depths, heads * width, stride, 5u, 0.3f});
}

// Numbers of which packs do not fit the last.
static void numbers_one_by_one() {
  const unsigned count = 5001;
  auto a = numbers<bf16>(count), b = numbers<bf16>(count);
  auto x = numbers<float>(count), z = numbers<float>(count);
  std::vector<bf16> y(count);
  std::vector<float> wide(count);
  const unsigned blocks = (count + 2047) / 2048;
  run("add_numbers_bf16", blocks, 1, 256, 0, {a, b, y, count});
  run("add_numbers_f32", blocks, 1, 256, 0, {x, z, wide, count});
  run("scale_numbers_bf16", blocks, 1, 256, 0, {a, y, count, 0.3f});
  run("plus_one_bf16", (count + 255) / 256, 1, 256, 0, {a, wide, count});
  run("cap_numbers", blocks, 1, 256, 0, {x, count, 2.0f});
}

static void choose_tokens() {
  const unsigned rows = 6, vocab = 1000;
  auto logits = numbers<float>(rows * vocab, 3);
  std::vector<unsigned> starts = {0, 1, 2, 4, 4, 5, 8}, tokens = {3, 9, 1, 2, 999, 0, 0, 5}, order = {5, 4, 3, 2, 1, 0};
  std::vector<double> lse(rows), logps(tokens.size()), uniform(rows, 0.4), result(2 * rows);
  std::vector<float> shifts(rows, 6.0f), slopes(tokens.size(), 0.5f);
  std::vector<bf16> p(rows * vocab), dz(rows * vocab);
  run("head_scores", rows, 1, 256, 0, {logits, starts, tokens, lse, logps, vocab, 0.0f});
  run("head_shares_bf16", rows, 1, 256, 0, {logits, lse, p, vocab});
  const bf16 *none = nullptr;
  run("head_backward_bf16", rows, 1, 256, 0, {logits, none, starts, tokens, shifts, slopes, dz, vocab, 30.0f});
  run("head_backward_bf16", rows, 1, 256, 0, {logits, p, starts, tokens, shifts, slopes, dz, vocab, 0.0f});
  for (double temperature : {0.0, 0.7})
    run("choose", rows, 1, 256, 0, {logits, order, uniform, result, vocab, temperature, 0u, 1.0});
  run("choose", 2, 1, 256, 0, {logits, order, uniform, result, vocab, 0.7, 40u, 0.9});
}

static void optimize() {
  const unsigned count = 5001;
  auto weight = numbers<float>(count), gradient = numbers<float>(count);
  std::vector<float> mean(count), square(count);
  std::vector<bf16> half(count);
  std::vector<double> partial(4), sum(1);
  std::vector<unsigned> starts = {0, 4};
  run("squares", 4, 1, 256, 0, {gradient, partial, 0u, count});
  run("sum_parts", 1, 1, 32, 0, {partial, starts, sum});
  run("adamw_step", 5, 1, 256, 0,
      {weight, gradient, mean, square, half, count, 1.0f, 1.0f, 0.1f, 0.999f, 0.001f, 1e-3f, 1.0f, 1e-8f});
}

int main() {
  const std::string wrong = getenv("EMULATOR_FAULT") == nullptr ? "" : getenv("EMULATOR_FAULT");
  // Short ones first: where something is made wrong, the first find ends the run.
  const bool made_wrong = !wrong.empty() || (getenv("EMULATOR_CUT") != nullptr && *getenv("EMULATOR_CUT") != 0);
  const std::function<void()> scenes[] = {[&] { rows_of_tables(wrong == "overlap"); },
                                          [&] { gate(wrong == "short"); },
                                          turn_heads,
                                          optimize,
                                          numbers_one_by_one,
                                          [] { decode<bf16>(0); },
                                          choose_tokens,
                                          [] { decode<float>(40); },
                                          [] { encode<bf16>(2, 64, 8, false); },
                                          [] { encode<float>(2, 24, 0, true); },
                                          [] { attend<bf16>(2, 1, 96, 40, 3); },
                                          [] { attend<float>(1, 1, 32, 0, 0); },
                                          [] { attend<bf16>(1, 1, 176, 0, 0); },
                                          rows_and_columns,
                                          [] { attend<bf16>(4, 2, 64, 0, 0); },
                                          [] { attend<float>(1, 1, 136, 0, 0); }};
  for (auto &scene : scenes) {
    scene();
    watch_nothing();
    if (made_wrong && watch_found() > 0) return 0;
  }
  printf("all kernels ran, found %u\n", watch_found());
}
