import { resolve } from 'node:path'
import { dataCommands, type OperationsPlan, operationsToSh, remaining } from '@tidemark/planner'
import type { DomainImages, MapRule } from '@tidemark/planner/node'
import { CommandError } from '../errors.js'
import { hostPath } from './host-path.js'
import { type StrayBacking, strayBacking } from './stray-backing.js'

/** What goes with a plan's bitmaps: the data's commands, and what is left to do by hand. */
export class Afterwards {
  readonly #plan: OperationsPlan
  readonly #names: Parameters<typeof remaining>[1]
  /** Why no command here can move the data. */
  readonly #stray: StrayBacking | undefined

  /** @param images open; looked at here, and not later */
  constructor(plan: OperationsPlan, images: DomainImages, mapRules: readonly MapRule[]) {
    const rules = mapRules.map(({ from, to }) => ({ from, to: resolve(to) }))
    this.#plan = plan
    this.#names = { resolvePath: path => resolve(path), hostPath: path => hostPath(rules, resolve(path)) }
    // A snapshot's overlay is made over what is there, whatever it names.
    const moves = plan.data.some(({ kind }) => kind !== 'snapshot')
    this.#stray = moves ? strayBacking(images, plan.disks[0]!) : undefined
  }

  /** Sentences and commands for people. */
  get remaining(): readonly string[] {
    return remaining(this.#plan, this.#names)
  }

  /**
   * The whole of it for `sh -e`.
   *
   * @throws {CommandError} `backing-elsewhere`: qemu-img would move other data; what `operationsToSh` throws
   */
  script(): string {
    const script = operationsToSh(this.#plan, this.#names)
    if (this.#stray === undefined) return script
    const { filename, layer, backing, below } = this.#stray
    throw new CommandError('backing-elsewhere', `no script can move the data: ${whyNot(this.#stray)}`, {
      ...{ filename, layer, backing, below: below ?? null },
    })
  }

  /** Once the bitmaps are changed: the data's commands as in the script, or why there are none, and what is left by hand. */
  get leftToDo(): readonly string[] {
    if (this.#stray !== undefined) return [`the data: ${whyNot(this.#stray)}`, ...this.remaining]
    return [...dataCommands(this.#plan, this.#names), ...this.remaining]
  }
}

function whyNot({ filename, backing, below }: StrayBacking): string {
  const names = backing === '' ? 'names no backing image' : `names ${backing} as its backing image`
  const planned = below === undefined ? 'none was planned' : `${below} was planned`
  return (
    `qemu-img follows the names in the images alone, and ${filename} ${names}, where ${planned}. Work on the host of the ` +
    'domain, or give the images those names first (qemu-img rebase -u)'
  )
}
