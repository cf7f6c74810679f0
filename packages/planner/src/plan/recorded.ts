/**
 * What a checkpoint recorded of a disk. libvirt does not ask: a bitmap of the right name is enough for it. But a
 * disk that was not part of the checkpoint, or was another one, has no valid "changes since".
 */
import type { CheckpointFacts, DomainDisk } from '../facts.js'
import { normalizePath } from '../paths.js'
import { type FilesNow, filesThen } from './disk-files.js'
import { matchDisk, targetsThen } from './disks-then.js'
import { type Reason, reason } from './reasons.js'

export interface Recorded {
  readonly reasons: readonly Reason[]
  readonly topThen: TopThen
  /** The disk's files at that time, top first; undefined where the record does not say. */
  readonly filesThen?: readonly string[]
}

/** The layer that was the top at the checkpoint, where the bitmap began: what is known of it now. */
export type TopThen =
  /** Index in the chain now. */
  | { readonly state: 'here'; readonly layer: number }
  /**
   * No longer in the chain: committed into the layer below it, or pulled into the one above. `below`: the highest
   * layer of the chain now that was below it then; undefined where that is not known.
   */
  | { readonly state: 'gone'; readonly below: number | undefined }
  /** The record does not say. */
  | { readonly state: 'unknown' }

/**
 * Looks a disk up in the checkpoint, by target and by files. Pure; never throws.
 *
 * @param complete false where an image could not be read, so that deeper files have names that are not in `now`
 */
export function recordedDisk(
  checkpoint: CheckpointFacts,
  disk: DomainDisk,
  now: FilesNow,
  complete: boolean,
): Recorded {
  const { name, domain } = checkpoint
  if (domain === undefined) {
    const asNow = { target: disk.target, source: disk.source, readonly: false }
    return {
      reasons: [withoutDomain(checkpoint, disk), ...entryReasons(checkpoint, disk, asNow)],
      topThen: UNKNOWN,
    }
  }

  const then = matchDisk(domain.disks, disk, now)
  if (then === undefined) {
    const sameTarget = domain.disks.find(other => other.target === disk.target)
    if (sameTarget === undefined) return { reasons: [notInCheckpoint(checkpoint, disk)], topThen: UNKNOWN }
    // The shared file may be one that could not be seen: the image's own reason says enough.
    const changed = complete ? [sourceChanged(name, disk, sameTarget, now)] : []
    return { reasons: changed, topThen: UNKNOWN }
  }
  return {
    reasons: [
      ...(then.target === disk.target ? [] : [targetChanged(name, disk, then, now)]),
      ...pathChanged(name, disk, then, now),
      ...entryReasons(checkpoint, disk, then),
    ],
    topThen: findTopThen(then, now),
    filesThen: filesThen(then),
  }
}

const UNKNOWN: TopThen = { state: 'unknown' }

function findTopThen(then: DomainDisk, now: FilesNow): TopThen {
  const [top, ...below] = filesThen(then)
  if (top === undefined) return UNKNOWN
  const layer = now.layerOf(top)
  if (layer !== undefined) return { state: 'here', layer }
  const left = below.map(file => now.layerOf(file)).filter(each => each !== undefined)
  return { state: 'gone', below: left.length === 0 ? undefined : Math.min(...left) }
}

type EntryDisk = Pick<DomainDisk, 'target' | 'source' | 'readonly'>

/** The checkpoint's own `<disk>` entry: by the target of that time, or by source path. */
function entryReasons(checkpoint: CheckpointFacts, disk: DomainDisk, then: EntryDisk): Reason[] {
  const source = then.source && normalizePath(then.source)
  const entry = checkpoint.disks?.find(
    ({ name }) => name === then.target || (source !== undefined && normalizePath(name) === source),
  )
  if (checkpoint.disks === undefined) {
    return then.readonly ? [excluded(checkpoint, disk, 'read-only')] : []
  }
  if (entry === undefined) return [excluded(checkpoint, disk, 'not-listed')]
  if (entry.checkpoint === 'no') return [excluded(checkpoint, disk, 'checkpoint-no')]
  if (entry.bitmap === undefined || entry.bitmap === checkpoint.name) return []
  return [
    reason(
      'bitmap-name-differs',
      'note',
      `Checkpoint '${checkpoint.name}' records the bitmap '${entry.bitmap}' for ${disk.target}, but a backup uses ` +
        `the one named after the checkpoint: '${checkpoint.name}' is looked for. (libvirt uses the recorded name ` +
        'only to delete it.)',
      { checkpoint: checkpoint.name, recorded: entry.bitmap },
    ),
  ]
}

