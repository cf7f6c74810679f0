import type { BackupFacts, Dialect } from '@tidemark/planner'
import {
  type DomainImages,
  type LoadedDomain,
  loadDomain,
  namesThen,
  openDomainImages,
} from '@tidemark/planner/node'
import { type BitmapEngine, COMBINE_ARENA_BYTES, createEngine } from '@tidemark/qcow2'
import { type DomainOptions, domainLocation, leftOut, mapRule } from '../domain-options.js'
import type { Output } from '../output.js'

/** What the commands of `checkpoint` share. */
export interface CheckpointOptions extends DomainOptions {
  readonly dialect?: Dialect | 'auto'
}

export interface OpenDomain {
  readonly loaded: LoadedDomain
  readonly images: DomainImages
  readonly facts: BackupFacts
  readonly engine: BitmapEngine
  /** Undefined: found from the flags. */
  readonly dialect: Dialect | undefined
}

/** Loads a domain with its checkpoints, opens its images, uses all of it and closes them. */
export async function withDomain<T>(
  options: CheckpointOptions,
  output: Output,
  use: (domain: OpenDomain) => Promise<T>,
): Promise<T> {
  const location = domainLocation(options)
  const mapRules = (options.mapSource ?? []).map(mapRule)
  const loaded = await loadDomain(location)
  const { domain, checkpoints } = loaded
  const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })
  const names = namesThen(checkpoints)
  const images = await openDomainImages(domain, { engine, mapRules, blocking: true, names })
  try {
    if (!images.locksKnown) output.warn('/proc/locks cannot be read: whether the domain runs is not known')
    const { chains, fileIds } = images
    const dialect = options.dialect === 'auto' ? undefined : options.dialect
    return await use({ loaded, images, facts: { domain, checkpoints, chains, fileIds }, engine, dialect })
  } finally {
    // What was read is read; that a file cannot be closed changes no answer.
    await images.close().catch(() => {})
  }
}

/** Files of checkpoints that libvirt leaves out as well. */
export function warnOfProblems({ problems }: LoadedDomain, output: Output): void {
  for (const problem of problems) output.warn(leftOut(problem))
}
