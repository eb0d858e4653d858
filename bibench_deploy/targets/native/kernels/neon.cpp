// NEON: 16 output channels in bytes, 8 bits of input at a time; `cnt` counts the bits of bytes.
#include <arm_neon.h>

#include <cstring>

#include "float_row.h"
#include "instruction_set.h"
#include "pieces.h"

namespace bibench {
namespace {

constexpr int kLanes = 16;
constexpr int kMostPositions = 4;
// A unit of 8 bits adds at most 8 to a byte.
constexpr int kMostUnits = 255 / 8;

inline void finish(const RowJob& job, const uint16_t* differing, int position, int lane) {
  const int left = job.channels - lane;
  if (left <= 0) return;
  const int32_t* border = job.border + job.border_class[position] * job.border_step + lane;
  const size_t place = position * job.channel_step + lane;
  const uint32x4_t weight_of_lane = {1, 2, 4, 8};
  uint32_t signs = 0;
  for (int half = 0; half < 8 && half < left; half += 4) {
    const int32x4_t count = vreinterpretq_s32_u32(vmovl_u16(vld1_u16(differing + half)));
    const int32x4_t dot = vsubq_s32(vld1q_s32(border + half), vaddq_s32(count, count));
    const float32x4_t scale = vld1q_f32(job.scale + lane + half);
    const float32x4_t bias = vld1q_f32(job.bias + lane + half);
    float32x4_t value = vfmaq_f32(bias, vcvtq_f32_s32(dot), scale);
    const int kept = left - half < 4 ? left - half : 4;
    if (job.residual) {
      float residual[4] = {};
      std::memcpy(residual, job.residual + place + half, kept * sizeof(float));
      value = vaddq_f32(value, vld1q_f32(residual));
    }
    if (job.slope) {
      const float32x4_t steeper = vmulq_f32(value, vld1q_f32(job.slope + lane + half));
      value = vbslq_f32(vcltzq_f32(value), steeper, value);
    }
    if (job.shift) value = vaddq_f32(value, vld1q_f32(job.shift + lane + half));
    if (job.has_clip) {
      value = vmaxq_f32(vdupq_n_f32(job.low), value);
      value = vminq_f32(vdupq_n_f32(job.high), value);
    }
    if (job.output) {
      float numbers[4];
      vst1q_f32(numbers, value);
      std::memcpy(job.output + place + half, numbers, kept * sizeof(float));
    }
    if (job.sign_offset) value = vaddq_f32(value, vld1q_f32(job.sign_offset + lane + half));
    signs |= vaddvq_u32(vandq_u32(vcltzq_f32(value), weight_of_lane)) << half;
  }
  if (!job.signs) return;
  if (left < 8) signs &= (1u << left) - 1;
  job.signs[position * job.sign_step + lane / 8] = static_cast<uint8_t>(signs);
}

template <int kPositions, int kBlocks>
inline void convolve(const RowJob& job, int position, int block) {
  uint16_t differing[kPositions][kBlocks][kLanes] = {};
  const uint8_t* first_tap = job.input + position * job.input_step;
  const uint8_t* weights = job.weights + block * job.block_bytes;
  for (int run = 0; run < job.run_count; ++run) {
    const uint8_t* input = first_tap + job.run_offset[run];
    for (int left = job.run_units; left > 0; left -= kMostUnits) {
      uint8x16_t count[kPositions][kBlocks];
#pragma GCC unroll 4
      for (int p = 0; p < kPositions; ++p) {
#pragma GCC unroll 4
        for (int b = 0; b < kBlocks; ++b) count[p][b] = vdupq_n_u8(0);
      }
      const int units = left < kMostUnits ? left : kMostUnits;
      for (int unit = 0; unit < units; ++unit, ++input, weights += kLanes) {
        uint8x16_t weight[kBlocks];
#pragma GCC unroll 4
        for (int b = 0; b < kBlocks; ++b) weight[b] = vld1q_u8(weights + b * job.block_bytes);
#pragma GCC unroll 4
        for (int p = 0; p < kPositions; ++p) {
          const uint8x16_t signs = vld1q_dup_u8(input + p * job.input_step);
#pragma GCC unroll 4
          for (int b = 0; b < kBlocks; ++b) {
            count[p][b] = vaddq_u8(count[p][b], vcntq_u8(veorq_u8(signs, weight[b])));
          }
        }
      }
#pragma GCC unroll 4
      for (int p = 0; p < kPositions; ++p) {
#pragma GCC unroll 4
        for (int b = 0; b < kBlocks; ++b) {
          uint16_t* sums = differing[p][b];
          vst1q_u16(sums, vaddw_u8(vld1q_u16(sums), vget_low_u8(count[p][b])));
          vst1q_u16(sums + 8, vaddw_high_u8(vld1q_u16(sums + 8), count[p][b]));
        }
      }
    }
  }
  for (int p = 0; p < kPositions; ++p) {
    for (int b = 0; b < kBlocks; ++b) {
      for (int lane = 0; lane < kLanes; lane += 8) {
        finish(job, differing[p][b] + lane, position + p, (block + b) * kLanes + lane);
      }
    }
  }
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
  const uint32x4_t low_weight = {1, 2, 4, 8}, high_weight = {16, 32, 64, 128};
  for (; count >= 8; count -= 8, values += 8, ++signs) {
    const uint32x4_t low = vandq_u32(vcltzq_f32(vld1q_f32(values)), low_weight);
    const uint32x4_t high = vandq_u32(vcltzq_f32(vld1q_f32(values + 4)), high_weight);
    *signs = static_cast<uint8_t>(vaddvq_u32(vorrq_u32(low, high)));
  }
  if (count > 0) {
    unsigned mask = 0;
    for (size_t lane = 0; lane < count; ++lane) mask |= unsigned{values[lane] < 0} << lane;
    *signs = static_cast<uint8_t>(mask);
  }
}

void convolve_float_row(const FloatRowJob& job) { float_row<4, 8, 2>(job); }

void pool_float_row(const PoolRowJob& job) { pool_row<4>(job); }

void take_larger(const float* source, size_t count, float* target) {
  larger_of_both(source, count, target);
}

}  // namespace

const InstructionSet neon = {"neon", 1, kLanes, false, 65535, 4, 4,
                             convolve_row, convolve_float_row, pool_float_row, take_larger,
                             pack_signs};

}  // namespace bibench
