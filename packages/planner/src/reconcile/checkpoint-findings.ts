/** What checkpoints promise and the images do not have. */
import type { CheckpointTree } from '../checkpoints/tree.js'
import type { BackupFacts } from '../facts.js'
import { listNames } from '../nearest.js'
import { diskHistories } from '../plan/disk-history.js'
import type { Reason, ReasonCode } from '../plan/reasons.js'
import type { DiskPlan } from '../plan/types.js'
import { BROKEN } from './as-found.js'
import { planEveryCheckpoint } from './every-checkpoint.js'
import { type Finding, finding } from './findings.js'
import { isOutside } from './overview.js'
import type { BitmapPlaces, PlacedBitmap } from './places.js'
import type { ReconcileOptions } from './reconcile.js'
import { matchRecord, type RecordedDisk, recordOf } from './show.js'
import type { Ways } from './ways.js'

/** An image's own trouble is told once, not for each checkpoint. */
const OF_IMAGES: ReadonlySet<ReasonCode> = new Set([
  'image-missing',
  'image-unreadable',
  'image-inaccessible',
  'image-corrupt',
  'image-unsupported',
  'image-denied',
  'backing-cycle',
  'layer-size-differs',
])

export function checkpointFindings(
  facts: BackupFacts,
  tree: CheckpointTree,
  places: BitmapPlaces,
  ways: Ways,
  options: ReconcileOptions,
): readonly Finding[] {
  const findings: Finding[] = []
  const toldOfImages = new Set<string>()
  const gone = new Map<string, { readonly disk: RecordedDisk; readonly checkpoints: string[] }>()
  const history = new Map(
    facts.domain.disks.map(disk => [disk.target, diskHistories(facts, tree)(disk)] as const),
  )
  for (const plan of planEveryCheckpoint(facts, options)) {
    const name = plan.incremental
    const checkpoint = tree.get(name)!
    const record = recordOf(checkpoint)
    const left = new Set(record.filter(each => each.checkpoint !== 'no'))
    const outside = new Set<string>()
    const unusable: { readonly disk: DiskPlan; readonly reasons: readonly Reason[] }[] = []
    for (const disk of plan.disks) {
      const recorded = matchRecord(facts, checkpoint, record, disk.target)
      if (recorded !== undefined) left.delete(recorded)
      for (const image of disk.reasons.filter(({ code }) => OF_IMAGES.has(code))) {
        const key = `${disk.target} ${image.code}`
        if (image.severity === 'note' || toldOfImages.has(key)) continue
        toldOfImages.add(key)
        findings.push(ofImage(disk, image))
      }
      // What the checkpoint says of a disk that another one took the place of is in the entry of its target.
      const entry = recorded ?? record.find(({ target }) => target === disk.target)
      if (isOutside(disk) || entry?.checkpoint === 'no') {
        outside.add(disk.target)
        continue
      }
      if (entry === undefined) continue
      if (recorded === undefined) left.delete(entry)
      const reasons = disk.reasons.filter(
        ({ code, severity }) =>
          severity === 'blocks' && (BROKEN.has(code) || code === 'bitmap-subset-violated'),
      )
      if (reasons.length > 0) unusable.push({ disk, reasons })
    }
    const targets = new Set(unusable.map(({ disk }) => disk.target))
    const meant =
      record.length > 0 ? record : plan.disks.map(({ target }) => ({ target, checkpoint: undefined }))
    const others = meant.some(each => each.checkpoint !== 'no' && !targets.has(each.target))
    const all = places.get(name) ?? []
    for (const { disk, reasons } of unusable) {
      findings.push(brokenDisk(name, disk, reasons, all, others, plan.dialect === 'chained', ways))
    }
    const topThen = (target: string) => history.get(target)?.recorded(name).topThen
    const unneeded = all.filter(place => {
      if (place.locked || sharedFile(place, facts)) return false
      if (outside.has(place.target)) return true
      const then = topThen(place.target)
      return plan.dialect === 'independent' && then?.state === 'here' && place.layer > then.layer
    })
    findings.push(...unneeded.map(place => unneededBitmap(name, place, outside.has(place.target), ways)))
    findings.push(...differing(name, all))
    for (const disk of left) {
      const key = `${disk.target} ${disk.source ?? ''}`
      const known = gone.get(key) ?? { disk, checkpoints: [] }
      known.checkpoints.push(name)
      gone.set(key, known)
    }
  }
  return [...findings, ...[...gone.values()].map(leftDomain)]
}

function ofImage({ target }: DiskPlan, { code, message, evidence }: Reason): Finding {
  const { layer, filename } = evidence as { layer?: number; filename?: string }
  return finding(code as Finding['code'], 'error', message, { disk: target, layer, filename })
}

