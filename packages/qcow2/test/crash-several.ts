// What several disks may hold after the power failed, in the one order in which they were written to: each file keeps
// what it held at its last flush, and of what was written since some, in any order and in parts.
import type { Random } from '@tidemark/testkit'
import { type EditJournal, memoryWritable, Qcow2Error, type WritableStorage } from '../src/index.js'
import { type Operation, replay, shuffled, torn } from './crash.js'

type Event =
  | { readonly file: string; readonly operation: Operation }
  | { readonly file: string; readonly operation: 'flush' | 'remove' }

/** Files by name. */
export type Files = ReadonlyMap<string, Uint8Array>

export const JOURNAL = '/journal'

/** Files in memory, and what is done to them, in order. */
export class RecordedFiles {
  readonly before: Files
  readonly log: Event[] = []
  readonly #storages = new Map<string, WritableStorage>()

  constructor(before: Files) {
    this.before = before
  }

  /** @throws Error where there is no such file */
  storage(file: string): WritableStorage {
    const there = this.#storages.get(file)
    if (there !== undefined) return there
    const bytes = this.before.get(file)
    if (bytes === undefined) throw new Error(`no file ${file}`)
    const inner = memoryWritable(bytes, { name: file })
    const note = (operation: Event['operation']) => this.log.push({ file, operation } as Event)
    const storage: WritableStorage = {
      name: file,
      resizable: true,
      identity: file,
      get size() {
        return inner.size
      },
      readInto: (target, offset, options) => inner.readInto(target, offset, options),
      async writeFrom(part, offset) {
        note({ kind: 'write', offset, bytes: part.slice() })
        await inner.writeFrom(part, offset)
      },
      async flush() {
        note('flush')
      },
      async resize(size) {
        note({ kind: 'resize', size })
        await inner.resize(size)
      },
      async discard(offset, length) {
        note({ kind: 'discard', offset, length })
        await inner.discard(offset, length)
      },
      async close() {},
    }
    this.#storages.set(file, storage)
    return storage
  }

  journal(): EditJournal {
    return {
      storage: this.storage(JOURNAL),
      remove: async () => {
        this.log.push({ file: JOURNAL, operation: 'remove' })
      },
    }
  }
}

export interface SeveralState {
  readonly what: string
  /** Without the journal where it was removed. */
  readonly files: Files
}

/**
 * Each prefix of all that was done; and for each of them, `subsets` times, some of what was not flushed.
 *
 * @param part of the prefixes, at random
 */
export function* severalStates(
  { before, log }: RecordedFiles,
  random: Random,
  subsets: number,
  part = 1,
): Generator<SeveralState> {
  const safe = new Map(before)
  const open = new Map<string, Operation[]>()
  const state = (chosen: (operations: readonly Operation[]) => readonly Operation[]): Files =>
    new Map([...safe].map(([file, bytes]) => [file, replay(bytes, chosen(open.get(file) ?? []))]))
  for (let length = 0; ; length++) {
    if (part === 1 || random.bool(part)) {
      yield { what: `the first ${length} of ${log.length}`, files: state(operations => operations) }
      for (let subset = 0; subset < subsets; subset++) {
        const files = state(operations =>
          shuffled(
            operations
              .filter(() => random.bool())
              .flatMap(operation => (random.bool(0.4) ? torn(operation, random) : [operation])),
            random,
          ),
        )
        yield { what: `${length} of ${log.length}, subset ${subset}`, files }
      }
    }
    const event = log[length]
    if (event === undefined) return
    const { file, operation } = event
    if (operation === 'remove') safe.delete(file)
    else if (operation === 'flush') {
      safe.set(file, replay(safe.get(file)!, open.get(file) ?? []))
      open.delete(file)
    } else open.set(file, [...(open.get(file) ?? []), operation])
  }
}

/** What is there when nothing is cut off. */
export function filesAfter({ before, log }: RecordedFiles): Files {
  const last = new Map<string, Uint8Array>()
  for (const [name, bytes] of before) {
    const events = log.filter(({ file }) => file === name).map(({ operation }) => operation)
    if (events.includes('remove')) continue
    last.set(
      name,
      replay(
        bytes,
        events.filter(each => typeof each === 'object'),
      ),
    )
  }
  return last
}

/** The call that would be the nth in the log fails, once. */
export function failAt(files: RecordedFiles, at: number): void {
  const push = files.log.push.bind(files.log)
  let failed = false
  files.log.push = event => {
    if (!failed && files.log.length === at && event.operation !== 'remove') {
      failed = true
      throw new Qcow2Error('write-failed', `call ${at}`)
    }
    return push(event)
  }
}
