import type { BitmapEngine } from '@tidemark/bitmap-wasm'
import { discard, writeRefcounts } from '../edit/execute.js'
import { unmarked, unmarking } from '../edit/switch-states.js'
import { Qcow2Error } from '../errors.js'
import { inspectImage } from '../image/inspect.js'
import type { Direction } from '../journal/content.js'
import { readStart } from '../storage/overlaid.js'
import type { Found } from './found.js'
import type { RecoverOptions } from './recover.js'
import { leaksOf } from './sound.js'

/** Writes what is left of the switch, or takes back what there is of it; each write lasts before the next. */
export async function takeAlong({ storage, state }: Found, direction: Direction): Promise<void> {
  if (storage === undefined || state.kind !== 'marked') return
  const { step, torn, way } = state
  const write = async (offset: number, bytes: Uint8Array): Promise<void> => {
    await storage.writeFrom(bytes, offset)
    await storage.flush()
  }
  if (direction === 'forward') {
    for (const { offset, bytes } of way.writes.slice(step)) await write(offset, bytes)
    return
  }
  for (let i = torn ? step : step - 1; i >= 0; i--) {
    const { offset, bytes } = way.writes[i]!
    await write(offset, way.states[i]!.slice(offset, offset + bytes.byteLength))
  }
}

/** The mark goes, of an image that has arrived. */
export async function unmark({ storage, state }: Found, direction: Direction): Promise<void> {
  if (storage === undefined || state.kind !== 'marked') return
  const { offset, bytes } = unmarking(state.way.states.at(direction === 'forward' ? -1 : 0)!)
  await storage.writeFrom(bytes, offset)
  await storage.flush()
}

/** Frees what nobody refers to, in an image that is known; tells how much that is, or why nothing was freed. */
export async function freeLeaks(
  { storage, state, entry }: Found,
  direction: Direction,
  engine: BitmapEngine,
  options: RecoverOptions,
): Promise<{ freed: number; leaks: string | undefined }> {
  if (storage === undefined) return { freed: 0, leaks: undefined }
  if (state.kind === 'foreign') return { freed: 0, leaks: 'it has changed, and is left alone' }
  const cluster0 =
    state.kind === 'marked'
      ? unmarked(state.way.states.at(direction === 'forward' ? -1 : 0)!)
      : await readStart(storage, entry.clusterSize)
  let clusters: number[]
  try {
    clusters = await leaksOf(storage, entry, cluster0, engine, options)
  } catch (error) {
    if (!(error instanceof Qcow2Error) || error.code === 'read-failed') throw error
    return { freed: 0, leaks: error.message }
  }
  if (clusters.length > 0 && !options.dryRun) {
    const image = { ...(await inspectImage(storage, engine)), storage }
    await writeRefcounts(image, clusters, 0)
    await storage.flush()
    await discard(image, clusters)
  }
  return { freed: clusters.length, leaks: undefined }
}
