#pragma once

namespace bibench {

// Runs a small convolution with every instruction set of this processor and compares it with plain
// sums of products. Gives the name of the first set that computes something else, or null.
const char* failing_instruction_set();

}  // namespace bibench
