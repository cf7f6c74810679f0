import { resolve } from 'node:path'
import {
  type BackupPlan,
  beyondText,
  buildCheckpointTree,
  type Dialect,
  planExitStatus,
  planToBackupXml,
  planToJson,
  planToQmp,
  planToSh,
  toKebab,
} from '@tidemark/planner'
import { type LoadedDomain, type LoadProblem, listDomains, loadDomain } from '@tidemark/planner/node'
import { COMBINE_ARENA_BYTES, createEngine } from '@tidemark/qcow2'
import { type DomainOptions, domainLocation, leftOut, mapRule } from '../domain-options.js'
import { CommandError, UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Output } from '../output.js'
import { planDomain } from '../plan/plan-domain.js'
import { type ManyPlans, manyExitStatus, planMany } from '../plan/plan-many.js'
import { parseSize } from '../units.js'

export interface PlanBackupOptions extends Omit<DomainOptions, 'domain'> {
  readonly domain?: readonly string[]
  readonly all?: boolean
  readonly details?: boolean
  readonly incremental?: string
  readonly disk?: readonly string[]
  readonly dialect?: Dialect | 'auto'
  readonly sizeThen?: readonly string[]
  readonly bodies: boolean
  readonly whatIf?: readonly string[]
  readonly requireIncremental?: boolean
  readonly format?: 'xml' | 'qmp' | 'sh'
  readonly pull?: boolean
  readonly targetDir?: string
}

/** `tidemark plan backup`. */
export async function planBackupCommand(options: PlanBackupOptions, output: Output): Promise<ExitStatus> {
  if (options.whatIf !== undefined) {
    const { planWhatIfCommand } = await import('./plan-what-if.js')
    return planWhatIfCommand(options, options.whatIf, output)
  }
  const { incremental, disk: disks, bodies, dialect } = options
  if (incremental === undefined) throw new UsageError('since when? Give --incremental CHECKPOINT')
  if (options.pull && options.format !== 'xml') throw new UsageError('--pull goes with --format xml')
  const request = {
    ...{ incremental, disks, bodies },
    mapRules: (options.mapSource ?? []).map(mapRule),
    dialect: dialect === 'auto' ? undefined : dialect,
    sizeThen: options.sizeThen === undefined ? undefined : new Map(options.sizeThen.map(sizeOfDisk)),
  }
  const names = [...new Set(options.domain ?? [])]
  if (options.all || names.length > 1) {
    return planSeveral(names, { ...request, incremental }, options, output)
  }
  if (options.details) throw new UsageError('--details is for several domains: one is always shown whole')
  const { domain: _, ...rest } = options
  const loaded = await loadDomain(
    domainLocation(names[0] === undefined ? rest : { ...rest, domain: names[0] }),
  )
  for (const problem of loaded.problems) output.warn(leftOut(problem))

  const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })
  const { plan, locksKnown } = await planDomain(loaded, { ...request, blocking: true }, engine)
  if (!locksKnown) output.warn(UNKNOWN_LOCKS)
  const status = planExitStatus(plan)
  // A program gets the plan or an error, never both; a person wants to see why.
  const refused = isRefused(status, options)
  const forPeople = options.format === undefined && output.format === 'human'
  if (!refused || forPeople) await print(plan, loaded, options, output)
  if (refused) throw notIncremental(plan)
  return status
}

const UNKNOWN_LOCKS = '/proc/locks cannot be read: whether the domain runs is not known'

/** Several domains in one run: `--domain` more than once, or `--all`. */
async function planSeveral(
  named: readonly string[],
  request: Parameters<typeof planMany>[2],
  options: PlanBackupOptions,
  output: Output,
): Promise<ExitStatus> {
  const { libvirtRoot, format } = options
  if (format !== undefined) throw new UsageError(`--format ${format} is for one domain`)
  if (request.sizeThen !== undefined) throw new UsageError('--size-then is for one domain')
  if (options.domainXml !== undefined || options.checkpointDir !== undefined) {
    throw new UsageError('--domain-xml and --checkpoint-dir are for one domain')
  }
  if (options.all && named.length > 0) throw new UsageError('give --domain or --all, not both')
  const names = options.all ? await listDomains(libvirtRoot) : named
  if (names.length === 0) throw new CommandError('no-domains', 'there is no domain in the folder')
  const many = await planMany(names, domain => ({ domain, libvirtRoot }), request)
  for (const { problems } of many.plans) {
    for (const problem of problems) output.warn(leftOut(problem))
  }
  if (!many.locksKnown) output.warn(UNKNOWN_LOCKS)

  const status = manyExitStatus(many)
  const refused = isRefused(status, options)
  if (output.format === 'json') {
    const answer = {
      plans: many.plans.map(({ plan, problems }) => withProblems(plan, problems)),
      errors: toKebab(many.errors),
    }
    if (refused) throw new CommandError('not-incremental', refusal(many), answer)
    await output.json(answer)
    return status
  }
  const { plansToText } = await import('../render/plans-text.js')
  await output.write(plansToText(many, request.incremental, output.colors, output.width))
  if (options.details) {
    const { planToText } = await import('../render/plan-text.js')
    for (const { plan, checkpoints } of many.plans) {
      await output.write(
        `\n${planToText(plan, buildCheckpointTree(checkpoints), output.colors, output.width)}`,
      )
    }
  }
  if (refused) throw new CommandError('not-incremental', refusal(many))
  return status
}

function isRefused(status: ExitStatus, { requireIncremental }: PlanBackupOptions): boolean {
  return (
    requireIncremental === true && (status === exitStatus.someDisksFull || status === exitStatus.allDisksFull)
  )
}

function refusal({ plans }: ManyPlans): string {
  const full = plans.filter(({ plan }) => plan.disks.some(({ mode }) => mode === 'full'))
  return `not incremental: ${full.map(({ plan }) => plan.domain).join(', ')} (--require-incremental)`
}

function notIncremental(plan: BackupPlan): CommandError {
  const full = plan.disks.filter(disk => disk.mode === 'full').map(disk => disk.target)
  const message = `not incremental: ${full.join(', ')} (--require-incremental)`
  return new CommandError('not-incremental', message, { disks: full, plan: planToJson(plan) })
}

function withProblems(plan: BackupPlan, problems: readonly LoadProblem[]) {
  const told = problems.map(({ file, error }) => ({ file, code: error.code, message: error.message }))
  return { ...planToJson(plan), ...(told.length > 0 ? { 'load-problems': toKebab(told) } : {}) }
}

/** `TARGET=SIZE`. @throws {UsageError} */
function sizeOfDisk(text: string): [target: string, bytes: number] {
  const split = text.indexOf('=')
  if (split <= 0) throw new UsageError(`--size-then: expected TARGET=SIZE (such as vda=10G), found '${text}'`)
  return [text.slice(0, split), parseSize(text.slice(split + 1), '--size-then')]
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
      const beyond = beyondText(plan)
      if (beyond !== undefined) output.warn(`${beyond} --format sh makes it incremental`)
      return output.write(planToBackupXml(plan, { ...mode, suffix, targetDir }))
    }
    case 'qmp':
      return output.json(planToQmp(plan))
    case 'sh':
      return output.write(
        planToSh(plan, {
          ...{ outDir: targetDir, resolvePath: path => resolve(path) },
          mapRules: (options.mapSource ?? []).map(mapRule),
        }),
      )
    default:
  }
  if (output.format === 'json') return output.json(withProblems(plan, loaded.problems))
  const { planToText } = await import('../render/plan-text.js')
  return output.write(planToText(plan, buildCheckpointTree(loaded.checkpoints), output.colors, output.width))
}
