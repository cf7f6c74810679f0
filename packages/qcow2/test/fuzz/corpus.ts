// Small sound images of many shapes, by the real QEMU: what is mutated.
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { derivingKeys, Random, run, runQemuIo, type TempDir } from '@tidemark/testkit'
import { COMPRESSED, COPIED, dataImage } from '../data-image.js'

export interface Seed {
  readonly name: string
  /** By name; the first one is the top. */
  readonly files: ReadonlyMap<string, Uint8Array>
  readonly passphrase?: string
}

const KiB = 1024
const MiB = 1024 * KiB
const passphrase = 'correct horse'

interface Shape {
  readonly name: string
  readonly size: number
  readonly options?: readonly string[]
  readonly luks?: boolean
  readonly commands?: readonly string[]
  /** An image below it, made by the same writes. */
  readonly backing?: boolean
  readonly dataFile?: boolean
  readonly snapshots?: number
  readonly bitmaps?: number
  /** Written anew by `qemu-img convert -c`. */
  readonly compressed?: boolean
}

const shapes: readonly Shape[] = [
  { name: '512 B', size: 200 * KiB, options: ['cluster_size=512'] },
  { name: '4 KiB, version 2', size: MiB, options: ['cluster_size=4k', 'compat=0.10'] },
  { name: '64 KiB', size: 2 * MiB },
  { name: '2 MiB', size: 4 * MiB + 512, options: ['cluster_size=2M'] },
  { name: 'extended L2', size: MiB, options: ['extended_l2=on', 'cluster_size=16k'] },
  { name: 'zlib', size: MiB, compressed: true },
  { name: 'zlib, 4 KiB', size: 512 * KiB, compressed: true, options: ['cluster_size=4k'] },
  { name: 'zlib, extended L2', size: MiB, compressed: true, options: ['extended_l2=on', 'cluster_size=32k'] },
  { name: 'zstd', size: MiB, compressed: true, options: ['compression_type=zstd'] },
  { name: 'snapshots', size: MiB, options: ['cluster_size=8k'], snapshots: 3 },
  { name: 'snapshots, 512 B', size: 100 * KiB, options: ['cluster_size=512'], snapshots: 2 },
  { name: 'LUKS', size: MiB, luks: true, options: ['cluster_size=16k'] },
  { name: 'data file', size: MiB, dataFile: true, options: ['cluster_size=16k'] },
  { name: 'raw data file', size: MiB, dataFile: true, options: ['data_file_raw=on'] },
  { name: 'chain', size: MiB, backing: true, options: ['cluster_size=16k'] },
  { name: 'chain, extended L2', size: MiB, backing: true, options: ['cluster_size=32k', 'extended_l2=on'] },
  { name: 'bitmaps', size: MiB, options: ['cluster_size=4k'], bitmaps: 3 },
  { name: 'refcounts of 1 bit', size: MiB, options: ['refcount_bits=1', 'cluster_size=4k'] },
  { name: 'refcounts of 64 bits', size: MiB, options: ['refcount_bits=64', 'cluster_size=1k'] },
  { name: 'preallocated', size: MiB, options: ['preallocation=metadata', 'cluster_size=4k'] },
]

/** One after the other: QEMU's tools are short, and a test shares its machine. */
export async function makeCorpus(dir: TempDir): Promise<Seed[]> {
  const seeds: Seed[] = []
  for (const shape of shapes) seeds.push(await make(shape, dir))
  return [...seeds, ...crafted()]
}

