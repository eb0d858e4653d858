// What each instruction set gives: one file per set (avx512.cpp, avx2.cpp, neon.cpp, portable.cpp).
//
// A binary convolution is a dot product of bits, where a bit of 1 means −1: with c the number of
// places at which input and weight differ, the dot of n signs is n − 2c, and c is a popcount of
// an exclusive or. Output channels lie across the lanes of a vector and every lane reads the same
// bits of the input, so no sum ever runs across lanes, and the mask of the last comparison with
// zero is the packed output.
//
// These files include no part of the standard library that has code of its own: they are compiled
// for processors that may not be there, and a linker that merged such code would run it anyway.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bibench {

// One row of output positions, for a few blocks of output channels of one group.
//
// The input is the padded map in the form that `InstructionSet` asks for. What one output position
// reads lies in `run_count` runs of `run_units` units each: a run is a row of the kernel, or one
// tap of it where taps are dilated.
struct RowJob {
  const uint8_t* input;        // first tap of the row's first output position
  ptrdiff_t input_step;        // bytes from one output position's first tap to the next one's
  const ptrdiff_t* run_offset; // bytes from the first tap to each run
  int run_count;
  int run_units;

  const uint8_t* weights;      // blocks [units, lanes, unit bytes], the first one to compute
  size_t block_bytes;          // bytes of one block
  int blocks;                  // how many blocks to compute
  int channels;                // how many of their lanes are output channels

  const int32_t* border;       // [classes, lanes of the layer]: see Border in binary_conv.h
  const uint16_t* border_class; // of each output position
  size_t border_step;          // numbers from one class to the next

  // What is done with each dot product, in this order. Null pointers leave a step out.
  const float* scale;          // value = scale · dot + bias, by lane
  const float* bias;
  const float* residual;       // value += residual, as `output` lies
  const float* slope;          // value < 0 ? slope · value : value
  const float* shift;          // value += shift
  bool has_clip;               // value = min(max(value, low), high)
  float low, high;
  float* output;               // [positions, channel_step]
  const float* sign_offset;    // the sign is that of value + sign_offset
  uint8_t* signs;              // [positions, sign_step], 1 where it is below zero

  size_t channel_step;         // floats from one output position to the next
  size_t sign_step;            // bytes likewise

  int positions;
  uint8_t* scratch;            // 16 bytes for each unit, for the portable set alone
};

// One row of output positions of a convolution in float: see float_row.h.
struct FloatRowJob {
  const float* input;          // first tap of the row's first output position
  ptrdiff_t input_step;        // floats from one output position's first tap to the next one's
  const ptrdiff_t* tap_offset; // floats from the first tap to each one, in every input channel
  int taps;
  const float* weights;        // blocks [taps, lanes]
  int blocks;
  const float* bias;           // by lane
  float* output;               // [positions, blocks · lanes]
  int positions;
};

// One row of output positions of a max pooling across a row in float.
struct PoolRowJob {
  const float* input;          // [columns, lanes]
  int columns;
  int lanes;                   // a multiple of `float_lanes`
  int kernel, stride, pad_before;
  float* output;               // [positions, lanes]
  int positions;
};

struct InstructionSet {
  const char* name;
  int unit_bytes;      // bits of the input are read in units of so many bytes
  int lanes;           // output channels of a block
  bool splits_nibbles; // each byte lies as two: weights as low and high nibble, the input with
                       // both nibbles times 16, the offset of a row in a table of 16 × 16
  int64_t most_bits;   // more bits for one output overflow its counters
  int part_blocks;     // blocks that are computed together: work is not divided further
  int float_lanes;
  void (*convolve_row)(const RowJob&);
  void (*convolve_float_row)(const FloatRowJob&);
  void (*pool_float_row)(const PoolRowJob&);
  // target = max(target, source), number by number.
  void (*take_larger)(const float* source, size_t count, float* target);
  // Packs `count` signs into ⌈count / 8⌉ bytes, 1 where a number is below zero.
  void (*pack_signs)(const float* values, size_t count, uint8_t* signs);
};

extern const InstructionSet portable;
#if defined(__x86_64__)
extern const InstructionSet avx2;
extern const InstructionSet avx512;
#elif defined(__aarch64__)
extern const InstructionSet neon;
#endif

// The fastest set that this processor has, or the one that the environment's BIBENCH_NATIVE_ISA
// names; null where it names none that is here.
const InstructionSet* choose_instruction_set();

// Every set that this processor has, the fastest first; the list ends with null.
const InstructionSet* const* available_instruction_sets();

}  // namespace bibench
