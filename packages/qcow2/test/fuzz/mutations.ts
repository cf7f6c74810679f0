// Ways to make a sound image wrong, by what its bytes mean. Each says what it did.
import type { Random } from '@tidemark/testkit'
import { COMPRESSED, COPIED } from '../data-image.js'
import type { Mutant } from './mutant.js'
import type { Kind, Place, Structures } from './structures.js'

const U64 = 2n ** 64n - 1n

/** One thing that goes wrong. `what` must be enough to make it again by hand. */
export function mutateOnce(mutant: Mutant, structures: Structures, random: Random): string {
  return random.pick(weighted)(mutant, structures, random)
}

type Mutation = (mutant: Mutant, structures: Structures, random: Random) => string

const weighted: readonly Mutation[] = [
  ...Array<Mutation>(6).fill(setField),
  ...Array<Mutation>(3).fill(flipField),
  ...Array<Mutation>(3).fill(bendEntry),
  ...Array<Mutation>(2).fill(compressedEntry),
  ...Array<Mutation>(2).fill(swapEntries),
  swapEntries,
  truncate,
  grow,
  flipAnywhere,
  copyAcross,
  nameBacking,
]

function setField(mutant: Mutant, structures: Structures, random: Random): string {
  const place = anyPlace(structures, random)
  return put(mutant, place, interesting(mutant, structures, place, random))
}

function flipField(mutant: Mutant, structures: Structures, random: Random): string {
  const place = anyPlace(structures, random)
  const bit = 1n << BigInt(random.int(0, place.width * 8 - 1))
  return put(mutant, place, mutant.number(place.at, place.width) ^ bit)
}

/** A reference to where something else is, with flags that may go with it or not. */
function bendEntry(mutant: Mutant, structures: Structures, random: Random): string {
  const place = placeOf(structures, random, ['l1', 'l2'])
  const flags = random.pick([0n, COPIED, COPIED, COPIED, COPIED | 1n, 1n, COMPRESSED, 1n << 56n, 2n])
  return put(mutant, place, flags | BigInt(target(mutant, structures, random)))
}

/** Compressed cluster descriptors: of data that are there, or not; of too many sectors, or too few. */
function compressedEntry(mutant: Mutant, structures: Structures, random: Random): string {
  const place = placeOf(structures, random, ['l2'])
  const sectorBits = structures.clusterBits - 8
  const before = mutant.number(place.at, 8)
  const offset = BigInt(
    random.pick([
      Number(before & ((1n << BigInt(62 - sectorBits)) - 1n)),
      target(mutant, structures, random) + random.int(0, 600),
      Math.max(0, mutant.size - random.int(0, 1024)),
      Math.max(0, mutant.size - 512 * random.int(0, 9)),
    ]),
  )
  const sectors = BigInt(random.pick([0, 1, 2, 2 ** sectorBits - 1, random.int(0, 2 ** sectorBits - 1)]))
  return put(mutant, place, (COMPRESSED | (sectors << BigInt(62 - sectorBits)) | offset) & U64)
}

function swapEntries(mutant: Mutant, structures: Structures, random: Random): string {
  const a = placeOf(structures, random, ['l1', 'l2', 'refcounts'])
  const b = placeOf(structures, random, random.bool(0.8) ? [a.kind] : ['l1', 'l2'])
  const [first, second] = [mutant.number(a.at, 8), mutant.number(b.at, 8)]
  return `swap: ${put(mutant, a, second)}, ${put(mutant, b, first)}`
}

function truncate(mutant: Mutant, structures: Structures, random: Random): string {
  const { offsets, clusterSize } = structures
  const size = random.pick([
    random.int(0, mutant.size),
    random.pick(offsets) + random.pick([0, 1, 8, -1]),
    mutant.size - random.int(1, 513),
    mutant.size - clusterSize * random.int(1, 3),
    mutant.size - (mutant.size % clusterSize || clusterSize) + random.pick([0, 1, 511, 512]),
  ])
  mutant.size = Math.max(0, Math.min(size, mutant.size))
  return `truncate to ${mutant.size}`
}

function grow(mutant: Mutant, { clusterSize }: Structures, random: Random): string {
  const more = random.pick([1, 511, 512, clusterSize, random.int(1, 3 * clusterSize)])
  if (random.bool()) mutant.write(mutant.size, random.bytes(more))
  mutant.size += more
  return `grow by ${more}`
}

/** In the first 1 KiB most often: of the rest, most are data. */
function flipAnywhere(mutant: Mutant, structures: Structures, random: Random): string {
  const flipped: string[] = []
  for (let i = random.int(1, 8); i > 0 && mutant.size > 0; i--) {
    const near = random.pick([0, ...structures.offsets])
    const at = Math.min(
      mutant.size - 1,
      near + random.int(0, random.pick([64, 1024, structures.clusterSize])),
    )
    const bit = random.int(0, 7)
    mutant.put(at, 1, mutant.number(at, 1) ^ (1n << BigInt(bit)))
    flipped.push(`${at}.${bit}`)
  }
  return `flip ${flipped.join(' ')}`
}

