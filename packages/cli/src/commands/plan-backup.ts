import { resolve } from 'node:path'
import {
  type BackupPlan,
  bodyQueries,
  buildCheckpointTree,
  planBackup,
  planExitStatus,
  planToBackupXml,
  planToJson,
  planToQmp,
  planToSh,
  toKebab,
} from '@tidemark/planner'
import {
  type DomainLocation,
  type LoadedDomain,
  loadDomain,
  type MapRule,
  measureBodies,
  openDomainImages,
  parseMapRule,
} from '@tidemark/planner/node'
import { COMBINE_ARENA_BYTES, createEngine } from '@tidemark/qcow2'
import { CommandError, UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Output } from '../output.js'

export interface DomainOptions {
  readonly domain?: string
  readonly libvirtRoot?: string
  readonly domainXml?: string
  readonly checkpointDir?: string
  readonly mapSource?: readonly string[]
}

export interface PlanBackupOptions extends DomainOptions {
  readonly incremental?: string
  readonly disk?: readonly string[]
  readonly bodies: boolean
  readonly requireIncremental?: boolean
  readonly format?: 'xml' | 'qmp' | 'sh'
  readonly pull?: boolean
  readonly targetDir?: string
}

/** `tidemark plan backup`. */
export async function planBackupCommand(options: PlanBackupOptions, output: Output): Promise<ExitStatus> {
  const { incremental, requireIncremental } = options
  if (incremental === undefined) throw new UsageError('since when? Give --incremental CHECKPOINT')
  if (options.pull && options.format !== 'xml') throw new UsageError('--pull goes with --format xml')
  const location = domainLocation(options)
  const mapRules = (options.mapSource ?? []).map(mapRule)
  const loaded = await loadDomain(location)
  for (const { file, error } of loaded.problems) output.warn(`${file} is left out: ${error.message}`)

  const plan = await makePlan(loaded, mapRules, incremental, options, output)
  const status = planExitStatus(plan)
  const refused =
    requireIncremental && (status === exitStatus.someDisksFull || status === exitStatus.allDisksFull)
  // A program gets the plan or an error, never both; a person wants to see why.
  const forPeople = options.format === undefined && output.format === 'human'
  if (!refused || forPeople) await print(plan, loaded, options, output)
  if (refused) throw notIncremental(plan)
  return status
}

function notIncremental(plan: BackupPlan): CommandError {
  const full = plan.disks.filter(disk => disk.mode === 'full').map(disk => disk.target)
  const message = `not incremental: ${full.join(', ')} (--require-incremental)`
  return new CommandError('not-incremental', message, { disks: full, plan: planToJson(plan) })
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

function mapRule(text: string): MapRule {
  try {
    return parseMapRule(text)
  } catch (error) {
    throw new UsageError(`--map-source: ${(error as Error).message}`)
  }
}

/** Facts, plan; then the questions that only bodies answer, and the plan again. */
async function makePlan(
  loaded: LoadedDomain,
  mapRules: readonly MapRule[],
  incremental: string,
  options: PlanBackupOptions,
  output: Output,
): Promise<BackupPlan> {
  const { domain, checkpoints } = loaded
  const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })
  const images = await openDomainImages(domain, { engine, mapRules, targets: options.disk, blocking: true })
  try {
    if (!images.locksKnown) output.warn('/proc/locks cannot be read: whether the domain runs is not known')
    const facts = { domain, checkpoints, chains: images.chains }
    const request = { incremental, disks: options.disk }
    const plan = planBackup(facts, request)
    if (!options.bodies) return plan
    const measurements = await measureBodies(images, bodyQueries(facts, plan), engine)
    return planBackup(facts, { ...request, measurements })
  } finally {
    await images.close()
  }
}

async function print(
  plan: BackupPlan,
  loaded: LoadedDomain,
  options: PlanBackupOptions,
  output: Output,
): Promise<void> {
  const targetDir = options.targetDir === undefined ? undefined : resolve(options.targetDir)
  switch (options.format) {
    case 'xml': {
      // libvirt wants files that are not there yet: 20260801T030000.123Z.
      const suffix = new Date().toISOString().replace(/[-:]/g, '')
      const mode = options.pull
        ? ({
            mode: 'pull',
            socket: `/var/tmp/tidemark-${plan.domain.replace(/[^\w.-]/g, '_')}-${suffix}.sock`,
          } as const)
        : ({ mode: 'push' } as const)
      return output.write(planToBackupXml(plan, { ...mode, suffix, targetDir }))
    }
    case 'qmp':
      return output.json(planToQmp(plan))
    case 'sh':
      return output.write(planToSh(plan, { outDir: targetDir, resolvePath: path => resolve(path) }))
    default:
  }
  if (output.format === 'json') {
    const problems = loaded.problems.map(({ file, error }) => ({
      file,
      code: error.code,
      message: error.message,
    }))
    return output.json({
      ...planToJson(plan),
      ...(problems.length > 0 ? { 'load-problems': toKebab(problems) } : {}),
    })
  }
  const { planToText } = await import('../render/plan-text.js')
  return output.write(planToText(plan, buildCheckpointTree(loaded.checkpoints), output.colors, output.width))
}
