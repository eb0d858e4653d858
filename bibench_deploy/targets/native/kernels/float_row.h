// A row of a float convolution or pooling, for whatever vectors the including file is compiled for.
#pragma once

#include "instruction_set.h"
#include "pieces.h"

namespace bibench {
namespace {

template <int kLanes>
struct FloatVector {
  typedef float Type __attribute__((vector_size(kLanes * sizeof(float))));
  typedef float Unaligned
      __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));
};

template <int kLanes>
inline typename FloatVector<kLanes>::Type load(const float* numbers) {
  return *reinterpret_cast<const typename FloatVector<kLanes>::Unaligned*>(numbers);
}

template <int kLanes>
inline void store(float* numbers, typename FloatVector<kLanes>::Type vector) {
  *reinterpret_cast<typename FloatVector<kLanes>::Unaligned*>(numbers) = vector;
}

// Each weight is loaded once for kPositions output positions, each input once for kBlocks blocks.
template <int kLanes, int kPositions, int kBlocks>
inline void float_piece(const FloatRowJob& job, int position, int block) {
  typedef typename FloatVector<kLanes>::Type Vector;
  const size_t channel_step = static_cast<size_t>(job.blocks) * kLanes;
  const size_t block_floats = static_cast<size_t>(job.taps) * kLanes;
  Vector sum[kPositions][kBlocks];
#pragma GCC unroll 8
  for (int p = 0; p < kPositions; ++p) {
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) sum[p][b] = load<kLanes>(job.bias + (block + b) * kLanes);
  }
  const float* first_tap = job.input + position * job.input_step;
  const float* weights = job.weights + block * block_floats;
  for (int tap = 0; tap < job.taps; ++tap, weights += kLanes) {
    const float* input = first_tap + job.tap_offset[tap];
    Vector weight[kBlocks];
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) weight[b] = load<kLanes>(weights + b * block_floats);
#pragma GCC unroll 8
    for (int p = 0; p < kPositions; ++p) {
      const float number = input[p * job.input_step];
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) sum[p][b] += number * weight[b];
    }
  }
  float* output = job.output + position * channel_step + static_cast<size_t>(block) * kLanes;
#pragma GCC unroll 8
  for (int p = 0; p < kPositions; ++p) {
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; ++b) store<kLanes>(output + p * channel_step + b * kLanes, sum[p][b]);
  }
}

template <int kLanes, int kMostPositions, int kBlocks>
inline void float_blocks(const FloatRowJob& job, int block) {
  for_each_piece<kMostPositions>(job.positions, [&](auto count, int position) {
    float_piece<kLanes, decltype(count)::value, kBlocks>(job, position, block);
  });
}

template <int kLanes, int kMostPositions, int kMostBlocks>
inline void float_row(const FloatRowJob& job) {
  int block = 0;
  for (; block + kMostBlocks <= job.blocks; block += kMostBlocks) {
    float_blocks<kLanes, kMostPositions, kMostBlocks>(job, block);
  }
  for (; block < job.blocks; ++block) float_blocks<kLanes, kMostPositions, 1>(job, block);
}

template <int kLanes>
inline void pool_row(const PoolRowJob& job) {
  float* output = job.output;
  for (int position = 0; position < job.positions; ++position, output += job.lanes) {
    const int left = position * job.stride - job.pad_before, right = left + job.kernel;
    const int first = left > 0 ? left : 0, end = right < job.columns ? right : job.columns;
    for (int lane = 0; lane < job.lanes; lane += kLanes) {
      const float* input = job.input + static_cast<size_t>(first) * job.lanes + lane;
      auto largest = load<kLanes>(input);
      for (int column = first + 1; column < end; ++column) {
        input += job.lanes;
        const auto number = load<kLanes>(input);
        largest = number > largest ? number : largest;
      }
      store<kLanes>(output + lane, largest);
    }
  }
}

inline void larger_of_both(const float* source, size_t count, float* target) {
  for (size_t index = 0; index < count; ++index) {
    target[index] = source[index] > target[index] ? source[index] : target[index];
  }
}

}  // namespace
}  // namespace bibench
