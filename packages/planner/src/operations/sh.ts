import { shellQuote } from '../paths.js'
import { type EditAction, operationsToEdits } from './edits.js'
import type { DataStep, OperationsPlan, Place } from './types.js'

export interface OperationsShOptions {
  /** Makes an image's path one that holds wherever the script runs. Default: as the plan has it. */
  readonly resolvePath?: ((path: string) => string) | undefined
}

/**
 * Commands that carry the plan out while the domain is off, for `sh -e` with `tidemark` and `qemu-img` on PATH. The bitmaps
 * of all images change at once (`tidemark bitmap --multi`). Wherever it is cut off, no bitmap that libvirt would accept
 * lacks a change:
 *
 * - what bitmaps get they get before the data move: marks too many do no harm, and what qemu-img then copies is recorded by
 *   the bitmaps that record;
 * - an image that is new gets its data first: without a bitmap it is refused.
 *
 * @throws {PlanError} `plan-unknown`, `operation-blocked`
 */
export function operationsToSh(plan: OperationsPlan, options: OperationsShOptions = {}): string {
  const { resolvePath = path => path } = options
  const what = plan.checkpoint === undefined ? plan.action : `${plan.action} checkpoint ${plan.checkpoint}`
  const title = `# ${what} of domain ${plan.domain} (${plan.dialect} bitmaps), which must be off; run with sh -e`
  const bitmaps = bitmapCommand(plan, resolvePath)
  const data = plan.data.flatMap(step => dataCommands(step, resolvePath))
  const makesImage = plan.action === 'copy' || plan.action === 'snapshot'
  const lines = [
    '#!/bin/sh -e',
    comment(title),
    ...(makesImage ? [...data, ...bitmaps] : [...bitmaps, ...data]),
    ...remaining(plan, resolvePath).map(line => comment(`# then: ${line}`)),
  ]
  return `${lines.join('\n')}\n`
}

/** What is left to do by hand afterwards, a command or a sentence each. */
export function remaining(
  plan: OperationsPlan,
  resolvePath: (path: string) => string = path => path,
): readonly string[] {
  const { domain, checkpoint } = plan
  if (checkpoint !== undefined) {
    return [`virsh checkpoint-delete ${shellQuote(domain)} ${shellQuote(checkpoint)} --metadata`]
  }
  const moved = ({ disk, filename }: Place) =>
    `virsh edit ${shellQuote(domain)}, before it starts: ${disk} is ${resolvePath(filename)} now`
  return plan.data.flatMap(step => {
    if (step.kind === 'commit') return step.overlay === undefined ? [moved(step.base)] : []
    if (step.kind === 'copy') return [`${moved(step.target)}, if the copy is to be used`]
    return step.kind === 'snapshot' ? [moved(step.overlay)] : []
  })
}

/** One line of JSON an action: none of them can be the line that ends it. */
function bitmapCommand(plan: OperationsPlan, resolvePath: (path: string) => string): string[] {
  const edits = operationsToEdits(plan)
  if (edits.length === 0) return []
  const images = edits.map(({ filename, actions }) => {
    const lines = actions.map(action => `    ${JSON.stringify(actionToJson(action, resolvePath))}`)
    return `  {"filename": ${JSON.stringify(resolvePath(filename))}, "actions": [\n${lines.join(',\n')}\n  ]}`
  })
  return ["tidemark bitmap --multi - <<'PLAN'", `{"images": [\n${images.join(',\n')}\n]}`, 'PLAN']
}

function actionToJson(action: EditAction, resolvePath: (path: string) => string): object {
  if (action.action !== 'merge' || action.sourceFilename === undefined) return action
  const { sourceFilename, ...rest } = action
  return { ...rest, 'source-filename': resolvePath(sourceFilename) }
}

function dataCommands(step: DataStep, resolvePath: (path: string) => string): string[] {
  const file = ({ filename }: Place) => quotePath(resolvePath(filename))
  switch (step.kind) {
    case 'commit': {
      const { top, base, overlay } = step
      return [
        `qemu-img commit -q -f qcow2 -d -b ${file(base)} ${file(top)}`,
        // The data below the overlay are the same: only the name changes.
        ...(overlay === undefined
          ? []
          : [
              `qemu-img rebase -q -u -f qcow2 -F ${shellQuote(step.baseFormat)} -b ${file(base)} ${file(overlay)}`,
            ]),
      ]
    }
    case 'pull': {
      const { top, base, baseFormat } = step
      const onto = base === undefined ? "-b ''" : `-F ${shellQuote(baseFormat ?? 'raw')} -b ${file(base)}`
      return [`qemu-img rebase -q -f qcow2 ${onto} ${file(top)}`]
    }
    case 'copy': {
      const { top, topFormat, target, backing, backingFormat } = step
      const onto =
        backing === undefined ? '' : ` -F ${shellQuote(backingFormat ?? 'raw')} -B ${file(backing)}`
      return [
        // qemu-img writes over what is there.
        `test ! -e ${file(target)}`,
        `qemu-img convert -f ${shellQuote(topFormat)} -O qcow2${onto} ${file(top)} ${file(target)}`,
      ]
    }
    case 'snapshot': {
      const { top, topFormat, overlay } = step
      return [
        `test ! -e ${file(overlay)}`,
        `qemu-img create -q -f qcow2 -F ${shellQuote(topFormat)} -b ${file(top)} ${file(overlay)}`,
      ]
    }
  }
}

/** A file name in quotes that cannot be taken for an option. */
function quotePath(path: string): string {
  return shellQuote(path.startsWith('-') ? `./${path}` : path)
}

function comment(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ')
}
