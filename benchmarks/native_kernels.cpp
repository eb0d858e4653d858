// How fast binary convolutions are beside the instructions that they cannot do without.
//
// Prints, for each layer of ResNet-18 and each instruction set of this processor, the least time of
// many runs on one thread, and as the floor the time that the exclusive ors, popcounts and
// additions of the layer take alone, from registers. Built and run by benchmarks/native_speed.py.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <vector>

#include "binary_conv.h"
#if defined(__x86_64__)
#include <immintrin.h>
#endif

using namespace bibench;

namespace {

double now_us() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(time).count();
}

constexpr int kSteps = 10000;

#if defined(__x86_64__)
// Binary multiplications per microsecond of 12 independent sums in registers. Written out, since a
// compiler would see that the same numbers are counted again and again.
#define EACH(step) \
  step(0) step(1) step(2) step(3) step(4) step(5) step(6) step(7) step(8) step(9) step(10) step(11)

__attribute__((target("avx512f,avx512vpopcntdq"), noinline)) double floor_avx512() {
#define STEP(sum)                        \
  "vpxord %%zmm30, %%zmm31, %%zmm29\n\t" \
  "vpopcntd %%zmm29, %%zmm29\n\t"        \
  "vpaddd %%zmm29, %%zmm" #sum ", %%zmm" #sum "\n\t"
  const double begin = now_us();
  for (int step = 0; step < kSteps; ++step) {
    __asm__ volatile(EACH(STEP)
                     :
                     :
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                       "xmm10", "xmm11", "xmm29");
  }
  return 12.0 * 512 * kSteps / (now_us() - begin);
#undef STEP
}

__attribute__((target("avx2"), noinline)) double floor_avx2() {
#define STEP(sum)                         \
  "vpshufb %%ymm13, %%ymm14, %%ymm15\n\t" \
  "vpaddb %%ymm15, %%ymm" #sum ", %%ymm" #sum "\n\t"
  const double begin = now_us();
  for (int step = 0; step < kSteps; ++step) {
    __asm__ volatile(EACH(STEP)
                     :
                     :
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                       "xmm10", "xmm11", "xmm15");
  }
  return 12.0 * 128 * kSteps / (now_us() - begin);
#undef STEP
}
#endif

// Binary multiplications per microsecond; 0 for a set whose floor is not known.
double floor_of(const char* set) {
  double most = 0;
  for (int run = 0; run < 200; ++run) {
    double rate = 0;
#if defined(__x86_64__)
    if (std::strcmp(set, "avx512") == 0) rate = floor_avx512();
    if (std::strcmp(set, "avx2") == 0) rate = floor_avx2();
#endif
    most = std::max(most, rate);
  }
  return most;
}

struct Layer {
  int64_t inputs, outputs, size, stride;
  int count;  // how often ResNet-18 has it
};
constexpr Layer kLayers[] = {{64, 64, 56, 1, 4},   {64, 128, 56, 2, 1},  {128, 128, 28, 1, 3},
                             {128, 256, 28, 2, 1}, {256, 256, 14, 1, 3}, {256, 512, 14, 2, 1},
                             {512, 512, 7, 1, 3}};

}  // namespace

int main() {
  Sequential sequential;
  for (auto set = available_instruction_sets(); *set != nullptr; ++set) {
    const double rate = floor_of((*set)->name);
    double all_us = 0, all_floor_us = 0;
    for (const Layer& layer : kLayers) {
      LayerShape shape;
      shape.outputs = layer.outputs;
      shape.group_inputs = layer.inputs;
      shape.window.vertical = shape.window.horizontal = {3, layer.stride, 1, 1, 1};
      const int64_t out = layer.size / layer.stride;
      std::vector<uint8_t> weights(layer.outputs * 9 * layer.inputs / 8, 0x5a);
      std::vector<uint8_t> input(layer.size * layer.size * layer.inputs / 8, 0x33);
      std::vector<uint8_t> signs(out * out * layer.outputs / 8);
      const std::vector<float> scale(layer.outputs, 0.5f), bias(layer.outputs, 0.25f);
      const std::vector<float> residual(out * out * layer.outputs, 1.0f);
      std::vector<float> output(residual.size());
      Epilogue epilogue;
      epilogue.scale = scale.data();
      epilogue.bias = bias.data();
      BinaryConv conv(shape, weights.data(), epilogue, **set);
      double least = 1e30;
      for (int run = 0; run < 60; ++run) {
        const double begin = now_us();
        conv.run(1, layer.size, layer.size, input.data(), residual.data(), output.data(), signs.data(), sequential);
        least = std::min(least, now_us() - begin);
      }
      const double bits = double(out) * out * layer.outputs * 9 * layer.inputs;
      const double floor_us = rate > 0 ? bits / rate : 0;
      std::printf("%-9s %3ld -> %3ld, %2ld x %2ld, stride %ld: %7.1f us, floor %6.1f us, %3.0f %%\n",
                  (*set)->name, long(layer.inputs), long(layer.outputs), long(layer.size), long(layer.size),
                  long(layer.stride), least, floor_us, 100 * floor_us / least);
      all_us += layer.count * least;
      all_floor_us += layer.count * floor_us;
    }
    std::printf("%-9s all 16 binary layers: %7.1f us, floor %6.1f us, %3.0f %%\n", (*set)->name, all_us,
                all_floor_us, 100 * all_floor_us / all_us);
  }
}
