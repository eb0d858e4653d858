// Finds out what this processor can do.
//
// The compiler's own __builtin_cpu_supports does not link in every shared object that clang makes,
// so cpuid and xgetbv are asked here. Source: Intel SDM volume 2A, CPUID.
#include <cstdlib>
#include <cstring>

#include "instruction_set.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace bibench {
namespace {

#if defined(__x86_64__)
struct Features {
  bool avx2 = false;
  bool avx512 = false;
};

bool has(unsigned bits, int bit) { return (bits >> bit & 1) != 0; }

Features find_features() {
  Features found;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return found;
  const bool has_fma = has(ecx, 12), has_xgetbv = has(ecx, 27);
  if (!has_xgetbv || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return found;
  // The operating system must save the registers, too: bits 1 and 2 are xmm and ymm, 5 to 7 are
  // the mask registers and zmm.
  unsigned saved = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  const bool saves_ymm = (saved & 0x06) == 0x06, saves_zmm = (saved & 0xe6) == 0xe6;
  found.avx2 = saves_ymm && has_fma && has(ebx, 5);
  const bool has_avx512 = has(ebx, 16) && has(ebx, 17) && has(ebx, 30) && has(ebx, 31);
  found.avx512 = found.avx2 && saves_zmm && has_avx512 && has(ecx, 14);
  return found;
}
#endif

struct Available {
  const InstructionSet* sets[4] = {};
  Available() {
    int count = 0;
#if defined(__x86_64__)
    const Features features = find_features();
    if (features.avx512) sets[count++] = &avx512;
    if (features.avx2) sets[count++] = &avx2;
#elif defined(__aarch64__)
    sets[count++] = &neon;
#endif
    sets[count] = &portable;
  }
};

}  // namespace

const InstructionSet* const* available_instruction_sets() {
  static const Available available;
  return available.sets;
}

const InstructionSet* choose_instruction_set() {
  const InstructionSet* const* sets = available_instruction_sets();
  const char* wanted = std::getenv("BIBENCH_NATIVE_ISA");
  if (wanted == nullptr || *wanted == '\0') return sets[0];
  for (; *sets != nullptr; ++sets) {
    if (std::strcmp((*sets)->name, wanted) == 0) return *sets;
  }
  return nullptr;
}

}  // namespace bibench
