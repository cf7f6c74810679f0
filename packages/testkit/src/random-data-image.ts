import { mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { type CreateOptions, convert, create } from './qemu-img.js'
import { qemuIo, runQemuIo } from './qemu-io.js'
import { derivingKeys } from './qemu-keys.js'
import { Random } from './random.js'
import { type DataFeatures, featuresOf } from './random-data-coverage.js'
import { type DataWrite, type LayerPlan, planQcow2, planRaw, type Step } from './random-data-layer.js'
import { run } from './run.js'

/** A chain of images with guest data that the real QEMU made. */
export interface RandomDataImage {
  seed: number | string
  /** The folder that holds all files of it, and nothing else. */
  dir: string
  /** The top image, always qcow2. */
  file: string
  /** Guest bytes: a multiple of 512. */
  size: number
  /** The top first. */
  layers: readonly DataLayer[]
  features: DataFeatures
  /** Opens every encrypted layer. The file holds the same bytes, with no line feed. */
  passphrase?: string
  passphraseFile?: string
  /** Of the top image, oldest first. */
  snapshots: readonly DataSnapshot[]
  /** The last arguments of a qemu program: they name the image and, if need be, the key. */
  openArgs: readonly string[]
}

/** One image of a chain and how it was made. */
export interface DataLayer extends Omit<LayerPlan, 'steps' | 'firstSize'> {
  file: string
  dataFilePath?: string
  /** Those that open this layer with what is below it. */
  openArgs: readonly string[]
}

/** An internal snapshot. Its disk may be of another size than the image's. */
export interface DataSnapshot {
  id: string
  name: string
  size: number
}

/**
 * Makes a chain in `DIR/<seed>/`, all of it decided by the seed and made by qemu-img and qemu-io alone: 0–5 backing
 * files, what `dataAxes` lists, writes of every kind, snapshots and resizes between them.
 *
 * LUKS costs 2 s for a layer (QEMU times its key derivation, whatever `iter-time` says), so it is seldom. In an
 * encrypted layer that is preallocated, clusters nobody wrote are noise by a key that is new each time: that alone the
 * seed does not decide.
 */
export async function makeRandomDataImage(seed: number | string, dir: string): Promise<RandomDataImage> {
  const home = join(dir, String(seed))
  const { plans, large, folders, passphrase } = planChain(new Random(seed).fork('data'))
  const passphraseFile = passphrase === undefined ? undefined : join(home, 'passphrase')
  mkdirSync(home)
  if (passphraseFile) writeFileSync(passphraseFile, passphrase!)

  const layers: DataLayer[] = []
  for (const [i, plan] of plans.entries()) {
    const folder = join(home, folders[i]!)
    mkdirSync(folder, { recursive: true })
    const file = join(folder, `${i}.${plan.format}`)
    const { steps, firstSize, ...rest } = plan
    const openArgs = openArgsOf(file, [rest, ...layers], passphraseFile)
    const dataFilePath = plan.dataFile === 'none' ? undefined : join(folder, `${i}.data`)
    const layer = { ...rest, file, openArgs, ...(dataFilePath ? { dataFilePath } : {}) }
    await (plan.format === 'raw' ? makeRaw(layer, plan) : makeQcow2(layer, plan, layers[0], passphraseFile))
    layers.unshift(layer)
  }

  const top = layers[0]!
  const snapshots = plans.at(-1)!.steps.filter(step => step.do === 'snapshot')
  return {
    seed,
    dir: home,
    file: top.file,
    size: top.size,
    layers,
    features: featuresOf(plans, folders, large),
    ...(passphraseFile ? { passphrase: passphrase!, passphraseFile } : {}),
    snapshots: snapshots.map(({ name, size }, i) => ({ id: String(i + 1), name, size })),
    openArgs: top.openArgs,
  }
}

/**
 * How a qemu program names an image, for its last arguments.
 *
 * @param layers the image's and all below it; of an image without LUKS in its chain it is just the file.
 */
export function openArgsOf(
  file: string,
  layers: readonly Pick<LayerPlan, 'encryption'>[],
  passphraseFile: string | undefined,
): string[] {
  const keys = layers.flatMap(({ encryption }, depth) =>
    encryption === 'none' ? [] : [`${'backing.'.repeat(depth)}encrypt.key-secret=key`],
  )
  if (keys.length === 0 || passphraseFile === undefined) return [file]
  const options = ['driver=qcow2', 'file.driver=file', `file.filename=${comma(file)}`, ...keys]
  return [...keyObject(passphraseFile), '--image-opts', options.join(',')]
}

const comma = (text: string): string => text.replaceAll(',', ',,')

const keyObject = (passphraseFile: string): string[] => [
  '--object',
  `secret,id=key,file=${comma(passphraseFile)}`,
]

interface ChainPlan {
  /** The bottom first. */
  plans: LayerPlan[]
  large: boolean
  folders: string[]
  passphrase: string | undefined
}

function planChain(random: Random): ChainPlan {
  const depth = random.pick([0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5])
  const large = random.bool(0.12)
  const luks = random.bool(0.12)
  const onlyLuks = random.int(0, depth)
  const rawBottom = depth > 0 && random.bool(0.35)
  const span = large ? 2 ** 28 : 2 ** 22
  const hotspots = Array.from({ length: random.int(1, 3) }, () => random.int(0, span))
  const plans: LayerPlan[] = []
  for (let i = 0; i <= depth; i++) {
    const draw = random.fork(`layer ${i}`)
    const locked = luks && (i === onlyLuks || draw.bool(0.15))
    const encryption = locked ? draw.pick(['aes-256', 'aes-128'] as const) : 'none'
    const place = { below: plans, top: i === depth, large, hotspots, encryption } as const
    plans.push(i === 0 && rawBottom ? planRaw(draw, { ...place }) : planQcow2(draw, { ...place }))
  }
  const folders = plans.map(() => random.pick(['.', '.', 'a', 'b/with,comma']))
  const encrypted = plans.some(plan => plan.encryption !== 'none')
  const passphrase = random.pick(['secret', 'with spaces, and a comma', 'größe-日本', `p${random.uint32()}`])
  return { plans, large, folders, passphrase: encrypted ? passphrase : undefined }
}

async function makeRaw(layer: DataLayer, plan: LayerPlan): Promise<void> {
  await create(layer.file, plan.firstSize, { format: 'raw' })
  const { commands } = plan.steps[0] as Step & { do: 'write' }
  await written(layer, commands, texts => qemuIo(layer.file, texts, { format: 'raw' }))
  if (plan.missingBytes > 0) truncateSync(layer.file, plan.size - plan.missingBytes)
}

async function makeQcow2(
  layer: DataLayer,
  plan: LayerPlan,
  backing: DataLayer | undefined,
  passphraseFile: string | undefined,
): Promise<void> {
  const options = createOptions(layer, backing, passphraseFile)
  const [first, ...later] = plan.steps
  if (plan.compressedBy === 'convert') {
    // Written plainly beside it, with the same backing file, and then compressed as a whole.
    const plain = { ...layer, file: `${layer.file}.plain`, openArgs: [`${layer.file}.plain`] }
    const { clusterSize, backing: name, backingFormat } = options
    await create(plain.file, plan.firstSize, only({ clusterSize, backing: name, backingFormat }))
    await done(plain, first!)
    await convert(plain.file, layer.file, { to: 'qcow2', args: compressArgs(options) })
    rmSync(plain.file)
  } else {
    await derivingKeys(() => create(layer.file, plan.firstSize, options))
    await done(layer, first!)
  }
  for (const step of later) await done(layer, step)
}

function createOptions(
  layer: DataLayer,
  backing: DataLayer | undefined,
  passphraseFile: string | undefined,
): CreateOptions {
  const { encryption, compression, compat } = layer
  const luks = ['encrypt.format=luks', 'encrypt.key-secret=key', 'encrypt.iter-time=10']
  if (encryption === 'aes-128') luks.push('encrypt.cipher-alg=aes-128')
  return only({
    clusterSize: layer.clusterSize,
    compat,
    refcountBits: compat === '0.10' ? undefined : layer.refcountBits,
    lazyRefcounts: layer.lazyRefcounts || undefined,
    extendedL2: layer.extendedL2 || undefined,
    compressionType: compression === 'none' ? undefined : compression,
    dataFile: layer.dataFilePath,
    dataFileRaw: layer.dataFile === 'raw' || undefined,
    preallocation: layer.preallocation,
    backing: backing && nameOf(backing, layer.file),
    backingFormat: backing?.format,
    objects: encryption === 'none' ? undefined : keyObject(passphraseFile!).slice(1),
    options: encryption === 'none' ? undefined : luks,
  })
}

/** `convert`'s arguments for what `create` takes as options. */
function compressArgs(options: CreateOptions): string[] {
  const { clusterSize, compat, refcountBits, lazyRefcounts, extendedL2, compressionType } = options
  const values = {
    cluster_size: clusterSize,
    compat,
    refcount_bits: refcountBits,
    lazy_refcounts: lazyRefcounts,
    extended_l2: extendedL2,
    compression_type: compressionType,
  }
  const set = Object.entries(values).filter(([, value]) => value !== undefined)
  const text = set.map(([key, value]) => `${key}=${value === true ? 'on' : value}`).join(',')
  const { backing, backingFormat } = options
  return ['-c', '-o', text, ...(backing === undefined ? [] : ['-B', backing, '-F', backingFormat!])]
}

/** How an overlay names its backing file. `file:` and `json:` names are never joined to the overlay's folder. */
function nameOf(backing: DataLayer, overlay: string): string {
  switch (backing.name) {
    case 'relative':
      return relative(dirname(overlay), backing.file)
    case 'absolute':
      return backing.file
    case 'file':
      return `file:${backing.file}`
    case 'json':
      return `json:${JSON.stringify({ driver: backing.format, file: { driver: 'file', filename: backing.file } })}`
  }
}

async function done(layer: DataLayer, step: Step): Promise<void> {
  if (step.do === 'write') {
    await written(layer, step.commands, texts => runQemuIo(layer.openArgs, texts))
  } else if (step.do === 'snapshot') {
    await run('qemu-img', ['snapshot', '-c', step.name, ...layer.openArgs])
  } else {
    await run('qemu-img', ['resize', '-q', '--shrink', ...layer.openArgs, String(step.size)])
  }
}

/** Gives `PATTERN`s their files while `io` runs the commands. */
async function written(
  layer: DataLayer,
  commands: readonly DataWrite[],
  io: (texts: string[]) => Promise<unknown>,
): Promise<void> {
  if (commands.length === 0) return
  const files: string[] = []
  const texts = commands.map(({ command, pattern }, i) => {
    if (!pattern) return command
    const file = `${layer.file}.pattern${i}`
    writeFileSync(file, pattern)
    files.push(file)
    return command.replace('PATTERN', file)
  })
  try {
    await io(texts)
  } finally {
    for (const file of files) rmSync(file)
  }
}

/** Without the keys that are undefined. */
function only<T extends object>(values: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as T
}
