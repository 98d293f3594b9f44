// Memory that is given back when whoever took it is done.
#pragma once
#include <cstdlib>

#include "vectors.h"

namespace VARIANT {

template <class S> struct Memory {
  void *blocks[4096];
  int count = 0;
  bool full = false;
  // Zeros, which the system need not write where nobody looks.
  S *take(i64 numbers) {
    constexpr std::uintptr_t LINE = 64;
    void *const block = count < 4096 ? std::calloc(numbers * sizeof(S) + 2 * LINE, 1) : nullptr;
    if (!block) {
      full = true;
      return nullptr;
    }
    blocks[count++] = block;
    return reinterpret_cast<S *>((reinterpret_cast<std::uintptr_t>(block) + LINE - 1) / LINE * LINE);
  }
  template <class T> T *many(i64 count) { return reinterpret_cast<T *>(take(count * sizeof(T) / sizeof(S) + 1)); }
  ~Memory() {
    while (count) std::free(blocks[--count]);
  }
};

}  // namespace VARIANT
