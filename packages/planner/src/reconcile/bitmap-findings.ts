/** Bitmaps that no checkpoint knows, and what is odd about an image's bitmaps as such. */
import type { BackupFacts, LayerFacts } from '../facts.js'
import type { Dialect } from '../plan/types.js'
import { type BitmapCost, type Finding, finding, type Way } from './findings.js'
import { type OrphanBitmap, orphanBitmaps } from './order-queries.js'
import { bitmapOwner, type Ownership } from './owners.js'
import { type BitmapPlaces, filesOf } from './places.js'
import { isSoundOrphan } from './rebuild.js'
import type { Ways } from './ways.js'

type Costs = ReadonlyMap<string, ReadonlyMap<string, BitmapCost>>

/** QEMU's limits: block/qcow2-bitmap.c. */
const MOST_BITMAPS = 65_535
const LONGEST_NAME = 1023
const MOST_BYTES = 0x20000000
const GRANULARITIES = [2 ** 9, 2 ** 31] as const

export function bitmapFindings(
  facts: BackupFacts,
  places: BitmapPlaces,
  ways: Ways,
  costs: Costs,
  dialect: Dialect,
): readonly Finding[] {
  const targets = facts.domain.disks.map(({ target }) => target)
  return [
    ...duplicates(places),
    ...orphanBitmaps(facts).map(orphan => orphanFinding(facts, orphan, targets, ways, costs, dialect)),
    ...limits(facts),
    ...inUse(facts),
  ]
}

function orphanFinding(
  facts: BackupFacts,
  orphan: OrphanBitmap,
  targets: readonly string[],
  ways: Ways,
  costs: Costs,
  dialect: Dialect,
): Finding {
  const { name, places, unfit } = orphan
  const owner = bitmapOwner(name, targets)
  const files = filesOf(places)
  const first = places[0]!
  const where = {
    disk: first.target,
    layer: first.layer,
    filename: first.filename,
    bitmap: name,
    filenames: files.length > 1 ? files.map(({ filename }) => filename) : undefined,
    owner,
    cost: totalCost(files.map(({ filename }) => costs.get(filename)?.get(name))),
  }
  const seat = placesText(orphan)
  const out = waysOut(facts, orphan, ways, dialect)
  if (unfit === 'temporary') {
    const message =
      `Bitmap '${name}' (${seat}) is named like one that libvirt makes for the length of a job. Such a one should never ` +
      'be on disk: a job that was cut off left it, or somebody chose the name.'
    return finding('bitmap-temporary', 'warning', message, where, out)
  }
  if (unfit === 'other-tool') {
    const message = `Bitmap '${name}' (${seat}) is ${ownerText(owner!)}, which keeps its bitmaps beside libvirt. It is no checkpoint; leave it to that tool as long as you use it.`
    return finding('bitmap-foreign', 'info', message, where, out)
  }
  const state = places.some(({ stale }) => stale)
    ? ' It is stale.'
    : places.some(({ bitmap, locked }) => bitmap.inconsistent && !locked)
      ? ' It is in-use, left so by a writer that did not finish.'
      : ''
  const whose =
    owner === undefined
      ? ''
      : ` By its name it is ${ownerText(owner)}${owner.owner === 'ovirt' || owner.owner === 'opennebula' || owner.owner === 'virtnbdbackup' ? ', which may keep the metadata itself and tell libvirt anew before it makes a backup: look there first' : ''}.`
  if (dialect === 'chained') {
    const message =
      `Bitmap '${name}' (${seat}) belongs to no checkpoint, and the bitmaps here are chained: what changed since the ` +
      `checkpoints before it may be in this one alone. Do not remove it as long as one of them is needed.${state}${whose}`
    return finding('bitmap-orphan', 'error', message, where, out)
  }
  const message =
    `Bitmap '${name}' (${seat}) belongs to no checkpoint: it grows with every write and is of no use to libvirt, and a ` +
    `new checkpoint of that name would fail ("Bitmap already exists").${state}${whose}`
  return finding('bitmap-orphan', 'warning', message, where, out)
}

