// AVX-512 with VPOPCNTDQ: 16 output channels in the lanes of a vector, 32 bits of input at a time.
//
// Each step is one exclusive or, one popcount and one addition. Six output positions and four blocks
// of channels are computed at once, which fills the registers: a weight is loaded once for six
// positions, and an input once for four blocks.
#include <immintrin.h>

#include <cstring>

#include "float_row.h"
#include "instruction_set.h"
#include "pieces.h"

namespace bibench {
namespace {

constexpr int kLanes = 16;
constexpr int kMostPositions = 6;

// The lanes of a block that are output channels, `channels` counted from its first lane.
inline __mmask16 lane_mask(int channels) {
  return channels >= kLanes ? 0xffff : static_cast<__mmask16>((1u << channels) - 1);
}

// What is done with the dot products of one block, at `kPositions` positions. Each step is taken for
// all positions before the next one: so it is asked once whether there is such a step. Vectors and
// pointers are read before the signs are stored: a store of bytes might, for all the compiler knows,
// have changed the job itself.
template <int kPositions>
inline void finish(const RowJob& job, const __m512i* differing, int position, int block) {
  const int lane = block * kLanes;
  const int left = job.channels - lane;
  const __mmask16 mask = lane_mask(left);
  const __m512 zero = _mm512_setzero_ps();
  const size_t step = job.channel_step;
  const size_t first = position * step + lane;
  __m512 value[kPositions];

  const __m512 scale = _mm512_loadu_ps(job.scale + lane), bias = _mm512_loadu_ps(job.bias + lane);
  const int32_t* border = job.border + lane;
  const uint16_t* border_class = job.border_class + position;
#pragma GCC unroll 8
  for (int p = 0; p < kPositions; ++p) {
    const __m512i largest = _mm512_loadu_si512(border + border_class[p] * job.border_step);
    const __m512i dot = _mm512_sub_epi32(largest, _mm512_slli_epi32(differing[p], 1));
    value[p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, bias);
  }
  if (job.residual != nullptr) {
    const float* residual = job.residual + first;
#pragma GCC unroll 8
    for (int p = 0; p < kPositions; ++p, residual += step) {
      value[p] = _mm512_add_ps(value[p], _mm512_maskz_loadu_ps(mask, residual));
    }
  }
  if (job.slope != nullptr) {
    const __m512 slope = _mm512_loadu_ps(job.slope + lane);
#pragma GCC unroll 8
    for (int p = 0; p < kPositions; ++p) {
      const __mmask16 negative = _mm512_cmp_ps_mask(value[p], zero, _CMP_LT_OQ);
      value[p] = _mm512_mask_mul_ps(value[p], negative, value[p], slope);
    }
  }
  if (job.shift != nullptr) {
    const __m512 shift = _mm512_loadu_ps(job.shift + lane);
#pragma GCC unroll 8
    for (int p = 0; p < kPositions; ++p) value[p] = _mm512_add_ps(value[p], shift);
  }
  if (job.has_clip) {
    const __m512 low = _mm512_set1_ps(job.low), high = _mm512_set1_ps(job.high);
#pragma GCC unroll 8
    for (int p = 0; p < kPositions; ++p) {
      value[p] = _mm512_min_ps(high, _mm512_max_ps(low, value[p]));
    }
  }
  if (job.output != nullptr) {
    float* output = job.output + first;
#pragma GCC unroll 8
    for (int p = 0; p < kPositions; ++p, output += step) {
      _mm512_mask_storeu_ps(output, mask, value[p]);
    }
  }
  if (job.signs == nullptr) return;
  if (job.sign_offset != nullptr) {
    const __m512 sign_offset = _mm512_loadu_ps(job.sign_offset + lane);
#pragma GCC unroll 8
    for (int p = 0; p < kPositions; ++p) value[p] = _mm512_add_ps(value[p], sign_offset);
  }
  const size_t sign_step = job.sign_step;
  uint8_t* packed = job.signs + position * sign_step + lane / 8;
  const bool is_one_byte = left <= 8;
#pragma GCC unroll 8
  for (int p = 0; p < kPositions; ++p, packed += sign_step) {
    const uint16_t signs = _mm512_mask_cmp_ps_mask(mask, value[p], zero, _CMP_LT_OQ);
    if (is_one_byte) {
      *packed = static_cast<uint8_t>(signs);
    } else {
      std::memcpy(packed, &signs, 2);
    }
  }
}

template <int kPositions, int kBlocks>
inline void convolve(const RowJob& job, int position, int block) {
  __m512i differing[kBlocks][kPositions];
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b) {
#pragma GCC unroll 8
    for (int p = 0; p < kPositions; ++p) differing[b][p] = _mm512_setzero_si512();
  }
  if (job.residual != nullptr) {
    // Maps of the first stages are larger than the cache: what is added in the end is asked for now.
    const float* residual = job.residual + position * job.channel_step + block * kLanes;
#pragma GCC unroll 8
    for (int p = 0; p < kPositions; ++p, residual += job.channel_step) {
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) __builtin_prefetch(residual + b * kLanes);
    }
  }
  const uint8_t* first_tap = job.input + position * job.input_step;
  const uint8_t* weights = job.weights + block * job.block_bytes;
  for (int run = 0; run < job.run_count; ++run) {
    const uint8_t* input = first_tap + job.run_offset[run];
    for (int unit = 0; unit < job.run_units; ++unit, input += 4, weights += 4 * kLanes) {
      __m512i weight[kBlocks];
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; ++b) {
        weight[b] = _mm512_loadu_si512(weights + b * job.block_bytes);
      }
#pragma GCC unroll 8
      for (int p = 0; p < kPositions; ++p) {
        int32_t bits;
        std::memcpy(&bits, input + p * job.input_step, 4);
        const __m512i signs = _mm512_set1_epi32(bits);
#pragma GCC unroll 4
        for (int b = 0; b < kBlocks; ++b) {
          const __m512i count = _mm512_popcnt_epi32(_mm512_xor_si512(signs, weight[b]));
          differing[b][p] = _mm512_add_epi32(differing[b][p], count);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int b = 0; b < kBlocks; ++b) finish<kPositions>(job, differing[b], position, block + b);
}

template <int kBlocks>
void convolve_blocks(const RowJob& job, int block) {
  for_each_piece<kMostPositions>(job.positions, [&](auto count, int position) {
    convolve<decltype(count)::value, kBlocks>(job, position, block);
  });
}

void convolve_row(const RowJob& job) {
  int block = 0;
  for (; block + 4 <= job.blocks; block += 4) convolve_blocks<4>(job, block);
  if (block + 2 <= job.blocks) {
    convolve_blocks<2>(job, block);
    block += 2;
  }
  if (block < job.blocks) convolve_blocks<1>(job, block);
}

void pack_signs(const float* values, size_t count, uint8_t* signs) {
  for (; count >= 16; count -= 16, values += 16, signs += 2) {
    const __m512 value = _mm512_loadu_ps(values);
    const uint16_t mask = _mm512_cmp_ps_mask(value, _mm512_setzero_ps(), _CMP_LT_OQ);
    std::memcpy(signs, &mask, 2);
  }
  if (count > 0) {
    const __mmask16 kept = lane_mask(static_cast<int>(count));
    const __m512 value = _mm512_maskz_loadu_ps(kept, values);
    const uint16_t mask = _mm512_cmp_ps_mask(value, _mm512_setzero_ps(), _CMP_LT_OQ);
    std::memcpy(signs, &mask, (count + 7) / 8);
  }
}

void convolve_float_row(const FloatRowJob& job) { float_row<16, 6, 4>(job); }

void pool_float_row(const PoolRowJob& job) { pool_row<16>(job); }

void take_larger(const float* source, size_t count, float* target) {
  larger_of_both(source, count, target);
}

}  // namespace

const InstructionSet avx512 = {"avx512", 4, kLanes, false, int64_t{1} << 30, 4, 16,
                               convolve_row, convolve_float_row, pool_float_row, take_larger,
                               pack_signs};

}  // namespace bibench
