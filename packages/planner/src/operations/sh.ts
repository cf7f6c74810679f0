import { shellQuote } from '../paths.js'
import { virshCommand } from '../shell-word.js'
import { type EditAction, operationsToEdits } from './edits.js'
import type { DataStep, OperationsPlan, Place } from './types.js'

export interface OperationsShOptions {
  /** Makes an image's path one that holds wherever the script runs. Default: as the plan has it. */
  readonly resolvePath?: ((path: string) => string) | undefined
  /**
   * What an image is called on the host of the domain, where that is not its name here: as images are to name it, and the
   * domain. Default: as `resolvePath` has it.
   */
  readonly hostPath?: ((path: string) => string) | undefined
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
  const { resolvePath } = namesOf(options)
  const what = plan.checkpoint === undefined ? plan.action : `${plan.action} checkpoint ${plan.checkpoint}`
  const title = `# ${what} of domain ${plan.domain} (${plan.dialect} bitmaps), which must be off; run with sh -e`
  const bitmaps = bitmapCommand(plan, resolvePath)
  const data = dataCommands(plan, options)
  const makesImage = plan.action === 'copy' || plan.action === 'snapshot'
  const lines = [
    '#!/bin/sh -e',
    comment(title),
    ...(makesImage ? [...data, ...bitmaps] : [...bitmaps, ...data]),
    ...remaining(plan, options).map(line => comment(`# then: ${line}`)),
  ]
  return `${lines.join('\n')}\n`
}

type Names = Required<{ [K in keyof OperationsShOptions]: NonNullable<OperationsShOptions[K]> }>

function namesOf({ resolvePath = path => path, hostPath = resolvePath }: OperationsShOptions): Names {
  return { resolvePath, hostPath }
}

/** What is left to do by hand afterwards, a command or a sentence each. */
export function remaining(plan: OperationsPlan, options: OperationsShOptions = {}): readonly string[] {
  const { domain, checkpoint } = plan
  const { hostPath } = namesOf(options)
  if (checkpoint !== undefined) {
    const command = virshCommand('checkpoint-delete', [domain, checkpoint], ['--metadata'])
    return [command ?? `remove the metadata of ${checkpoint}: no command line can carry its name`]
  }
  const edit = virshCommand('edit', [domain]) ?? 'edit the domain'
  const moved = ({ disk, filename }: Place) =>
    `${edit}, before it starts: ${disk} is ${hostPath(filename)} now`
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

/** What moves the guest's data while the domain is off, a command each. */
export function dataCommands({ data }: OperationsPlan, options: OperationsShOptions = {}): readonly string[] {
  const names = namesOf(options)
  return data.flatMap(step => commandsOf(step, names))
}

function commandsOf(step: DataStep, { resolvePath, hostPath }: Names): string[] {
  const file = ({ filename }: Place) => quotePath(resolvePath(filename))
  /** The image is to name its backing image as the host of the domain does; the data stay where they are. */
  const name = (image: Place, backing: Place, format: string) =>
    `qemu-img rebase -q -u -f qcow2 -F ${shellQuote(format)} -b ${quotePath(hostPath(backing.filename))} ${file(image)}`
  const rename = (image: Place, backing: Place, format: string) =>
    hostPath(backing.filename) === resolvePath(backing.filename) ? [] : [name(image, backing, format)]
  switch (step.kind) {
    case 'commit': {
      const { top, base, overlay, baseFormat } = step
      return [
        `qemu-img commit -q -f qcow2 -d -b ${file(base)} ${file(top)}`,
        // The data below the overlay are the same: only the name changes.
        ...(overlay === undefined ? [] : [name(overlay, base, baseFormat)]),
      ]
    }
    case 'pull': {
      const { top, base, baseFormat = 'raw' } = step
      if (base === undefined) return [`qemu-img rebase -q -f qcow2 -b '' ${file(top)}`]
      return [
        `qemu-img rebase -q -f qcow2 -F ${shellQuote(baseFormat)} -b ${file(base)} ${file(top)}`,
        ...rename(top, base, baseFormat),
      ]
    }
    case 'copy': {
      const { top, topFormat, target, backing, backingFormat = 'raw' } = step
      const onto = backing === undefined ? '' : ` -F ${shellQuote(backingFormat)} -B ${file(backing)}`
      return [
        // qemu-img writes over what is there.
        `test ! -e ${file(target)}`,
        `qemu-img convert -f ${shellQuote(topFormat)} -O qcow2${onto} ${file(top)} ${file(target)}`,
        ...(backing === undefined ? [] : rename(target, backing, backingFormat)),
      ]
    }
    case 'snapshot': {
      const { top, topFormat, overlay, virtualSize } = step
      const create = `-q -f qcow2 -F ${shellQuote(topFormat)} -b`
      const elsewhere = hostPath(top.filename) !== resolvePath(top.filename) && virtualSize !== undefined
      return [
        `test ! -e ${file(overlay)}`,
        elsewhere
          ? `qemu-img create -u ${create} ${quotePath(hostPath(top.filename))} ${file(overlay)} ${virtualSize}`
          : `qemu-img create ${create} ${file(top)} ${file(overlay)}`,
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
