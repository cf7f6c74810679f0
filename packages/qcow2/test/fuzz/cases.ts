import { Random } from '@tidemark/testkit'
import type { Seed } from './corpus.js'
import { Mutant } from './mutant.js'
import { mutateOnce, resize } from './mutations.js'
import { findStructures, type Structures } from './structures.js'

/** Files of one seed with something wrong in them. */
export interface FuzzCase {
  /** Makes it again: `fuzzCase(corpus, label)`. */
  readonly label: string
  readonly files: ReadonlyMap<string, Mutant>
  readonly passphrase: string | undefined
  /** What was done to it. */
  readonly what: readonly string[]
  /** For choices while it is read. */
  readonly random: Random
}

const known = new WeakMap<Uint8Array, Structures>()

/** @param label any text: the same gives the same case, of the same corpus */
export function fuzzCase(corpus: readonly Seed[], label: string): FuzzCase {
  const random = new Random(label)
  const seed = random.pick(corpus)
  const files = new Map([...seed.files].map(([name, bytes]) => [name, new Mutant(bytes)]))
  const what: string[] = [seed.name]
  const name = random.bool(0.75) ? 'top.qcow2' : random.pick([...files.keys()])
  const mutant = files.get(name)!
  for (let more = true; more; more = random.bool(0.4)) {
    const did = name.endsWith('.raw')
      ? resize(mutant, random)
      : mutateOnce(mutant, structuresOf(mutant.base), random)
    what.push(`${name}: ${did}`)
  }
  return { label, files, passphrase: seed.passphrase, what, random: random.fork('reading') }
}

function structuresOf(bytes: Uint8Array): Structures {
  const structures = known.get(bytes) ?? findStructures(bytes)
  known.set(bytes, structures)
  return structures
}
