import { resolve } from 'node:path'
import { type Json, orphanBitmaps, type Reconciliation, reconcile, toKebab } from '@tidemark/planner'
import { bitmapCosts } from '@tidemark/planner/node'
import { domainArguments } from '../checkpoint/arguments.js'
import { measureAll } from '../checkpoint/measure-all.js'
import { type CheckpointOptions, withDomain } from '../checkpoint/with-domain.js'
import { type ExitStatus, exitStatus } from '../exit-status.js'
import type { Output } from '../output.js'

export interface CheckpointReconcileOptions extends CheckpointOptions {
  readonly bodies?: boolean
}

/** `tidemark checkpoint reconcile`. */
export async function checkpointReconcile(
  options: CheckpointReconcileOptions,
  output: Output,
): Promise<ExitStatus> {
  return withDomain(options, output, async open => {
    const { loaded, images, engine, dialect } = open
    const places = orphanBitmaps(open.facts).flatMap(orphan => orphan.places)
    const costs = await bitmapCosts(images, places, engine)
    const found = reconcile(withAbsoluteFiles(open.facts), {
      dialect,
      costs: new Map([...costs].map(([file, each]) => [resolve(file), each])),
      measurements: options.bodies ? await measureAll(open) : undefined,
      files: new Map([...loaded.files].map(([checkpoint, file]) => [checkpoint, resolve(file)])),
      unreadable: loaded.problems.map(({ file, error }) => ({ file: resolve(file), message: error.message })),
      domainArguments: domainArguments(options),
    })
    if (output.format === 'json') await output.json(reconciliationToJson(found))
    else {
      const { reconciliationToText } = await import('../render/reconciliation-text.js')
      await output.write(reconciliationToText(found, output.colors, output.width))
    }
    return reconcileStatus(found)
  })
}

/** What is only to know is no reason for a script to stop. */
function reconcileStatus({ running, findings }: Reconciliation): ExitStatus {
  if (running) return exitStatus.cannotTell
  return findings.some(({ severity }) => severity !== 'info') ? exitStatus.foundWrong : exitStatus.ok
}

/** Commands name images by paths that hold wherever they are run. */
function withAbsoluteFiles(facts: Parameters<typeof reconcile>[0]): Parameters<typeof reconcile>[0] {
  const absolute = (name: string) => (/^[\w+.-]+:/.test(name) && !name.startsWith('/') ? name : resolve(name))
  const chains = [...facts.chains].map(
    ([target, chain]) =>
      [target, chain.map(layer => ({ ...layer, filename: absolute(layer.filename) }))] as const,
  )
  return { ...facts, chains: new Map(chains) }
}

function reconciliationToJson({ findings, ...rest }: Reconciliation): Json {
  const { domain, running } = rest
  return { domain, running, findings: findings.map(finding => toKebab(finding)) }
}
