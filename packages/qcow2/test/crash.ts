// What a disk may hold after the power failed: writes between two flushes last in any order or not at all, the last
// ones in parts, sectors of 512 bytes as a whole.
import type { Random } from '@tidemark/testkit'
import { memoryWritable, type WritableStorage } from '../src/index.js'

const SECTOR = 512

export type Operation =
  | { readonly kind: 'write'; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'resize'; readonly size: number }
  | { readonly kind: 'discard'; readonly offset: number; readonly length: number }

/** A storage in memory that notes what is done to it; each group ends with a flush. */
export class RecordingStorage {
  readonly before: Uint8Array
  readonly storage: WritableStorage
  readonly groups: Operation[][] = [[]]

  constructor(bytes: Uint8Array) {
    // Not slice(): a Buffer's is no copy.
    this.before = new Uint8Array(bytes)
    const inner = memoryWritable(bytes)
    const note = (operation: Operation) => this.groups.at(-1)!.push(operation)
    this.storage = {
      name: 'recorded',
      resizable: true,
      identity: 'recorded',
      get size() {
        return inner.size
      },
      readInto: (target, offset, options) => inner.readInto(target, offset, options),
      async writeFrom(bytes, offset) {
        note({ kind: 'write', offset, bytes: bytes.slice() })
        await inner.writeFrom(bytes, offset)
      },
      flush: async () => {
        this.groups.push([])
      },
      async resize(size) {
        note({ kind: 'resize', size })
        await inner.resize(size)
      },
      async discard(offset, length) {
        note({ kind: 'discard', offset, length })
        await inner.discard(offset, length)
      },
      close: () => inner.close(),
    }
  }
}

/** A state that a crash can leave, and how it came about. */
export interface CrashState {
  readonly what: string
  readonly bytes: Uint8Array
}

/**
 * Every prefix of the writes; and of each unflushed group, some random subsets, with some of their sectors missing.
 *
 * @param subsets random ones for each group
 */
export function* crashStates(
  { before, groups }: RecordingStorage,
  random: Random,
  subsets: number,
): Generator<CrashState> {
  let base = before
  for (const [i, group] of groups.entries()) {
    for (let length = 0; length <= group.length; length++) {
      yield {
        what: `group ${i}, the first ${length} of ${group.length}`,
        bytes: replay(base, group.slice(0, length)),
      }
    }
    for (let subset = 0; subset < subsets && group.length > 0; subset++) {
      const kept = group
        .filter(() => random.bool())
        .map(operation => (random.bool(0.4) ? torn(operation, random) : [operation]))
      yield { what: `group ${i}, subset ${subset}`, bytes: replay(base, shuffled(kept.flat(), random)) }
    }
    base = replay(base, group)
  }
}

export function shuffled<T>(items: readonly T[], random: Random): T[] {
  const out = [...items]
  for (let i = out.length - 1; i > 0; i--) {
    const j = random.int(0, i)
    const held = out[i]!
    out[i] = out[j]!
    out[j] = held
  }
  return out
}

/** Some of a write's sectors. */
export function torn(operation: Operation, random: Random): Operation[] {
  if (operation.kind !== 'write') return [operation]
  const { offset, bytes } = operation
  const parts: Operation[] = []
  for (let at = 0; at < bytes.byteLength; ) {
    const end = Math.min(bytes.byteLength, at + SECTOR - ((offset + at) % SECTOR))
    if (random.bool()) parts.push({ kind: 'write', offset: offset + at, bytes: bytes.subarray(at, end) })
    at = end
  }
  return parts
}

export function replay(base: Uint8Array, operations: readonly Operation[]): Uint8Array {
  let bytes = new Uint8Array(base)
  const grow = (size: number) => {
    if (size <= bytes.byteLength) return
    const more = new Uint8Array(size)
    more.set(bytes)
    bytes = more
  }
  for (const operation of operations) {
    if (operation.kind === 'write') {
      grow(operation.offset + operation.bytes.byteLength)
      bytes.set(operation.bytes, operation.offset)
    } else if (operation.kind === 'resize') {
      grow(operation.size)
      bytes = bytes.slice(0, operation.size)
    } else bytes.fill(0, operation.offset, operation.offset + operation.length)
  }
  return bytes
}
