import {
  type BitmapEngine,
  type ChainLayer,
  type Finding,
  type ImageOpener,
  Qcow2Error,
  readSnapshots,
  scanBitmapTables,
} from '@tidemark/qcow2'
import { type LockTable, readLocks } from '@tidemark/qcow2/node'
import type { BitmapFacts, LayerFacts, LayerProblem, SnapshotFacts } from '../facts.js'
import { isAbsolutePath } from '../paths.js'
import { fileId } from './file-ids.js'

/** What reading a layer's facts needs besides the layer. */
export interface FactsOptions {
  readonly engine: BitmapEngine
  readonly locks: Promise<LockTable>
  readonly open: ImageOpener
}

/** What the planner is told of a layer; what is wrong with it is in there, nothing is thrown for it. */
export async function layerFacts(
  layer: ChainLayer,
  { engine, locks, open }: FactsOptions,
): Promise<LayerFacts> {
  const { inspection, storage } = layer
  const directory = inspection?.bitmapDirectory
  const { snapshots, broken } = await snapshotFacts(layer)
  const data = await dataFileFacts(layer, open)
  const held = async (file: string | undefined) => file !== undefined && (await readLocks(file, locks)).writer
  const inTables = new Map<string | undefined, Finding[]>()
  for (const each of inspection ? await scanBitmapTables(inspection, engine) : []) {
    if (each.severity === 'error') inTables.set(each.bitmap, [...(inTables.get(each.bitmap) ?? []), each])
  }
  const bitmaps = directory?.bitmaps.map((bitmap): BitmapFacts => {
    const wrong = inTables.get(bitmap.name) ?? []
    const pastEnd = wrong.every(({ code }) => code === 'bitmap-table-past-end-of-file')
    return {
      name: bitmap.name,
      granularity: bitmap.granularity,
      recording: bitmap.auto,
      inconsistent: bitmap.inUse,
      corrupt: bitmap.unreadable ?? wrong[0]?.message,
      qemuLoads: bitmap.unreadable === undefined ? wrong.length > 0 && pastEnd : bitmap.readAsClean,
    }
  })
  return {
    filename: layer.filename,
    namedAs: layer.namedAs,
    format: layer.format,
    problem: layerProblem(layer) ?? broken ?? data.problem,
    virtualSize: inspection?.virtualSize ?? (layer.format === 'raw' ? storage?.size : undefined),
    compat: inspection && (inspection.header.version === 2 ? '0.10' : '1.1'),
    locked: (await held(storage && layer.filename)) || (await held(data.filename)),
    bitmapsStale: directory?.stale ?? false,
    bitmaps: bitmaps ?? [],
    ...(snapshots.length > 0 ? { snapshots } : {}),
    ...(data.raw === undefined ? {} : { dataFileRaw: data.raw }),
    fileId: storage === undefined ? undefined : fileId(layer.filename),
  }
}

/** QEMU opens no image whose snapshot table it cannot read. */
async function snapshotFacts({
  inspection,
}: ChainLayer): Promise<{ snapshots: SnapshotFacts[]; broken?: LayerProblem }> {
  if (inspection === undefined || inspection.header.nbSnapshots === 0) return { snapshots: [] }
  try {
    const all = await readSnapshots(inspection.storage, inspection.header)
    return {
      snapshots: all.map(({ id, name, dateSec, diskSize }) => ({ id, name, date: dateSec, diskSize })),
    }
  } catch (error) {
    if (!(error instanceof Qcow2Error)) throw error
    return { snapshots: [], broken: { code: 'image-corrupt', message: error.message } }
  }
}

/** The file that an image has its guest data in: QEMU does not open the image without it. */
async function dataFileFacts(
  layer: ChainLayer,
  open: ImageOpener,
): Promise<{ filename?: string; raw?: string; problem?: LayerProblem }> {
  const name = layer.inspection?.dataFile
  if (name === undefined) return {}
  if (!isAbsolutePath(name)) {
    const message = `its data file '${name}' is no path that holds wherever QEMU runs`
    return { problem: { code: 'image-denied', message } }
  }
  try {
    const { storage, filename } = await open(name, { name, format: 'raw', from: layer, use: 'data-file' })
    await storage.close()
    return { filename, ...(layer.inspection?.dataFileRaw ? { raw: filename } : {}) }
  } catch (error) {
    if (!(error instanceof Qcow2Error)) throw error
    return { problem: { code: problemCode(error), message: `its data file: ${error.message}` } }
  }
}

/** Why QEMU would not open a layer, but for a bitmap's directory entry, which speaks for itself. */
function layerProblem({ problem, inspection, depth }: ChainLayer): LayerProblem | undefined {
  if (problem !== undefined) return { code: problemCode(problem), message: problem.message }
  const refused = inspection?.findings.find(
    ({ code, severity, structure }) =>
      (severity === 'error' && structure !== 'bitmap directory entry') ||
      // QEMU opens it read-only, which is no good for a disk.
      (code === 'corrupt-flag' && depth === 0),
  )
  if (refused === undefined) return undefined
  const code = refused.code === 'unsupported-feature' ? 'image-unsupported' : 'image-corrupt'
  return { code, message: refused.message }
}

/** Why a system call failed that says nothing of the image: another user, or another moment, may open it. */
const OURS = new Set(['EACCES', 'EPERM', 'EMFILE', 'ENFILE', 'ENOMEM'])

function problemCode({ code, details, cause }: Qcow2Error): LayerProblem['code'] {
  if (OURS.has((cause as NodeJS.ErrnoException | undefined)?.code ?? '')) return 'image-inaccessible'
  switch (code) {
    case 'image-missing':
      return 'image-missing'
    case 'reference-denied':
      return 'image-denied'
    case 'unsupported-feature':
      return 'image-unsupported'
    case 'corrupt-image':
      return details.cycle === true ? 'backing-cycle' : 'image-corrupt'
    case 'not-qcow2':
      return 'image-corrupt'
    default:
      return 'image-unreadable'
  }
}