/** A cluster, or a part, on another one. */
function copyAcross(mutant: Mutant, structures: Structures, random: Random): string {
  const [from, to] = [random.pick(structures.offsets), random.pick(structures.offsets)]
  const length = random.pick([8, 16, 512, structures.clusterSize])
  mutant.write(to, mutant.read(from, length))
  return `copy ${length} bytes from ${from} to ${to}`
}

const names = [
  '',
  'top.qcow2',
  'base.qcow2',
  './top.qcow2',
  'file:top.qcow2',
  'missing',
  '\0',
  'json:',
  'json:{}',
  'json:{"driver":"qcow2","file":{"driver":"file","filename":"top.qcow2"}}',
  'json:{"driver":"qcow2","file":{"driver":"file","filename":"/top.qcow2"}}',
  'json:{"driver":"raw","file.filename":"/base.qcow2"}',
  'json:{"driver":[{"toString":1}]}',
  'json:{"__proto__":null,"driver":"file","filename":"/base.qcow2"}',
  `json:${'['.repeat(400)}`,
  `json:${'{"a":'.repeat(150)}1${'}'.repeat(150)}`,
  'fat:/',
  'a'.repeat(1023),
  '\ud800\u{1f600}',
]

/** Another name; an image without one gets it behind its extensions. Its format may be said, or not. */
function nameBacking(mutant: Mutant, structures: Structures, random: Random): string {
  const name = random.pick(names)
  const bytes = new TextEncoder().encode(name)
  const format = random.pick([undefined, 'qcow2', 'raw'])
  let at = structures.backingName?.at ?? structures.room
  if (structures.backingName === undefined && format !== undefined) {
    const extension = new Uint8Array(24)
    const view = new DataView(extension.buffer)
    view.setUint32(0, 0xe2792aca)
    view.setUint32(4, format.length)
    extension.set(new TextEncoder().encode(format), 8)
    mutant.write(structures.room - 8, extension)
    at += 24
  }
  mutant.write(at, bytes)
  mutant.put(8, 8, BigInt(at))
  mutant.put(16, 4, BigInt(bytes.length))
  return `backing name ${JSON.stringify(name.slice(0, 80))} ${format ?? 'of the same format'}`
}

function put(mutant: Mutant, { kind, name, at, width }: Place, value: bigint): string {
  mutant.put(at, width, value)
  return `${kind} ${name} at ${at} = 0x${(value & U64).toString(16)}`
}

/** Each kind as likely, however many there are of it; tables more so. */
function anyPlace(structures: Structures, random: Random): Place {
  const kinds = [...structures.places.keys()]
  return placeOf(structures, random, [...kinds, ...kinds.filter(kind => kind === 'l1' || kind === 'l2')])
}

function placeOf({ places }: Structures, random: Random, kinds: readonly Kind[]): Place {
  const there = kinds.filter(kind => places.has(kind))
  return random.pick(places.get(there.length === 0 ? 'header' : random.pick(there))!)
}

/** Where a reference may lead. */
function target(mutant: Mutant, { offsets, clusterSize }: Structures, random: Random): number {
  const last = mutant.size - (mutant.size % clusterSize || clusterSize)
  return Math.max(
    0,
    random.pick([
      random.pick(offsets),
      random.pick(offsets),
      random.pick(offsets) + random.pick([1, 8, 512, -512]),
      last + random.pick([0, clusterSize, -clusterSize]),
      random.int(0, Math.ceil(mutant.size / clusterSize)) * clusterSize,
      random.pick([2 ** 40, 2 ** 53 - 512, 2 ** 55]),
    ]),
  )
}

function interesting(mutant: Mutant, structures: Structures, place: Place, random: Random): bigint {
  const now = mutant.number(place.at, place.width)
  const cluster = BigInt(structures.clusterSize)
  const top = 1n << BigInt(place.width * 8 - 1)
  const value = random.pick([
    () => random.pick([0n, 1n, 2n, top - 1n, top, 2n * top - 1n]),
    () => now + random.pick([-1n, 1n, 8n, cluster, -cluster, 512n, -512n]),
    () => random.pick([now * 2n, now / 2n, now * cluster, now / cluster, -now]),
    () => BigInt(mutant.size) + random.pick([0n, -1n, 1n, -512n, cluster]),
    () => BigInt(target(mutant, structures, random)),
    () => 2n ** BigInt(random.int(0, place.width * 8 - 1)) + random.pick([0n, -1n]),
    () => random.pick([9n, 16n, 21n, 22n, 40n, 104n, 4000n, 65536n, 65537n, 2n ** 53n - 512n, 2n ** 53n]),
    () => BigInt(random.int(0, 2 ** 32 - 1)) << BigInt(8 * random.int(0, 4)),
  ])()
  return value & (2n * top - 1n)
}

/** All that can be wrong with a file that has no structure. */
export function resize(mutant: Mutant, random: Random): string {
  const { size } = mutant
  mutant.size = random.pick([0, 1, Math.max(0, size - 1), size + 1, random.int(0, 2 * size)])
  return `size ${mutant.size}`
}
