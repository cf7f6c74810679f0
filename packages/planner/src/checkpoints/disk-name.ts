import type { DomainDisk, DomainFacts } from '../facts.js'

/**
 * The disk that a name stands for, as libvirt looks it up: a target, or to the letter the path of one disk's source.
 * A path that two disks have names none.
 */
export function findDisk({ disks }: DomainFacts, name: string): DomainDisk | undefined {
  if (!name.startsWith('/')) return disks.find(({ target }) => target === name)
  const [disk, another] = disks.filter(({ source }) => source === name)
  return another === undefined ? disk : undefined
}

/** The 32 digits of a UUID, however it is written; undefined where it is none. */
export function canonicalUuid(uuid: string | undefined): string | undefined {
  const digits = uuid?.replace(/[\s-]/g, '').toLowerCase()
  return digits !== undefined && /^[0-9a-f]{32}$/.test(digits) ? digits : undefined
}
