import {
  type BackupPlan,
  bodyQueries,
  type Change,
  type DiskPlan,
  PlanError,
  parseChange,
  planBackup,
  planExitStatus,
  planToJson,
  type WhatIf,
  whatIf,
} from '@tidemark/planner'
import { loadDomain, measureBodies, namesThen, openDomainImages } from '@tidemark/planner/node'
import { COMBINE_ARENA_BYTES, createEngine } from '@tidemark/qcow2'
import { domainLocation, leftOut, mapRule } from '../domain-options.js'
import { CommandError, UsageError } from '../errors.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Output } from '../output.js'
import { parseSize } from '../units.js'
import type { PlanBackupOptions } from './plan-backup.js'

/** `tidemark plan backup --what-if`: the plan now, and as it would be. The exit status is that of what would be. */
export async function planWhatIfCommand(
  options: PlanBackupOptions,
  texts: readonly string[],
  output: Output,
): Promise<ExitStatus> {
  const changes = texts.map(changeOf)
  const { domain: names, incremental, disk: disks, bodies, format } = options
  if (format !== undefined || options.all || (names?.length ?? 0) > 1) {
    throw new UsageError('--what-if is for one domain, and without --format')
  }
  const { domain: _, ...rest } = options
  const location = domainLocation(names?.[0] === undefined ? rest : { ...rest, domain: names[0] })
  const { domain, checkpoints, problems } = await loadDomain(location)
  for (const problem of problems) output.warn(leftOut(problem))
  if (checkpoints.length === 0) {
    const message = `domain '${domain.name}' has no checkpoint that a backup could start from`
    throw new CommandError('no-checkpoints', message, { domain: domain.name })
  }
  const engine = createEngine({ arenaBytes: COMBINE_ARENA_BYTES })
  const images = await openDomainImages(domain, {
    ...{ engine, blocking: true, names: namesThen(checkpoints) },
    mapRules: (options.mapSource ?? []).map(mapRule),
  })
  const results: WhatIf[] = []
  try {
    const { chains, fileIds } = images
    const facts = { domain, checkpoints, chains, fileIds }
    const dialect = options.dialect === 'auto' ? undefined : options.dialect
    // Without a checkpoint: since each of them.
    const since = incremental === undefined ? checkpoints.map(({ name }) => name) : [incremental]
    for (const name of new Set(since)) {
      const request = { incremental: name, disks, dialect }
      const queries = bodies ? bodyQueries(facts, planBackup(facts, request)) : []
      const measurements = bodies ? await measureBodies(images, queries, engine) : undefined
      results.push(whatIf(facts, { ...request, measurements }, changes))
    }
  } finally {
    await images.close()
  }
  if (output.format === 'json') {
    const shown = results.map(result => resultToJson(result, texts))
    await output.json(incremental === undefined ? shown : shown[0])
  } else {
    const { whatIfToText } = await import('../render/what-if-text.js')
    await output.write(whatIfToText(results, texts, output.colors, output.width))
  }
  return statusOf(results)
}

function changeOf(text: string): Change {
  try {
    return parseChange(text, parseSize)
  } catch (error) {
    if (error instanceof RangeError) throw new UsageError(`--what-if ${error.message}`)
    throw error
  }
}

function resultToJson({ before, after }: WhatIf, changes: readonly string[]): object {
  const failed = after instanceof PlanError
  const disks = before.disks.map(disk => ({
    target: disk.target,
    before: verdict(disk),
    after: verdict(failed ? undefined : after.disks.find(({ target }) => target === disk.target)),
  }))
  const error = failed ? { error: { code: after.code, message: after.message } } : {}
  return {
    ...planToJson(before),
    'what-if': { changes, disks, ...error, ...(failed ? {} : { plan: planToJson(after) }) },
  }
}

function verdict(disk: DiskPlan | undefined): object | null {
  if (disk === undefined) return null
  const { mode, libvirt, reasons } = disk
  return {
    mode,
    libvirt,
    reasons: reasons.filter(({ severity }) => severity !== 'note').map(({ code }) => code),
  }
}

/** As for one plan with all the disks of these; without one: 1. */
function statusOf(results: readonly WhatIf[]): ExitStatus {
  const plans = results
    .map(({ after }) => after)
    .filter((after): after is BackupPlan => !(after instanceof PlanError))
  if (plans.length === 0) return exitStatus.error
  return planExitStatus({ disks: plans.flatMap(({ disks }) => disks) })
}
