import {
  type BodyQuery,
  bodyQueries,
  type Json,
  planBackup,
  type ShownCheckpoint,
  type ShownDisk,
  showCheckpoint,
  toKebab,
} from '@tidemark/planner'
import { measureBodies } from '@tidemark/planner/node'
import { isoTime } from '../checkpoint/time.js'
import {
  type CheckpointOptions,
  type OpenDomain,
  warnOfProblems,
  withDomain,
} from '../checkpoint/with-domain.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Output } from '../output.js'

export interface CheckpointShowOptions extends CheckpointOptions {
  readonly count?: boolean
  readonly bodies: boolean
}

/** Target → for each layer the bytes that are dirty; undefined where it has no bitmap that can be read. */
export type LayerCounts = ReadonlyMap<string, readonly (number | undefined)[]>

/** `tidemark checkpoint show`. */
export async function checkpointShow(
  checkpoint: string,
  options: CheckpointShowOptions,
  output: Output,
): Promise<ExitStatus> {
  return withDomain(options, output, async open => {
    const { loaded, facts, images, engine, dialect } = open
    warnOfProblems(loaded, output)
    const request = { incremental: checkpoint, dialect }
    let plan = planBackup(facts, request)
    if (options.bodies) {
      const measurements = await measureBodies(images, bodyQueries(facts, plan), engine)
      plan = planBackup(facts, { ...request, measurements })
    }
    const shown = showCheckpoint(facts, plan)
    const counts = options.count ? await countLayers(shown, open) : undefined
    if (output.format === 'json') await output.json(shownToJson(shown, plan.dialect, counts))
    else {
      const { shownToText } = await import('../render/checkpoint-text.js')
      await output.write(shownToText(shown, facts.domain.name, counts, output.colors, output.width))
    }
    return exitStatus.ok
  })
}

/** A disk in use is left out: its bodies on disk are behind those in QEMU's memory. */
async function countLayers(shown: ShownCheckpoint, { images, engine }: OpenDomain): Promise<LayerCounts> {
  const counts = new Map<string, readonly (number | undefined)[]>()
  for (const { plan, layers } of shown.disks) {
    const bytes: (number | undefined)[] = []
    for (const { layer, filename, bitmap, stale, locked } of layers) {
      if (bitmap === undefined || stale || locked || bitmap.inconsistent) {
        bytes.push(undefined)
        continue
      }
      const query: BodyQuery = {
        target: plan.target,
        union: [{ layer, filename, bitmap: bitmap.name }],
        subsets: [],
      }
      bytes.push((await measureBodies(images, [query], engine)).get(plan.target)?.dirtyBytes)
    }
    counts.set(plan.target, bytes)
  }
  return counts
}

function shownToJson(shown: ShownCheckpoint, dialect: string, counts: LayerCounts | undefined): Json {
  const { checkpoint, current, children, disks, gone } = shown
  const { name, description, parent, creationTime, libvirtSkips } = checkpoint
  return toKebab({
    name,
    description,
    parent: parent ?? null,
    creationTime: creationTime ?? null,
    created: creationTime === undefined ? null : isoTime(creationTime),
    current,
    children,
    dialect,
    libvirtSkips,
    disks: disks.map(disk => diskToJson(disk, counts?.get(disk.plan.target))),
    gone,
  })
}

function diskToJson(
  { plan, recorded, layers }: ShownDisk,
  counts: readonly (number | undefined)[] | undefined,
) {
  const { target, source, mode, libvirt, virtualSize, dirtyBytes, merge, reasons } = plan
  return {
    ...{ target, source, mode, libvirt, virtualSize: virtualSize ?? null, dirtyBytes, merge },
    recorded: recorded ?? null,
    layers: layers.map(({ bitmap, stale, ...layer }, i) => ({
      ...layer,
      bitmapsStale: stale ? true : undefined,
      bitmap:
        bitmap === undefined
          ? null
          : {
              flags: [...(bitmap.inconsistent ? ['in-use'] : []), ...(bitmap.recording ? ['auto'] : [])],
              granularity: bitmap.granularity,
              corrupt: bitmap.corrupt,
              dirtyBytes: counts?.[i],
            },
    })),
    reasons: reasons.map(({ evidence, ...reason }) => ({ ...reason, ...evidence })),
  }
}