async function make(shape: Shape, dir: TempDir): Promise<Seed> {
  const random = new Random(`corpus ${shape.name}`)
  const inDir = { cwd: dir.path }
  const created: string[] = []
  const create = async (file: string, size: number, more: readonly string[], options: readonly string[]) => {
    const all = options.flatMap(option => ['-o', option])
    const args = ['create', '-q', '-f', 'qcow2', ...more, ...all, file, `${size}`]
    await derivingKeys(() => run('qemu-img', args, inDir))
    created.push(file)
  }
  const open = (file: string, luks: boolean): string[] => [
    ...(luks ? secret : []),
    '--image-opts',
    `driver=qcow2,file.filename=${dir.file(file)}${luks ? ',encrypt.key-secret=k' : ''}` +
      (shape.dataFile ? `,data-file.driver=file,data-file.filename=${dir.file('data.raw')}` : ''),
  ]
  const write = (file: string, size: number) =>
    runQemuIo(open(file, shape.luks ?? false), writes(random, size))
  const options = [...(shape.options ?? [])]
  if (shape.backing) {
    await create('base.qcow2', shape.size * 0.75, [], [])
    await runQemuIo(open('base.qcow2', false), writes(random, shape.size * 0.75))
    options.push('backing_file=base.qcow2', 'backing_fmt=qcow2')
  }
  if (shape.dataFile) {
    options.push('data_file=data.raw')
    created.push('data.raw')
  }
  if (shape.luks) options.push('encrypt.format=luks', 'encrypt.key-secret=k', 'encrypt.iter-time=1')
  await create('top.qcow2', shape.size, shape.luks ? secret : [], options)
  await write('top.qcow2', shape.size)
  for (let i = 0; i < (shape.snapshots ?? 0); i++) {
    await run('qemu-img', ['snapshot', '-c', `snapshot ${i}`, 'top.qcow2'], inDir)
    if (i === 1) await run('qemu-img', ['resize', '-q', 'top.qcow2', `${shape.size * 1.5}`], inDir)
    await write('top.qcow2', shape.size)
  }
  for (let i = 0; i < (shape.bitmaps ?? 0); i++) {
    await run('qemu-img', ['bitmap', '--add', '-g', `${4 << i}k`, 'top.qcow2', `bitmap ${i}`], inDir)
    await write('top.qcow2', shape.size)
  }
  if (shape.compressed) {
    const to = options.flatMap(option => ['-o', option])
    await run('qemu-img', ['convert', '-c', '-O', 'qcow2', ...to, 'top.qcow2', 'small.qcow2'], inDir)
    created.push('small.qcow2')
    // A cluster that is not compressed beside them.
    await runQemuIo(open('small.qcow2', false), ['write -P 99 100000 70000'])
  }
  const top = shape.compressed ? 'small.qcow2' : 'top.qcow2'
  const others = [...(shape.backing ? ['base.qcow2'] : []), ...(shape.dataFile ? ['data.raw'] : [])]
  const files = new Map([['top.qcow2', readFileSync(dir.file(top))]])
  for (const file of others) files.set(file, readFileSync(dir.file(file)))
  for (const file of created) rmSync(dir.file(file))
  return { name: shape.name, files, ...(shape.luks ? { passphrase } : {}) }
}

const secret = ['--object', `secret,id=k,data=${passphrase}`]

/** Patterns, zeros and holes, in odd places too. */
function writes(random: Random, size: number): string[] {
  const commands: string[] = []
  for (let i = 0; i < 14; i++) {
    const start = random.int(0, size / 512 - 1) * 512
    const length = Math.min(size - start, random.int(1, Math.floor(size / 4096)) * 512)
    const how = random.pick([
      `write -P ${random.int(1, 255)}`,
      `write -P ${random.int(1, 255)}`,
      'write -z',
      'write -z -u',
    ])
    commands.push(`${how} ${start} ${length}`)
  }
  return commands
}

/** What QEMU does not write, but reads. */
function crafted(): Seed[] {
  const cluster = new Uint8Array(4 * KiB).fill(7)
  const one = (name: string, bytes: Uint8Array): Seed => ({ name, files: new Map([['top.qcow2', bytes]]) })
  const kinds = dataImage({
    clusterBits: 12,
    virtualSize: 64 * KiB,
    l2: [cluster, 0n, 1n, cluster, COPIED | 1n, cluster.fill(3)],
  })
  const shared = dataImage({ clusterBits: 12, virtualSize: 64 * KiB, l2: [cluster, 0n] })
  // Two guest clusters on one host cluster, and one that is compressed in it.
  const view = new DataView(shared.bytes.buffer)
  view.setBigUint64(shared.l2 + 8, COPIED | BigInt(shared.clusters[0]!))
  view.setBigUint64(shared.l2 + 16, COMPRESSED | BigInt(shared.clusters[0]!))
  return [
    one('crafted: kinds', kinds.bytes),
    one('crafted: shared', shared.bytes),
    one('crafted: nothing', dataImage({ clusterBits: 9, virtualSize: 0, l2: [] }).bytes),
    one(
      'crafted: subclusters',
      dataImage({
        clusterBits: 14,
        incompatibleFeatures: 16n,
        virtualSize: 128 * KiB,
        l2: [new Uint8Array(16 * KiB).fill(5), [0n, 0xf0n << 32n]],
      }).bytes,
    ),
  ]
}

/** For real programs to open: files of a mutant, written where they find each other. */
export function writeFiles(dir: TempDir, files: ReadonlyMap<string, Uint8Array>): void {
  for (const [name, bytes] of files) writeFileSync(dir.file(name), bytes)
}
