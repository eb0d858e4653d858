// AVX-512 with VPOPCNTDQ: 16 output channels in the lanes of a vector, 32 bits of input at a time.
//
// Each step is one exclusive or, one popcount and one addition. Eight output positions and two
// blocks of channels are computed at once: a weight is loaded once for eight positions, and an
// input once for both blocks.
#include <immintrin.h>

#include <cstring>

#include "float_row.h"
#include "instruction_set.h"

namespace bibench {
namespace {

constexpr int kLanes = 16;
constexpr int kMostPositions = 8;

// The lanes of a block that are output channels, `channels` counted from its first lane.
inline __mmask16 lane_mask(int channels) {
  return channels >= kLanes ? 0xffff : static_cast<__mmask16>((1u << channels) - 1);
}

// What is done with the dot products of one block, at `kPositions` positions. The vectors are loaded
// once, and signs are stored last: a store of bytes might, for all the compiler knows, have changed
// the job itself.
template <int kPositions>
inline void finish(const RowJob& job, const __m512i* differing, int position, int block) {
  const int lane = block * kLanes;
  const int left = job.channels - lane;
  const __mmask16 mask = lane_mask(left);
  const __m512 zero = _mm512_setzero_ps();
  const __m512 low = _mm512_set1_ps(job.low), high = _mm512_set1_ps(job.high);
  const auto vector = [&](const float* numbers) {
    return numbers == nullptr ? zero : _mm512_loadu_ps(numbers + lane);
  };
  const __m512 scale = vector(job.scale), bias = vector(job.bias), slope = vector(job.slope);
  const __m512 shift = vector(job.shift), sign_offset = vector(job.sign_offset);
  const bool has_slope = job.slope != nullptr, has_shift = job.shift != nullptr;
  const bool has_offset = job.sign_offset != nullptr, has_clip = job.has_clip;
  const int32_t* border = job.border + lane;
  const size_t border_step = job.border_step, channel_step = job.channel_step;
  const uint16_t* border_class = job.border_class + position;
  const float* residual =
      job.residual == nullptr ? nullptr : job.residual + position * channel_step + lane;
  float* output = job.output == nullptr ? nullptr : job.output + position * channel_step + lane;
  uint16_t signs[kPositions];
#pragma GCC unroll 8
  for (int p = 0; p < kPositions; ++p) {
    const __m512i largest = _mm512_loadu_si512(border + border_class[p] * border_step);
    const __m512i dot = _mm512_sub_epi32(largest, _mm512_slli_epi32(differing[p], 1));
    __m512 value = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, bias);
    if (residual) {
      value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, residual + p * channel_step));
    }
    if (has_slope) {
      const __mmask16 negative = _mm512_cmp_ps_mask(value, zero, _CMP_LT_OQ);
      value = _mm512_mask_mul_ps(value, negative, value, slope);
    }
    if (has_shift) value = _mm512_add_ps(value, shift);
    if (has_clip) value = _mm512_min_ps(high, _mm512_max_ps(low, value));
    if (output) _mm512_mask_storeu_ps(output + p * channel_step, mask, value);
    if (has_offset) value = _mm512_add_ps(value, sign_offset);
    signs[p] = _mm512_mask_cmp_ps_mask(mask, value, zero, _CMP_LT_OQ);
  }
  if (!job.signs) return;
  const size_t sign_step = job.sign_step;
  uint8_t* packed = job.signs + position * sign_step + lane / 8;
  for (int p = 0; p < kPositions; ++p, packed += sign_step) {
    if (left > 8) {
      std::memcpy(packed, &signs[p], 2);
    } else {
      *packed = static_cast<uint8_t>(signs[p]);
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
void convolve_positions(const RowJob& job, int count, int position, int block) {
  switch (count) {
    case 8: return convolve<8, kBlocks>(job, position, block);
    case 7: return convolve<7, kBlocks>(job, position, block);
    case 6: return convolve<6, kBlocks>(job, position, block);
    case 5: return convolve<5, kBlocks>(job, position, block);
    case 4: return convolve<4, kBlocks>(job, position, block);
    case 3: return convolve<3, kBlocks>(job, position, block);
    case 2: return convolve<2, kBlocks>(job, position, block);
    default: return convolve<1, kBlocks>(job, position, block);
  }
}

void convolve_row(const RowJob& job) {
  // As many equal pieces as possible: 28 positions are four times 7, not three times 8 and 4.
  const int pieces = (job.positions + kMostPositions - 1) / kMostPositions;
  int block = 0;
  if (job.positions == 1) {
    for (; block + 4 <= job.blocks; block += 4) convolve<1, 4>(job, 0, block);
  }
  while (block < job.blocks) {
    const bool is_pair = block + 2 <= job.blocks;
    for (int piece = 0, position = 0; piece < pieces; ++piece) {
      const int left = job.positions - position, count = (left + pieces - piece - 1) / (pieces - piece);
      if (is_pair) {
        convolve_positions<2>(job, count, position, block);
      } else {
        convolve_positions<1>(job, count, position, block);
      }
      position += count;
    }
    block += is_pair ? 2 : 1;
  }
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

void convolve_float_row(const FloatRowJob& job) { float_row<16, 7, 4>(job); }

void take_larger(const float* source, size_t count, float* target) {
  larger_of_both(source, count, target);
}

}  // namespace

const InstructionSet avx512 = {"avx512", 4, kLanes, false, int64_t{1} << 30, 2, 16,
                               convolve_row, convolve_float_row, take_larger, pack_signs};

}  // namespace bibench