/** The first reason names the code; a bitmap that is not there is this command's own. */
function brokenDisk(
  checkpoint: string,
  { target, source }: DiskPlan,
  reasons: readonly Reason[],
  places: readonly PlacedBitmap[],
  others: boolean,
  chained: boolean,
  ways: Ways,
): Finding {
  const { code, message, evidence } = reasons[0]!
  const { layer, filename } = evidence as { layer?: number; filename?: string }
  const missing = code === 'bitmap-missing' || code === 'bitmap-gap'
  const where = { disk: target, layer, filename: filename ?? source, bitmap: checkpoint, checkpoint }
  const own = places.filter(place => place.target === target)
  // QEMU refuses an image with a corrupt directory: no bitmap of it can be removed by name.
  const removable = (all: readonly PlacedBitmap[]) =>
    all.filter(({ stale, bitmap }) => !stale && bitmap.corrupt === undefined)
  // Chained: what an older checkpoint needs is in this one's bitmaps too, so nothing is taken away.
  if (chained)
    return finding(missing ? 'checkpoint-without-bitmap' : (code as Finding['code']), 'error', message, where)
  const leaveOut = others ? ways.leaveOut(checkpoint, [target], removable(own)) : undefined
  const forget = ways.forget(checkpoint, removable(places))
  const name = missing ? 'checkpoint-without-bitmap' : (code as Finding['code'])
  const severity = code === 'disk-source-changed' ? 'warning' : 'error'
  switch (code) {
    case 'bitmap-corrupt':
      return finding(name, severity, message, where)
    case 'bitmaps-stale':
      return finding(name, severity, message, where, [
        filename === undefined ? undefined : ways.dropStale(filename, [leaveOut, forget]),
      ])
    case 'bitmap-subset-violated':
      return finding(name, severity, message, where, [forget])
    default:
      return finding(name, severity, message, where, [leaveOut, forget])
  }
}

/** A layer below several disks: what one of them does not need another one may. */
function sharedFile({ filename, target }: PlacedBitmap, { chains }: BackupFacts): boolean {
  for (const [other, chain] of chains) {
    if (other !== target && chain.some(layer => layer.filename === filename)) return true
  }
  return false
}

function unneededBitmap(checkpoint: string, place: PlacedBitmap, outside: boolean, ways: Ways): Finding {
  const { target: disk, layer, filename } = place
  const why = outside
    ? `which the checkpoint left out: libvirt would take it all the same, and a backup of ${disk} would lack changes`
    : 'below the layer that was the top when the checkpoint was made, so it says nothing of what changed since'
  const message = `Bitmap '${checkpoint}' is in ${filename} (${disk}, layer ${layer}), ${why}.`
  const where = { disk, layer, filename, bitmap: checkpoint, checkpoint }
  const drop = place.stale ? ways.dropStale(filename, []) : ways.drop([place], 'remove it there')
  return finding('bitmap-unneeded', 'warning', message, where, [drop])
}

/** Layers of one disk; that disks differ means nothing. */
function differing(checkpoint: string, places: readonly PlacedBitmap[]): readonly Finding[] {
  const disks = new Map<string, PlacedBitmap[]>()
  for (const place of places) {
    const known = disks.get(place.target)
    if (known === undefined) disks.set(place.target, [place])
    else known.push(place)
  }
  return [...disks].flatMap(([disk, own]) => {
    if (new Set(own.map(({ bitmap }) => bitmap.granularity)).size < 2) return []
    const shown = own.map(({ layer, bitmap }) => `layer ${layer}: ${bitmap.granularity}`).slice(0, 8)
    const message =
      `The bitmaps of checkpoint '${checkpoint}' on ${disk} are of several granularities (${shown.join(', ')}). Backups ` +
      'are right all the same: bits of a layer below are widened to those of the top.'
    return [finding('granularity-differs', 'info', message, { disk, bitmap: checkpoint, checkpoint })]
  })
}

function leftDomain({
  disk,
  checkpoints,
}: {
  readonly disk: RecordedDisk
  readonly checkpoints: readonly string[]
}): Finding {
  const { target, source } = disk
  const message =
    `${target}${source === undefined ? '' : ` (${source})`} is in the metadata of ${listNames(checkpoints)}, but is no ` +
    'disk of the domain any more. Its image may still hold the bitmaps: if it comes back after others wrote to it, ' +
    'do not trust them.'
  return finding('disk-left-domain', 'info', message, {
    disk: target,
    filename: source,
    checkpoint: checkpoints[0],
  })
}
