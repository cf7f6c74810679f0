// Images of every kind that may have bitmaps, made by QEMU and edited by it in all the ways that it offers.
import {
  type CreateOptions,
  qcow2Blockdev,
  qemuImg,
  qemuIo,
  qemuIoCrash,
  type Random,
  StorageDaemon,
  type TempDir,
} from '@tidemark/testkit'
import type { BitmapAction } from '../src/index.js'
import { afterCrash, afterResize, applyModel, type Model, randomActions, recorded } from './edit-model.js'

const KiB = 1024
const MiB = 1024 * KiB

export interface VariedImage {
  readonly file: string
  readonly size: number
  /** For messages: its options. */
  readonly what: string
}

/**
 * The `serial`-th: all cluster sizes with all refcount widths after 91 of them, the other options at random. No
 * bitmaps, some data.
 */
export async function makeVariedImage(dir: TempDir, serial: number, random: Random): Promise<VariedImage> {
  const clusterBits = 9 + (serial % 13)
  const refcountBits = 2 ** (serial % 7)
  const size = random.int(1, clusterBits < 12 ? 4 * KiB : random.pick([20 * KiB, 4 * MiB])) * 512
  const options: CreateOptions = { clusterSize: 2 ** clusterBits, refcountBits }
  const data = random.pick(['plain', 'plain', 'backing', 'backing', 'data file', 'raw data file'] as const)
  const file = dir.file(`varied-${serial}.qcow2`)
  if (data === 'backing') {
    options.backing = dir.file(`base-${serial}.qcow2`)
    await qemuImg.create(options.backing, Math.max(512, size - 512 * random.int(0, 8)))
    await qemuIo(options.backing, ['write -q -P 3 0 512'])
  } else if (data !== 'plain') {
    options.dataFile = dir.file(`data-${serial}`)
    options.dataFileRaw = data === 'raw data file'
  }
  if (clusterBits >= 14) options.extendedL2 = random.bool()
  if (random.bool(0.3)) options.lazyRefcounts = true
  if (random.bool(0.3) && data === 'plain') options.preallocation = 'metadata'
  if (random.bool(0.3)) options.compressionType = 'zstd'
  await qemuImg.create(file, size, options)
  const image = { file, size, what: `${serial}: ${size} bytes, ${JSON.stringify(options)}` }
  const ownData = options.dataFile === undefined
  // QEMU compresses into clusters that are not allocated yet.
  const compressed = ownData && options.preallocation === undefined && size >= 2 ** clusterBits
  await qemuIo(file, [
    ...(compressed ? [`write -q -c -P 5 0 ${2 ** clusterBits}`] : []),
    write(random, size),
    write(random, size),
  ])
  // With a refcount of one bit nothing can be shared.
  if (refcountBits > 1 && ownData && random.bool(0.3)) await qemuImg.snapshot('-c', 'before', file)
  return image
}

export function write(random: Random, size: number): string {
  const { offset, length } = stretch(random, size)
  return `write -q -P ${random.int(1, 255)} ${offset} ${length}`
}

function stretch(random: Random, size: number): { offset: number; length: number } {
  const sectors = size / 512
  const first = random.int(0, sectors - 1)
  return { offset: first * 512, length: Math.min(random.int(1, 300), sectors - first) * 512 }
}

/** An image, and what its bitmaps are. */
export interface Known {
  readonly size: number
  readonly model: Model
}

const turns = ['qemu-img', 'qemu-img', 'qemu-io', 'daemon', 'daemon', 'resize', 'crash'] as const

