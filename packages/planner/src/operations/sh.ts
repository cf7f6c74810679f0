import { shellQuote } from '../paths.js'
import { requireDoable } from './require-doable.js'
import type { BitmapOperation, DataStep, OperationsPlan, Place } from './types.js'

export interface OperationsShOptions {
  /** Makes an image's path one that holds wherever the script runs. Default: as the plan has it. */
  readonly resolvePath?: ((path: string) => string) | undefined
}

/** A part of a bitmap that is put together beside its name, so that a half of it is never taken for the whole. */
const PART = 'tidemark-part-'

/**
 * Commands that carry the plan out while the domain is off, for `sh -e` with `tidemark` and `qemu-img` on PATH. After
 * whichever command it is cut off, no bitmap that libvirt would accept lacks a change:
 *
 * - what is added to a bitmap is added before the data move: marks too many do no harm, and the copying by qemu-img is
 *   recorded by bitmaps that record;
 * - removals come after all merges, and from the top down: a bitmap that the top lacks is refused at once;
 * - images that are new get their data first, and each bitmap gets its name when it is whole.
 *
 * @throws {PlanError} `plan-unknown`, `operation-blocked`
 */
export function operationsToSh(plan: OperationsPlan, options: OperationsShOptions = {}): string {
  requireDoable(plan)
  const { resolvePath = path => path } = options
  const script = new Script(resolvePath)
  const what = plan.checkpoint === undefined ? plan.action : `${plan.action} checkpoint ${plan.checkpoint}`
  const title = `# ${comment(what)} of domain ${comment(plan.domain)} (${plan.dialect} bitmaps), which must be off; run with sh -e`
  const lines = ['#!/bin/sh -e', title]
  const makesImage = plan.action === 'copy' || plan.action === 'snapshot'
  const bitmaps = script.bitmaps(plan.operations)
  const data = plan.data.flatMap(step => script.data(step))
  lines.push(...(makesImage ? [...data, ...bitmaps] : [...bitmaps, ...data]))
  for (const line of remaining(plan, resolvePath)) lines.push(`# ${comment(line)}`)
  return `${lines.join('\n')}\n`
}

/** What is left to do by hand, a sentence or a command each. */
export function remaining(
  plan: OperationsPlan,
  resolvePath: (path: string) => string = path => path,
): readonly string[] {
  const { domain, checkpoint } = plan
  if (checkpoint !== undefined) {
    return [`then: virsh checkpoint-delete ${shellQuote(domain)} ${shellQuote(checkpoint)} --metadata`]
  }
  return plan.data.flatMap(step => {
    switch (step.kind) {
      case 'commit':
        return step.overlay === undefined
          ? [
              `then, before the domain starts: virsh edit, ${step.top.disk} is ${resolvePath(step.base.filename)}`,
            ]
          : []
      case 'copy':
        return [
          `then, if the copy is to be used: virsh edit, ${step.top.disk} is ${resolvePath(step.target.filename)}`,
        ]
      case 'snapshot':
        return [
          `then, before the domain starts: virsh edit, ${step.top.disk} is ${resolvePath(step.overlay.filename)}`,
        ]
      default:
        return []
    }
  })
}

class Script {
  readonly #resolvePath: (path: string) => string

  constructor(resolvePath: (path: string) => string) {
    this.#resolvePath = resolvePath
  }

  bitmaps(operations: readonly BitmapOperation[]): string[] {
    const removals = operations.filter(({ kind }) => kind === 'remove')
    const rest = operations.filter(({ kind }) => kind !== 'remove')
    const lines: string[] = []
    const done = new Set<BitmapOperation>()
    for (const operation of rest) {
      if (done.has(operation)) continue
      // An add and the merge into it are one thing.
      const merges =
        operation.kind === 'add'
          ? rest.filter(each => each.kind === 'merge' && isSame(each, operation))
          : [operation]
      for (const each of [operation, ...merges]) done.add(each)
      lines.push(...this.#change(operation, merges))
    }
    lines.push(...removals.map(place => this.#bitmap(['--remove'], place, place.bitmap)))
    return lines
  }

  #change(operation: BitmapOperation, merges: readonly BitmapOperation[]): string[] {
    const { bitmap, kind } = operation
    if (kind === 'enable' || kind === 'disable') return [this.#bitmap([`--${kind}`], operation, bitmap)]
    const sources = merges
      .flatMap(each => (each.kind === 'merge' ? each.sources : []))
      // What a bitmap has it need not be given.
      .filter(source => !isSame(source, operation))
    const added = kind === 'add' ? operation : undefined
    const add = added && ['--add', ...(added.disabled ? ['--disable'] : []), '-g', String(added.granularity)]
    // Of an image that is not in use yet a half must not have the name: nothing above it would tell.
    const part = added !== undefined && typeof operation.layer !== 'number' && sources.length > 1
    const name = part ? PART + bitmap : bitmap
    if (sources.length === 0) return add === undefined ? [] : [this.#bitmap(add, operation, name)]
    return sources.map((source, i) => {
      const last = i === sources.length - 1
      const own = source.filename === operation.filename
      const from = own ? [] : ['-b', this.#file(source), '-F', 'qcow2']
      return this.#bitmap(
        [
          ...(i === 0 ? (add ?? []) : []),
          ...['--merge', shellQuote(source.bitmap), ...from],
          ...(part && last ? ['--rename', shellQuote(bitmap)] : []),
        ],
        operation,
        name,
      )
    })
  }

  /** @param args quoted where need be */
  #bitmap(args: readonly string[], place: Place, name: string): string {
    return `tidemark bitmap ${args.join(' ')} -- ${this.#file(place)} ${shellQuote(name)}`
  }

  data(step: DataStep): string[] {
    switch (step.kind) {
      case 'commit': {
        const base = this.#file(step.base)
        const lines = [`qemu-img commit -q -f qcow2 -d -b ${base} -- ${this.#file(step.top)}`]
        if (step.overlay !== undefined) {
          // The data below the overlay are the same: only the name changes.
          lines.push(`qemu-img rebase -q -u -f qcow2 -F qcow2 -b ${base} -- ${this.#file(step.overlay)}`)
        }
        return lines
      }
      case 'pull': {
        const { base, baseFormat } = step
        const onto =
          base === undefined ? "-b ''" : `-F ${shellQuote(baseFormat ?? 'raw')} -b ${this.#file(base)}`
        return [`qemu-img rebase -q -f qcow2 ${onto} -- ${this.#file(step.top)}`]
      }
      case 'copy': {
        const { backing, backingFormat } = step
        const onto =
          backing === undefined ? '' : ` -F ${shellQuote(backingFormat ?? 'raw')} -B ${this.#file(backing)}`
        return [
          `qemu-img convert -f qcow2 -O qcow2${onto} -- ${this.#file(step.top)} ${this.#file(step.target)}`,
        ]
      }
      case 'snapshot':
        return [
          // qemu-img create overwrites what is there.
          `test ! -e ${this.#file(step.overlay)}`,
          `qemu-img create -q -f qcow2 -F ${shellQuote(step.topFormat)} -b ${this.#file(step.top)} -- ${this.#file(step.overlay)}`,
        ]
    }
  }

  #file({ filename }: Place): string {
    const path = this.#resolvePath(filename)
    return shellQuote(path.startsWith('-') ? `./${path}` : path)
  }
}

function isSame(a: Place & { readonly bitmap: string }, b: Place & { readonly bitmap: string }): boolean {
  return a.disk === b.disk && a.layer === b.layer && a.bitmap === b.bitmap
}

function comment(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ')
}
