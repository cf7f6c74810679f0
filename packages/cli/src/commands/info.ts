import {
  type ChainLayer,
  COMBINE_ARENA_BYTES,
  countDirty,
  createEngine,
  describeLuks,
  type Finding,
  openBitmap,
  Qcow2Error,
  readLuksHeader,
  readSnapshots,
  scanBitmapTables,
} from '@tidemark/qcow2'
import { UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Output } from '../output.js'
import { type BitmapCount, type ImageInfo, infoToJson } from '../render/info-json.js'
import { type GateOptions, type ShareOptions, withChain } from './open.js'

export interface InfoOptions extends ShareOptions, Pick<GateOptions, 'backing' | 'allow'> {
  readonly backingChain?: boolean
  readonly count?: boolean
}

/** `tidemark info`: what an image says of itself. */
export async function info(file: string, options: InfoOptions, output: Output): Promise<ExitStatus> {
  if (options.backingChain && options.backing === false) {
    throw new UsageError('--backing-chain needs the images that --no-backing keeps closed: give one of them')
  }
  const open = { ...options, topOnly: !options.backingChain, probe: true }
  return withChain(file, open, output, async layers => {
    const [top] = layers
    // Nothing can be shown of a top that cannot be opened; of a layer below, that it cannot be.
    if (top.problem !== undefined) throw top.problem
    const images: ImageInfo[] = []
    for (const layer of layers) {
      const counts = options.count ? await countBitmaps(layer) : undefined
      const wrong = await findings(layer)
      images.push({ layer, counts, ...(await guestTables(layer, wrong)), findings: wrong })
    }
    if (output.format === 'json') {
      const documents = images.map(infoToJson)
      await output.json(options.backingChain ? documents : documents[0])
    } else {
      const { infoToText } = await import('../render/info-text.js')
      const texts = images.map(image => infoToText(image, output.colors, output.width))
      await output.write(texts.join('\n'))
    }
    const broken = layers.find(layer => layer.problem !== undefined)
    if (broken?.problem !== undefined) throw broken.problem
    const unsupported = images.some(({ layer: { format, inspection }, findings }) =>
      inspection === undefined
        ? format !== 'raw'
        : findings.some(({ code }) => code === 'unsupported-feature'),
    )
    return unsupported ? exitStatus.unsupported : exitStatus.ok
  })
}

/** What is wrong, bitmap tables included: QEMU refuses an image for one bad entry. */
async function findings({ inspection }: ChainLayer): Promise<Finding[]> {
  if (inspection === undefined) return []
  return [...inspection.findings, ...(await scanBitmapTables(inspection, createEngine()))]
}

/** Internal snapshots and encryption, where there are some. What cannot be read of them is a finding more. */
async function guestTables(
  { inspection }: ChainLayer,
  findings: Finding[],
): Promise<Pick<ImageInfo, 'snapshots' | 'luks'>> {
  if (inspection === undefined) return {}
  const { storage, header } = inspection
  const tables: { -readonly [K in 'snapshots' | 'luks']?: ImageInfo[K] } = {}
  try {
    if (header.nbSnapshots > 0) tables.snapshots = await readSnapshots(storage, header)
  } catch (error) {
    findings.push(findingOf(error, 'snapshot-table-corrupt', 'snapshot table', header.snapshotsOffset))
  }
  try {
    if (header.cryptMethod === 2) tables.luks = describeLuks(await readLuksHeader(storage, inspection))
  } catch (error) {
    findings.push(findingOf(error, 'luks-header-corrupt', 'LUKS header', 0))
  }
  return tables
}

/** @throws what is no word on the image */
function findingOf(error: unknown, code: string, structure: string, offset: number): Finding {
  if (!(error instanceof Qcow2Error)) throw error
  const { message, details } = error
  return {
    structure,
    offset,
    ...details,
    code: error.code === 'corrupt-image' ? code : error.code,
    severity: 'error',
    // The image's name stands above.
    message: message.replace(`${details.image}: `, ''),
  }
}

/** In directory order. A body that cannot be read has no count, but says why. */
async function countBitmaps({ inspection }: ChainLayer): Promise<BitmapCount[]> {
  if (inspection === undefined) return []
  const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })
  const counts: BitmapCount[] = []
  for (const bitmap of inspection.bitmapDirectory?.bitmaps ?? []) {
    try {
      // What an inconsistent bitmap has marked is shown too: its flags say what it is worth.
      const source = openBitmap(inspection, bitmap, engine, {
        force: bitmap.inUse || inspection.bitmapDirectory?.stale === true,
      })
      const { granules, bytes } = await countDirty(engine, [source])
      counts.push({ count: granules, dirtyBytes: bytes })
    } catch (error) {
      if (!(error instanceof Qcow2Error)) throw error
      counts.push({ error: error.message })
    }
  }
  return counts
}
