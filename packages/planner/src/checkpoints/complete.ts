/**
 * What libvirt makes of the `<domaincheckpoint>` that it is given: a new checkpoint, or one that it is told anew.
 * Measured on libvirt 9.0; where both refuse, the reasons come in libvirt's order.
 */
import { DefinitionError } from '../errors.js'
import type { CheckpointDisk, CheckpointDraft, CheckpointFacts, DomainDisk, DomainFacts } from '../facts.js'
import { canonicalUuid, findDisk } from './disk-name.js'

export interface CompleteCheckpointOptions {
  /** The time at which it is made, in Unix seconds. */
  readonly now: number
  /** The domain's current checkpoint, which becomes the parent. */
  readonly parent?: string | undefined
}

/**
 * Fills in what `virsh checkpoint-create` fills in for a new checkpoint: the name (the time), the time, the parent
 * (whatever was given), and every disk of the domain in its order. Without disks in the draft every writable disk that
 * is not empty gets a bitmap; with any, only those. A bitmap has the checkpoint's name.
 *
 * @throws {DefinitionError} `domain-without-disks`, `too-many-disks`, `disk-unknown` (also a path that two disks
 *   have), `disk-twice`, `disk-not-writable`, `bitmap-name`, `disk-not-qcow2`
 * @example
 * ```ts
 * const draft = parseCheckpointDraft('<domaincheckpoint/>')
 * printCheckpoint(completeCheckpoint(draft, domain, { now: Math.floor(Date.now() / 1000), parent: tree.current }))
 * ```
 */
export function completeCheckpoint(
  draft: CheckpointDraft,
  domain: DomainFacts,
  { now, parent }: CompleteCheckpointOptions,
): CheckpointFacts {
  const name = draft.name ?? String(now)
  const disks = alignDisks(name, draft.disks ?? [], domain)
  for (const { name: target, checkpoint, bitmap } of disks) {
    if (checkpoint === 'no') continue
    if (bitmap !== name) {
      throw new DefinitionError(
        'bitmap-name',
        `the bitmap of disk ${target} must have the name of its checkpoint, '${name}'`,
        { target, checkpoint: name, bitmap: bitmap ?? null },
      )
    }
    const format = findDisk(domain, target)?.format ?? 'raw'
    if (format === 'qcow2') continue
    throw new DefinitionError(
      'disk-not-qcow2',
      `disk ${target} is ${format}, which cannot hold a bitmap: leave it out of the checkpoint`,
      { target, format },
    )
  }
  const { description, domainXml } = draft
  return { name, description, parent, creationTime: now, disks, domain, domainXml }
}

/**
 * What `virsh checkpoint-create --redefine` makes of a checkpoint: name and creation time must be there. With a
 * `<domain>` its disks are aligned as in a new checkpoint, but any bitmap name goes; without one the list is taken as
 * it is. The tree is looked at elsewhere: parents must be there first, and no circle may come of it.
 *
 * @param uuid of the domain; undefined: not compared
 * @throws {DefinitionError} `name-missing`, `creation-time-missing`, `domain-differs`, and those of the alignment
 */
export function redefineCheckpoint(draft: CheckpointDraft, uuid: string | undefined): CheckpointFacts {
  const { name, creationTime, domain } = draft
  if (name === undefined) throw new DefinitionError('name-missing', 'a redefined checkpoint must have a name')
  if (creationTime === undefined) {
    const message = `checkpoint '${name}' has no creation time, which a redefined one must have`
    throw new DefinitionError('creation-time-missing', message, { checkpoint: name })
  }
  if (domain !== undefined && uuid !== undefined && canonicalUuid(domain.uuid) !== canonicalUuid(uuid)) {
    throw new DefinitionError(
      'domain-differs',
      `the <domain> in checkpoint '${name}' is another one: its UUID must be ${uuid}`,
      { checkpoint: name, expected: uuid, found: domain.uuid ?? null },
    )
  }
  const disks =
    domain === undefined
      ? draft.disks?.map(disk => withBitmap(disk, name))
      : alignDisks(name, draft.disks ?? [], domain)
  return { ...draft, name, disks }
}

/** Every disk of the domain, in the order of its own list; those that are asked for are looked up by target or path. */
function alignDisks(
  name: string,
  asked: readonly CheckpointDisk[],
  domain: DomainFacts,
): readonly CheckpointDisk[] {
  if (domain.disks.length === 0) {
    throw new DefinitionError('domain-without-disks', `domain '${domain.name}' has no disk`, {
      domain: domain.name,
    })
  }
  if (asked.length > domain.disks.length) {
    const message = `the checkpoint lists ${asked.length} disks; domain '${domain.name}' has ${domain.disks.length}`
    throw new DefinitionError('too-many-disks', message, { domain: domain.name, listed: asked.length })
  }
  const entries = new Map<string, CheckpointDisk>()
  for (const disk of asked) {
    const { target, ...found } = requireDisk(domain, disk.name)
    if (entries.has(target)) {
      throw new DefinitionError('disk-twice', `disk ${target} is listed twice`, { target })
    }
    if (disk.checkpoint === 'bitmap' && !holdsWrites(found)) {
      const message = `disk ${target} is empty or read-only: no checkpoint can be made of it`
      throw new DefinitionError('disk-not-writable', message, { target })
    }
    entries.set(target, withBitmap({ ...disk, name: target }, name))
  }
  return domain.disks.map(disk => {
    const entry = entries.get(disk.target)
    if (entry !== undefined) return entry
    const all = asked.length === 0 && holdsWrites(disk)
    return withBitmap({ name: disk.target, checkpoint: all ? 'bitmap' : 'no', bitmap: undefined }, name)
  })
}

function requireDisk(domain: DomainFacts, name: string): DomainDisk {
  const disk = findDisk(domain, name)
  if (disk !== undefined) return disk
  const known = domain.disks.map(({ target }) => target)
  const twice = domain.disks.filter(({ source }) => source === name).map(({ target }) => target)
  const why = twice.length > 1 ? `: ${twice.join(' and ')} have that source, name one of them` : ''
  throw new DefinitionError('disk-unknown', `domain '${domain.name}' has no one disk '${name}'${why}`, {
    domain: domain.name,
    disk: name,
    known,
  })
}

function holdsWrites({ source, readonly }: Pick<DomainDisk, 'source' | 'readonly'>): boolean {
  return source !== undefined && !readonly
}

function withBitmap(disk: CheckpointDisk, name: string): CheckpointDisk {
  return disk.checkpoint === 'no' ? disk : { ...disk, bitmap: disk.bitmap ?? name }
}
