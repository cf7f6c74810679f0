import { type DomainLocation, type LoadProblem, type MapRule, parseMapRule } from '@tidemark/planner/node'
import { UsageError } from './errors.js'

/** Where a domain, its checkpoints and its images are: the same options for every command that needs one. */
export interface DomainOptions {
  readonly domain?: string
  readonly libvirtRoot?: string
  readonly domainXml?: string
  readonly checkpointDir?: string
  readonly mapSource?: readonly string[]
}

/** @throws {UsageError} unless one of both ways is given, and whole */
export function domainLocation({
  domain,
  libvirtRoot,
  domainXml,
  checkpointDir,
}: DomainOptions): DomainLocation {
  if (domain !== undefined) {
    if (domainXml !== undefined || checkpointDir !== undefined) {
      throw new UsageError('give --domain, or --domain-xml with --checkpoint-dir, not both')
    }
    return { domain, libvirtRoot }
  }
  if (domainXml === undefined || checkpointDir === undefined) {
    throw new UsageError('which domain? Give --domain NAME, or --domain-xml FILE with --checkpoint-dir DIR')
  }
  if (libvirtRoot !== undefined) throw new UsageError('--libvirt-root goes with --domain')
  return { domainXml, checkpointDir }
}

/** @throws {UsageError} it is not OLD=NEW */
export function mapRule(text: string): MapRule {
  try {
    return parseMapRule(text)
  } catch (error) {
    throw new UsageError(`--map-source: ${(error as Error).message}`)
  }
}

/** A warning of a checkpoint's file that could not be used; errors of files begin with their names themselves. */
export function leftOut({ file, error: { message } }: LoadProblem): string {
  const rest = message.startsWith(`${file} `) ? message.slice(file.length + 1) : message
  return `${file} is left out: ${rest}`
}