/** QEMU edits: by qemu-img, by a guest's writes, by QMP while a guest writes, by another size, by a crash. */
export async function qemusTurn(
  file: string,
  { size, model }: Known,
  random: Random,
): Promise<Known & { readonly turn: string }> {
  const broken = [...model.values()].some(({ inUse }) => inUse)
  let turn: (typeof turns)[number]
  // QEMU resizes none whose bitmaps are inconsistent; and one crash is enough.
  do turn = random.pick(turns)
  while (broken && (turn === 'resize' || turn === 'crash'))
  switch (turn) {
    case 'qemu-img': {
      const actions = randomActions(random, model, size, random.int(1, 3), qemusActions)
      for (const action of actions) await qemuImg.bitmap(...argumentsOf(action), file, action.name)
      return { turn: described(turn, actions), size, model: applyModel(model, actions, size) }
    }
    case 'qemu-io': {
      const writes = Array.from({ length: random.int(1, 3) }, () => stretch(random, size))
      await qemuIo(file, writes.map(writeZeros))
      return { turn: described(turn, writes), size, model: recorded(model, writes, size) }
    }
    case 'daemon':
      return { size, ...(await daemonsTurn(file, { size, model }, random)) }
    case 'resize': {
      const to = Math.max(
        512,
        random.pick([size + random.int(1, 4000) * 512, 512 * random.int(1, size / 512)]),
      )
      await qemuImg.resize(file, to)
      return { turn: `resize to ${to}`, size: to, model: afterResize(model, size, to) }
    }
    case 'crash':
      await qemuIoCrash(file, [write(random, size)])
      // What was not written yet leaks; lazy refcounts are to be counted anew.
      await qemuImg.check(file, 'all')
      return { turn, size, model: afterCrash(model) }
  }
}

const qemusActions = ['add', 'remove', 'clear', 'enable', 'disable', 'merge', 'merge'] as const

const described = (turn: string, what: unknown) => `${turn} ${JSON.stringify(what)}`

const writeZeros = ({ offset, length }: { offset: number; length: number }) =>
  `write -q -z ${offset} ${length}`

function argumentsOf(action: BitmapAction): string[] {
  switch (action.action) {
    case 'add':
      return ['--add', '-g', String(action.granularity), ...(action.disabled ? ['--disable'] : [])]
    case 'merge':
      return ['--merge', action.source]
    default:
      return [`--${action.action}`]
  }
}

/** QMP commands, one by one or as one transaction; a guest writes before, between and after. */
async function daemonsTurn(
  file: string,
  { size, model }: Known,
  random: Random,
): Promise<{ model: Model; turn: string }> {
  const daemon = await StorageDaemon.start([qcow2Blockdev('disk', file)])
  const said: unknown[] = []
  let now = model
  try {
    const uri = await daemon.exportNbd('disk', { writable: true })
    for (let i = random.int(1, 3); i > 0; i--) {
      const actions = randomActions(random, now, size, random.int(1, 3), qemusActions)
      const commands = actions.map(qmpOf)
      // A transaction looks for all names before it does anything.
      if (actions.every(({ action }) => action !== 'add' && action !== 'remove')) {
        const transaction = commands.map(([type, data]) => ({ type, data }))
        await daemon.qmp('transaction', { actions: transaction })
      } else for (const [command, data] of commands) await daemon.qmp(command, data)
      now = applyModel(now, actions, size)
      const writes = [stretch(random, size)]
      await qemuIo(uri, writes.map(writeZeros), { format: 'raw' })
      now = recorded(now, writes, size)
      said.push(actions, writes)
    }
    await daemon.quit()
  } catch (error) {
    await daemon.kill()
    throw new Error(described('daemon', said), { cause: error })
  }
  return { model: now, turn: described('daemon', said) }
}

function qmpOf(action: BitmapAction): [command: string, args: Record<string, unknown>] {
  const it = { node: 'disk', name: action.name }
  switch (action.action) {
    case 'add': {
      const { granularity, disabled = false } = action
      return ['block-dirty-bitmap-add', { ...it, granularity, disabled, persistent: true }]
    }
    case 'merge':
      return ['block-dirty-bitmap-merge', { node: 'disk', target: action.name, bitmaps: [action.source] }]
    default:
      return [`block-dirty-bitmap-${action.action}`, it]
  }
}
