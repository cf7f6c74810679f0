// fastbitset has no types of its own. What is used here, and no more.
declare module 'fastbitset' {
  export default class FastBitSet {
    words: number[]
    static fromWords(words: number[]): FastBitSet
    union(other: FastBitSet): this
    intersection(other: FastBitSet): this
    equals(other: FastBitSet): boolean
    size(): number
    forEach(take: (bit: number) => void): void
  }
}
