// Float numbers to packed signs, and NCHW to NHWC on the way.
#pragma once

#include <cstdint>

#include "instruction_set.h"
#include "parallel.h"

namespace bibench {

// Binarizes [N, C, P], or [N, P, C] where `channels_last`; P is H · W.
//
// `signs`: [N, P, ⌈C / 8⌉] or null; `moved`: the numbers as [N, P, C], or null.
void binarize(const InstructionSet& set, bool channels_last, int64_t batch, int64_t channels,
              int64_t positions, const float* input, uint8_t* signs, float* moved,
              Parallel& parallel);

}  // namespace bibench
