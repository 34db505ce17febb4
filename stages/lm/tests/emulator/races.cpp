// Runs kernels on made-up data under ThreadSanitizer: `ops::cuda::tests::no_kernel_races` builds and runs it. It says what
// ThreadSanitizer finds; the numbers are those tests' concern, where the kernels are called as the decoder calls them.
#include "emulator.cpp"
#include <random>

static std::mt19937 random_bits(1);

template <typename T> static std::vector<T> numbers(size_t count, float scale = 1) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<T> all(count);
  for (T &x : all) x = narrow<T>(normal(random_bits));
  return all;
}

// An argument by its bits.
struct Argument {
  uint64_t bits = 0;
  template <typename T> Argument(const std::vector<T> &all) : bits(reinterpret_cast<uint64_t>(all.data())) {}
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

// A trunk of 150 rows and two branches; `window` 0 is none.
static void attend(unsigned heads, unsigned kv_heads, unsigned width, unsigned window) {
  const unsigned rows = 150 + 70 + 9, stride = (heads + 2 * kv_heads) * width;
  std::vector<std::pair<Segment, std::vector<Segment>>> tiles;
  auto add = [&](Segment own, std::vector<Segment> path) {
    path.push_back(own);
    for (unsigned start = 0; start < own.length; start += 64)
      tiles.push_back({{own.row + start, std::min(64u, own.length - start), own.depth + start}, path});
  };
  Segment trunk = {0, 150, 0};
  add(trunk, {});
  add({150, 70, 150}, {trunk});
  add({220, 9, 150}, {trunk});
  std::vector<unsigned> flat, spans, starts = {0}, readers;
  for (auto &[own, path] : tiles) {
    unsigned first = spans.size() / 2;
    for (Segment &span : path) spans.insert(spans.end(), {span.row, span.depth});
    flat.insert(flat.end(), {own.row, own.length, own.depth, first, unsigned(spans.size() / 2)});
  }
  for (auto &[own, path] : tiles) {
    for (unsigned reader = 0; reader < tiles.size(); reader++)
      for (Segment &span : tiles[reader].second)
        if (own.row + own.length > span.row && own.row < span.row + span.length) readers.push_back(reader);
    starts.push_back(readers.size());
  }
  auto qkv = numbers<bf16>(rows * stride), g = numbers<bf16>(rows * heads * width);
  std::vector<bf16> out(rows * heads * width), d_qkv(rows * stride);
  std::vector<float> lse(rows * heads), delta(rows * heads);
  unsigned padded = (width + 31) / 32 * 32, row = (padded + 8) * 2, back = padded <= 64 ? 64 : 32;
  std::string suffix = "_bf16_" + std::to_string(padded);
  const bf16 *keys = qkv.data() + heads * width, *values = keys + kv_heads * width;
  run(("attention" + suffix).c_str(), tiles.size(), heads, 128, (64 + 4 * 64) * row,
      {qkv, stride, keys, values, stride, out, lse, flat, spans, heads, kv_heads, width, window, 0.125f});
  run("attention_delta_bf16", (rows * heads + 3) / 4, 1, 128, 0, {out, g, delta, rows * heads, width});
  unsigned shared = (2 * 64 + 4 * back) * row;
  run(("attention_dq" + suffix).c_str(), tiles.size(), heads, 128, shared,
      {qkv, g, lse, delta, d_qkv, flat, spans, heads, kv_heads, width, window, 0.125f});
  run(("attention_dkv" + suffix).c_str(), tiles.size(), kv_heads, 128, shared,
      {qkv, g, lse, delta, d_qkv, flat, starts, readers, heads, kv_heads, width, window, 0.125f});
}

static void rows_and_columns() {
  const unsigned rows = 70, width = 256, chunk = 16, chunks = 5;
  auto x = numbers<bf16>(rows * width), w = numbers<bf16>(width), g = numbers<bf16>(rows * width);
  std::vector<bf16> y(rows * width), dx(rows * width);
  std::vector<float> inverse(rows), partial(chunks * width), gradient(width);
  run("norm_forward_bf16", rows, 1, 128, 0, {x, w, y, inverse, width, 1e-6f});
  run("norm_backward_bf16", rows, 1, 128, 0, {x, w, inverse, g, g, dx, width});
  run("norm_weight_bf16", 1, chunks, 128, 0, {x, inverse, g, partial, rows, width, chunk, 8u});
  run("add_partials", width / 32, 1, 256, 0, {partial, gradient, chunks, width, width});
  run("column_sums_bf16", 1, chunks, 128, 0, {g, partial, rows, width, chunk, 8u});
}

static void rotate() {
  const unsigned rows = 37, heads = 3, kv_heads = 1, width = 64, stride = (heads + 2 * kv_heads) * width;
  auto qkv = numbers<bf16>(rows * stride), g = numbers<bf16>(rows * stride), query = numbers<bf16>(width),
       key = numbers<bf16>(width);
  std::vector<float> cosines(rows * width / 2, 0.6f), sines(rows * width / 2, 0.8f), partial(3 * 2 * width);
  std::vector<unsigned> depths(rows);
  for (unsigned i = 0; i < rows; i++) depths[i] = i;
  std::vector<bf16> before = qkv;
  run("rope_norm_bf16", (rows * (heads + kv_heads) + 7) / 8, 1, 256, 0,
      {qkv, query, key, cosines, sines, depths, rows, heads, kv_heads, width, 1e-6f});
  run("rope_norm_backward_bf16", 3, 1, 256, 8 * 2 * width * 4,
      {g, before, query, key, cosines, sines, depths, partial, rows, heads, kv_heads, width, 1e-6f, 16u});
  unsigned count = rows * (heads + kv_heads) * width / 2 / 8;
  run("rope_turn_bf16", (count + 255) / 256, 1, 256, 0,
      {g, cosines, sines, depths, count, heads + kv_heads, stride, width, 8u, -1.0f});
}

static void choose_tokens() {
  const unsigned rows = 6, vocab = 1000;
  auto logits = numbers<float>(rows * vocab, 3);
  std::vector<unsigned> starts = {0, 1, 2, 4, 4, 5, 8}, tokens = {3, 9, 1, 2, 999, 0, 0, 5}, order = {5, 4, 3, 2, 1, 0};
  std::vector<double> lse(rows), logps(tokens.size()), uniform(rows, 0.4), result(2 * rows);
  std::vector<float> shifts(rows, 6.0f), slopes(tokens.size(), 0.5f);
  std::vector<bf16> dz(rows * vocab);
  run("head_scores", rows, 1, 256, 0, {logits, starts, tokens, lse, logps, vocab});
  run("head_backward_bf16", rows, 1, 256, 0, {logits, starts, tokens, shifts, slopes, dz, vocab});
  for (double temperature : {0.0, 0.7}) run("choose", rows, 1, 256, 0, {logits, order, uniform, result, vocab, temperature});
}

static void step() {
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
  attend(4, 2, 64, 0);
  attend(2, 1, 96, 40);
  rows_and_columns();
  rotate();
  choose_tokens();
  step();
  puts("all kernels ran");
}