function waysOut(
  facts: BackupFacts,
  orphan: OrphanBitmap,
  ways: Ways,
  dialect: Dialect,
): readonly (Way | undefined)[] {
  const { name, places, unfit } = orphan
  if (places.some(({ bitmap }) => bitmap.corrupt !== undefined)) return []
  const stale = places.find(place => place.stale)
  if (stale !== undefined) {
    const rest = places.filter(place => !place.stale)
    return [ways.dropStale(stale.filename, [ways.drop(rest, 'remove it from the others')])]
  }
  const adopt = unfit === undefined && isSoundOrphan(facts, orphan, dialect) ? ways.adopt(name) : undefined
  if (places.some(({ locked }) => locked)) {
    const disks = places.filter(({ layer }) => layer === 0).map(({ target }) => target)
    return unfit === 'not-a-name' || disks.length === 0 ? [] : [adopt, ways.deleteRunning(name, disks)]
  }
  // Chained: what an older checkpoint needs may be in it alone.
  if (dialect === 'chained' && unfit === undefined) return [adopt]
  return [adopt, ways.drop(places, 'remove it from every image that has it')]
}

function ownerText({ title, certainty }: Ownership): string {
  return certainty === 'certain' ? `of ${title}` : `likely of ${title}`
}

function placesText({ places }: OrphanBitmap): string {
  const shown = places
    .slice(0, 6)
    .map(({ target, layer }) => (layer === 0 ? target : `${target} layer ${layer}`))
  return places.length > 6 ? `${shown.join(', ')} and ${places.length - 6} more` : shown.join(', ')
}

function totalCost(all: readonly (BitmapCost | undefined)[]): BitmapCost | undefined {
  const known = all.filter(cost => cost !== undefined)
  if (known.length === 0) return undefined
  return {
    clusters: known.reduce((sum, { clusters }) => sum + clusters, 0),
    bytes: known.reduce((sum, { bytes }) => sum + bytes, 0),
  }
}

function duplicates(places: BitmapPlaces): Finding[] {
  const findings: Finding[] = []
  for (const [bitmap, all] of places) {
    const seen = new Set<string>()
    for (const { target: disk, layer, filename } of all) {
      const key = `${disk} ${layer}`
      if (!seen.has(key)) {
        seen.add(key)
        continue
      }
      const message =
        `${filename} (${disk}, layer ${layer}) has several bitmaps named '${bitmap}'. Which of them is meant cannot be ` +
        'told, so none of them is to be trusted; QEMU does not open such an image.'
      findings.push(finding('bitmap-duplicate', 'error', message, { disk, layer, filename, bitmap }))
    }
  }
  return findings
}

/** What QEMU would refuse to add to, or would not have made. */
function limits({ domain, chains }: BackupFacts): Finding[] {
  const findings: Finding[] = []
  for (const { target: disk } of domain.disks) {
    for (const [layer, image] of (chains.get(disk) ?? []).entries()) {
      const { filename, bitmaps } = image
      if (bitmaps.length >= MOST_BITMAPS) {
        const message = `${filename} (${disk}, layer ${layer}) has ${bitmaps.length} bitmaps, the most that an image can: no checkpoint can be added.`
        findings.push(finding('bitmap-limit', 'warning', message, { disk, layer, filename }))
      }
      const over = overLimit(image)
      if (over === undefined) continue
      const message = `${filename} (${disk}, layer ${layer}): ${over.why}. QEMU makes no such bitmap, and may refuse the image.`
      findings.push(finding('bitmap-limit', 'warning', message, { disk, layer, filename, bitmap: over.name }))
    }
  }
  return findings
}

/** The first bitmap that is over a limit. */
function overLimit({ bitmaps, virtualSize = 0 }: LayerFacts): { name: string; why: string } | undefined {
  for (const { name, granularity } of bitmaps) {
    if (name.length > LONGEST_NAME)
      return { name, why: `a bitmap's name has more than ${LONGEST_NAME} bytes` }
    if (granularity < GRANULARITIES[0] || granularity > GRANULARITIES[1]) {
      return { name, why: `bitmap '${name}' has a granularity of ${granularity}` }
    }
    const bytes = Math.ceil(virtualSize / granularity / 8)
    if (bytes > MOST_BYTES)
      return { name, why: `bitmap '${name}' would have ${bytes} bytes, more than 512 MiB` }
  }
  return undefined
}

function inUse({ domain, chains }: BackupFacts): Finding[] {
  return domain.disks.flatMap(({ target: disk }) => {
    const chain = chains.get(disk) ?? []
    const layer = chain.findIndex(({ locked }) => locked)
    if (layer < 0) return []
    const { filename } = chain[layer]!
    const message = `${filename} (${disk}) is held by a running QEMU: its bitmaps are in QEMU's memory, and what there is of them on disk tells only of those that were there at its start.`
    return [finding('image-in-use', 'info', message, { disk, layer, filename })]
  })
}
