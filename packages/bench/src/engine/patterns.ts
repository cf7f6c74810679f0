import { Random } from '@tidemark/testkit'

/** How bits are strewn. */
export interface Pattern {
  name: string
  /** Fills both operands; what is there before is overwritten. */
  fill(a: Uint32Array, b: Uint32Array, random: Random): void
}

/** Each bit on its own with probability p: the gaps between set bits are geometric. */
function sprinkle(words: Uint32Array, p: number, random: Random): void {
  words.fill(0)
  const bits = words.length * 32
  const scale = 1 / Math.log1p(-p)
  for (let bit = gap(random, scale); bit < bits; bit += 1 + gap(random, scale)) {
    // Not bit >> 5: there can be 2^32 bits.
    const index = Math.floor(bit / 32)
    words[index] = words[index]! | (1 << (bit % 32))
  }
}

function gap(random: Random, scale: number): number {
  return Math.floor(Math.log(1 - random.float()) * scale)
}

/** Runs of about 256 dirty granules, about 16,384 apart: what files and databases leave behind. */
export function strewClusters(words: Uint32Array, random: Random): void {
  words.fill(0)
  const bits = words.length * 32
  const clean = 1 / Math.log1p(-1 / 16384)
  const dirty = 1 / Math.log1p(-1 / 256)
  for (let bit = gap(random, clean); bit < bits; bit += 1 + gap(random, clean)) {
    const end = Math.min(bits, bit + 1 + gap(random, dirty))
    setRange(words, bit, end)
    bit = end
  }
}

function setRange(words: Uint32Array, start: number, end: number): void {
  let bit = start
  for (; bit < end && bit % 32 !== 0; bit++) setBit(words, bit)
  const whole = Math.floor((end - bit) / 32)
  if (whole > 0) words.fill(0xffffffff, bit / 32, bit / 32 + whole)
  for (bit += Math.max(0, whole) * 32; bit < end; bit++) setBit(words, bit)
}

function setBit(words: Uint32Array, bit: number): void {
  const index = Math.floor(bit / 32)
  words[index] = words[index]! | (1 << (bit % 32))
}

const random =
  (p: number) =>
  (a: Uint32Array, b: Uint32Array, random: Random): void => {
    sprinkle(a, p, random)
    sprinkle(b, p, random)
  }

export const patterns: readonly Pattern[] = [
  {
    name: 'empty',
    fill(a, b) {
      a.fill(0)
      b.fill(0)
    },
  },
  { name: '0.01 %', fill: random(0.0001) },
  { name: '0.1 %', fill: random(0.001) },
  { name: '1 %', fill: random(0.01) },
  {
    name: '50 %',
    fill(a, b, random) {
      for (let i = 0; i < a.length; i++) a[i] = random.uint32()
      for (let i = 0; i < b.length; i++) b[i] = random.uint32()
    },
  },
  {
    name: 'clustered',
    fill(a, b, random) {
      strewClusters(a, random)
      strewClusters(b, random)
    },
  },
  {
    name: 'alternating',
    fill(a, b) {
      a.fill(0x55555555)
      b.fill(0x11111111)
    },
  },
]

/** 64 MiB: more than any cache keeps between two of the same. */
const TILE_WORDS = 2 ** 24

/** Fills both with the pattern, with the same bits each time; beyond a tile of 64 MiB they repeat. */
export function fillPattern(pattern: Pattern, a: Uint32Array, b: Uint32Array): void {
  const tiles = [a, b].map(words => words.subarray(0, TILE_WORDS)) as [Uint32Array, Uint32Array]
  pattern.fill(...tiles, new Random(`bench/${pattern.name}`))
  for (const [i, words] of [a, b].entries()) {
    for (let at = TILE_WORDS; at < words.length; at += TILE_WORDS) {
      words.set(tiles[i]!.subarray(0, Math.min(TILE_WORDS, words.length - at)), at)
    }
  }
}