const EXCLUDED = {
  'checkpoint-no': "was left out (checkpoint='no')",
  'not-listed': 'is not among the disks listed',
  'read-only': 'was read-only at that time, and so left out',
} as const

function excluded(checkpoint: CheckpointFacts, disk: DomainDisk, why: keyof typeof EXCLUDED): Reason {
  return reason(
    'disk-excluded',
    'blocks',
    `At checkpoint '${checkpoint.name}' disk ${disk.target} ${EXCLUDED[why]}: nothing recorded its changes since. ` +
      'Copy it whole, and include it in the next checkpoint.',
    { checkpoint: checkpoint.name, why },
  )
}

/** Targets in a message; the evidence has all. */
const MOST_SHOWN = 30

function notInCheckpoint(checkpoint: CheckpointFacts, disk: DomainDisk): Reason {
  const knownTargets = targetsThen(checkpoint.domain?.disks ?? [])
  const more = knownTargets.length - MOST_SHOWN
  const shown = [...knownTargets.slice(0, MOST_SHOWN), ...(more > 0 ? [`${more} more`] : [])].join(', ')
  return reason(
    'disk-not-in-checkpoint',
    'blocks',
    `Disk ${disk.target} (${disk.source}) was not part of the domain at checkpoint '${checkpoint.name}', which had ` +
      `${shown || 'no disks'}: it was plugged in later. Copy it whole, and take a new checkpoint.`,
    { checkpoint: checkpoint.name, knownTargets },
  )
}

function sourceChanged(checkpoint: string, disk: DomainDisk, then: DomainDisk, now: FilesNow): Reason {
  const before = filesThen(then)
  return reason(
    'disk-source-changed',
    'blocks',
    `Target ${disk.target} was another disk at checkpoint '${checkpoint}': then ${before.join(' over ') || 'empty'}, ` +
      `now ${disk.source}, with no file in common. A bitmap in it cannot stand for changes since that checkpoint. ` +
      'Copy it whole.',
    { checkpoint, filesThen: before, filesNow: now.names },
  )
}

function targetChanged(checkpoint: string, disk: DomainDisk, then: DomainDisk, now: FilesNow): Reason {
  const file = filesThen(then).find(name => now.layerOf(name) !== undefined) ?? disk.source ?? ''
  return reason(
    'disk-target-changed',
    'note',
    `Disk ${disk.target} was ${then.target} at checkpoint '${checkpoint}': it is the same disk (${file}), unplugged ` +
      'and plugged in again. If something else wrote to it in between, no bitmap shows that: verify it first.',
    { checkpoint, targetThen: then.target, file },
  )
}

/** Known for the same disk by the file that is under the old name now, not by the name. */
function pathChanged(checkpoint: string, disk: DomainDisk, then: DomainDisk, now: FilesNow): Reason[] {
  const [path] = filesThen(then)
  if (path === undefined || now.isNamed(path) || now.layerOf(path) === undefined) return []
  const message =
    `Disk ${disk.target} was named ${path} at checkpoint '${checkpoint}', and that name leads to an image of its ` +
    'chain now (a symbolic link, or --map-source): it is taken for the same disk.'
  return [reason('disk-path-changed', 'note', message, { checkpoint, pathThen: path })]
}

function withoutDomain(checkpoint: CheckpointFacts, disk: DomainDisk): Reason {
  return reason(
    'checkpoint-without-domain',
    'note',
    `The metadata of checkpoint '${checkpoint.name}' holds no <domain>, so it cannot be checked that ${disk.target} ` +
      'was this same disk then, nor which image was its top. Only its list of disks was looked at.',
    { checkpoint: checkpoint.name },
  )
}

/** A backup since it is beyond libvirt; its bitmaps are what they are. */
export function checkpointNotLoaded(checkpoint: string, why: string): Reason {
  return reason(
    'checkpoint-not-loaded',
    'note',
    `libvirt leaves the metadata of checkpoint '${checkpoint}' out when it loads them (${why}), so it knows no such ` +
      'checkpoint. tidemark checkpoint redefine writes metadata that it takes; until then --format sh or qmp make ' +
      'this backup.',
    { checkpoint, why },
  )
}

/** QEMU keeps the bitmaps wherever it writes to the image; what another program wrote meanwhile is in none. */
export function diskWasAway(disk: DomainDisk, checkpoint: string, newer: string): Reason {
  return reason(
    'disk-was-away',
    'note',
    `At the newer checkpoint '${newer}' disk ${disk.target} (${disk.source}) was not part of the domain: it was ` +
      'unplugged after this one and plugged in again. If something else wrote to it in between, no bitmap shows ' +
      'that: verify it first.',
    { checkpoint, newer },
  )
}
