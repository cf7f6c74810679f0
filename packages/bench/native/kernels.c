// The loops that a C engineer writes, left to gcc to vectorise: no intrinsics, no inline assembly. Bits are
// LSB first, as in qcow2, so on a little-endian machine any word size will do.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

void bench_union(uint64_t *restrict dst, const uint64_t *restrict src, size_t words) {
  for (size_t i = 0; i < words; i++) dst[i] |= src[i];
}

void bench_intersection(uint64_t *restrict dst, const uint64_t *restrict src, size_t words) {
  for (size_t i = 0; i < words; i++) dst[i] &= src[i];
}

uint64_t bench_count(const uint64_t *src, size_t words) {
  uint64_t total = 0;
  for (size_t i = 0; i < words; i++) total += (uint64_t)__builtin_popcountll(src[i]);
  return total;
}

uint64_t bench_union_count(uint64_t *restrict dst, const uint64_t *restrict src, size_t words) {
  uint64_t total = 0;
  for (size_t i = 0; i < words; i++) total += (uint64_t)__builtin_popcountll(dst[i] |= src[i]);
  return total;
}

uint32_t bench_equals(const uint64_t *a, const uint64_t *b, size_t words) {
  return memcmp(a, b, words * 8) == 0;
}

/// Is all of a in b? 4 KiB at a time: gcc vectorises a loop only where it cannot end early.
uint32_t bench_subset(const uint64_t *a, const uint64_t *b, size_t words) {
  for (size_t at = 0; at < words; at += 512) {
    const size_t end = at + 512 < words ? at + 512 : words;
    uint64_t outside = 0;
    for (size_t i = at; i < end; i++) outside |= a[i] & ~b[i];
    if (outside) return 0;
  }
  return 1;
}

/// 16 fine bits are a uint16_t: eight of these make a byte of coarse bits.
void bench_coarsen16(uint8_t *restrict dst, const uint16_t *restrict src, size_t dst_bytes) {
  for (size_t i = 0; i < dst_bytes; i++) {
    unsigned byte = 0;
    for (unsigned j = 0; j < 8; j++) byte |= (unsigned)(src[i * 8 + j] != 0) << j;
    dst[i] |= (uint8_t)byte;
  }
}

void bench_refine16(uint16_t *restrict dst, const uint8_t *restrict src, size_t src_bytes) {
  for (size_t i = 0; i < src_bytes; i++)
    for (unsigned j = 0; j < 8; j++) dst[i * 8 + j] = (uint16_t)-((src[i] >> j) & 1);
}

/// Takes a full room of edges. Not inlined, and it reads memory as far as gcc knows: the edges must be stored.
/// With a place for a hash it adds them up, for the check outside the timer.
__attribute__((noinline)) static uint64_t hand_over(const double *edges, size_t held, double granularity, uint32_t *hash) {
  __asm__ volatile("" : : "r"(edges) : "memory");
  if (hash != NULL)
    for (size_t i = 0; i < held; i++) *hash = *hash * 31 + (uint32_t)(uint64_t)(edges[i] / granularity);
  return held;
}

/// Edges (where a bit differs from the one before it) as byte offsets, a room at a time; returns how many.
uint64_t bench_extents(const uint64_t *src, size_t words, double granularity, double *room, size_t size, uint32_t *hash) {
  uint64_t previous = 0, total = 0;
  size_t held = 0;
  for (size_t i = 0; i < words; i++) {
    const uint64_t word = src[i];
    uint64_t edges = word ^ (word << 1 | previous);
    previous = word >> 63;
    if (edges == 0) continue;
    if (size - held < 64) {
      total += hand_over(room, held, granularity, hash);
      held = 0;
    }
    do {
      room[held++] = (double)(i * 64 + (uint64_t)__builtin_ctzll(edges)) * granularity;
      edges &= edges - 1;
    } while (edges);
  }
  if (previous) room[held++] = (double)(words * 64) * granularity;
  return total + hand_over(room, held, granularity, hash);
}
